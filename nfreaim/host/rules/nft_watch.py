"""NftWatch: restores our table of nftables, and with the daemon's help what was in its sets.

The kernel announces changes. If the table is gone, as after `flush ruleset`, or has changed, it is made again
as it was, by one transaction from the daemon's own loop: no program and no library is loaded meanwhile.
Skewed flows are in that transaction, because each process has those that it guards in a table that others
cannot delete; what else the sets had is put back at once behind it. Every other second the watch looks
without an announcement, and every ten seconds it reads the whole table. Programs run only when the rules were
installed anew or other tables than ours have changed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from nfreaim.errors import BackendError
from nfreaim.host.netfilter.inside_networks import InsideNetworks
from nfreaim.host.netfilter.names import GUARD_TABLE, LAN_SET, NFT_TABLE, SKEW_SET
from nfreaim.host.netfilter.nft_events import NftEvents
from nfreaim.host.netfilter.nft_generation import generation
from nfreaim.host.netfilter.nft_image import TableImage, Tables, filling
from nfreaim.host.netfilter.nft_messages import Kind, elements
from nfreaim.host.rules import script
from nfreaim.host.rules.nft_text import SETTINGS_CHAIN
from nfreaim.host.rules.restoring import ASK_EVERY_S, FOREIGN_EVERY_S, Refills, Restoring, Steps

log = logging.getLogger("nfreaim")

_READ_EVERY_S: Final = 10.0
_AT_ONCE: Final = 256  # elements of one message
_DELETED: Final = f"table {NFT_TABLE} missing"
_DAEMONS: Final = f"{NFT_TABLE}_"  # sets of these names have the daemon's elements


class NftWatch(Restoring):
    """Readable when the kernel has announced a change. *clock* is the daemon's."""

    def __init__(
        self,
        installed: script.Settings,
        served: script.Settings,
        inside: InsideNetworks,
        refills: Refills,
        clock: Callable[[], float],
    ) -> None:
        now = clock()
        super().__init__(installed, served, inside, refills, now)
        self._clock = clock
        self._events, self._tables = NftEvents(NFT_TABLE, GUARD_TABLE), Tables()
        self._networks: list[bytes] = []
        self._ours = self._others = False
        self._foreign_at = 0.0
        self._read_at, self._ask_at = now + _READ_EVERY_S, now + ASK_EVERY_S
        self._rebase(None)

    def close(self) -> None:
        """Wait for the program that runs, and close the sockets."""
        super().close()
        self._events.close()
        self._tables.close()

    def fileno(self) -> int:
        """For a selector: readable when the kernel has announced a change."""
        return self._events.fileno()

    def noticed(self) -> None:
        """Read the announcements, and restore at once what is missing. Raises OSError."""
        self._read_events()
        if not self._ours:
            return
        now = self._clock()
        if self._steps is None:
            self._next = now
            self.tick(now)
        elif now >= self._restore_at:  # a program runs, and what it comes to know may take a while
            self._now = now
            try:
                if self._tables.handle(NFT_TABLE) is None:
                    self._mend([_DELETED], None)
            except BackendError as error:
                self._say(f"our table could not be made again: {error}; it is tried again")

    def _read_events(self) -> None:
        changes = self._events.read()
        self._ours |= changes.ours
        self._others |= changes.others

    def _look(self) -> None:
        now = self._now
        self._read_events()
        reading, asking = now >= self._read_at, now >= self._ask_at
        if self._ours or reading or self._tables.handle(NFT_TABLE) != self._image.handle:
            self._read_at = now + _READ_EVERY_S
            there = self._read()
            if there is not None and _installed_anew(self._image, there):
                self._begin(self._after_installation())
                return
            damage = [_DELETED] if there is None else self._image.changed(there)
            if damage:
                if now >= self._restore_at:
                    self._mend_or_install(damage, there)
                return
            self._ours = False
        if not self._inside.filled():
            self._inside.again(now)
        self._networks = self._tables.lists(NFT_TABLE, LAN_SET)
        self._report(self._refill(reading), [])
        if asking or (self._others and now >= self._foreign_at):
            self._others = False
            self._foreign_at, self._ask_at = now + FOREIGN_EVERY_S, now + ASK_EVERY_S
            self._begin(self._question())

    def _failed(self, error: BackendError) -> None:
        try:
            gone = self._tables.handle(NFT_TABLE) is None
        except BackendError:
            gone = False
        if not gone or self._now < self._restore_at:
            super()._failed(error)
            return
        # It was deleted in the middle of a look, which is no failure of a restoration.
        log.debug("our table went while it was looked at: %s", error)
        self._steps = self._running = None
        self._next = self._now

    def _mend_or_install(self, damage: list[str], there: TableImage | None) -> None:
        try:
            self._mend(damage, there)
        except BackendError as error:  # the kernel may have lost a module since
            log.info("our table could not be made as it was: %s; it is installed", error)
            self._begin(self._install(damage, generation()))

    def _mend(self, damage: list[str], there: TableImage | None) -> None:
        """Make the table as it was of what is *there*, and put back what was in it."""
        self._refills.unwatched(self._now)
        more = []
        if there is None:
            more = [filling(NFT_TABLE, LAN_SET, some) for some in self._networks]
        more += self._skewed()
        self._tables.make(self._image, there, more)
        self._postpone()
        self._rebase(None)
        self._inside.again(self._now)
        self._report(self._refill(True), damage)

    def _skewed(self) -> list[bytearray]:
        """What adds the flows of all guards, of whichever process."""
        keys = {
            key
            for table in self._tables.names()
            if table.startswith(GUARD_TABLE)
            for key in self._tables.keys(table, SKEW_SET)
        }
        listed = sorted(keys)
        return [
            elements(Kind.NEW_ELEMENTS, NFT_TABLE, SKEW_SET, listed[start : start + _AT_ONCE])
            for start in range(0, len(listed), _AT_ONCE)
        ]

    def _after_installation(self) -> Steps:
        """Learn what the rules were made of. Until that is known, the installation is over as well."""
        generated = generation()
        shown = yield script.start(["show"])
        found = self._taken_over(shown)
        if found is not None and found != self._settings:
            yield from self._install([], generated)
            return
        self._rebase(generated)
        self._refills.unwatched(self._now)
        self._refill(True)
        self._others = True  # `show` tells more with the options of the daemon's own

    def _rebase(self, generated: int | None) -> None:
        self._read_events()
        self._ours = False
        image = self._read()
        if image is None:
            raise BackendError(f"table {NFT_TABLE} is not there")
        self._image = image
        self._networks = self._tables.lists(NFT_TABLE, LAN_SET)

    def _read(self) -> TableImage | None:
        return self._tables.image(NFT_TABLE, lambda name: not name.startswith(_DAEMONS))


def _installed_anew(known: TableImage, now: TableImage) -> bool:
    """Whether nfreaim-rules has put the rules there. Who else changes rules leaves the settings alone."""
    numbers = now.numbers.get(SETTINGS_CHAIN, ())
    return bool(numbers) and numbers != known.numbers.get(SETTINGS_CHAIN)
