"""Watch: restores our rules and sets in the legacy tables.

Every other second it looks at the sizes of the legacy tables, the generation of the nft rules and the
presence of the sets, which costs some hundred microseconds. It reads the tables only when a size has changed,
and runs programs only when the tables show damage or other rules than ours have changed.
"""

from __future__ import annotations

from typing import Final

from nfreaim.host.netfilter.inside_networks import InsideNetworks
from nfreaim.host.netfilter.ipset import SetPresence
from nfreaim.host.netfilter.legacy_tables import LegacyTables, OurRules
from nfreaim.host.netfilter.names import SETS
from nfreaim.host.netfilter.nft_generation import generation
from nfreaim.host.rules import script
from nfreaim.host.rules.restoring import ASK_EVERY_S, FOREIGN_EVERY_S, Refills, Restoring

_READ_EVERY_S: Final = 10.0  # between readings of tables of unchanged size: a rule may have been replaced


class Watch(Restoring):
    """Looks every other second."""

    def __init__(
        self,
        installed: script.Settings,
        served: script.Settings,
        inside: InsideNetworks,
        refills: Refills,
        now: float,
    ) -> None:
        super().__init__(installed, served, inside, refills, now)
        self._tables, self._presence = LegacyTables(), SetPresence()
        self._foreign_at = 0.0
        self._read_at, self._ask_at = now + _READ_EVERY_S, now + ASK_EVERY_S
        self._sizes: dict[str, bytes] = {}
        self._generation: int | None = None
        self._known = OurRules({}, ())
        self._rebase(generation())

    def close(self) -> None:
        """Wait for the program that runs, and close the sockets."""
        super().close()
        self._tables.close()
        self._presence.close()

    def _look(self) -> None:
        sizes, generated, now = self._tables.sizes(), generation(), self._now
        moved = {table for table in sizes | self._sizes if sizes.get(table) != self._sizes.get(table)}
        foreign = "filter" in moved or generated != self._generation
        reading, asking = now >= self._read_at, now >= self._ask_at
        damage = self._lost_sets()
        if moved or reading:
            damage += self._known.changed(self._tables.ours())
            self._read_at = now + _READ_EVERY_S
        if damage:
            if now >= self._restore_at:
                self._begin(self._restore(damage))
            return  # the known sizes stay as they were, so the next look finds the damage again
        if foreign and now < self._foreign_at and not asking:
            return
        self._sizes, self._generation = sizes, generated
        self._report(self._refill("nat" in moved or reading), [])
        if foreign or asking:
            self._foreign_at, self._ask_at = now + FOREIGN_EVERY_S, now + ASK_EVERY_S
            self._begin(self._question())

    def _lost_sets(self) -> list[str]:
        lost = [f"set {name} missing" for name in SETS if not self._presence.of(name)]
        if not lost and not self._inside.filled():
            lost = [f"set {self._inside.name} empty"]
        return lost

    def _rebase(self, generated: int | None) -> None:
        self._sizes, self._generation = self._tables.sizes(), generated
        self._known = self._tables.ours()._replace(misplaced=())
