"""NativeDrops: whether a native nftables chain drops what comes through pinholes, as the daemon runs.

The rules script cannot write into such a chain. So who reads the log has to be told: otherwise it would say
that a pinhole is opened, and nobody gets through.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Sequence
from typing import Final

from nfreaim.errors import BackendError
from nfreaim.host.netfilter.nft_generation import generation
from nfreaim.host.netfilter.nftables import Ruleset
from nfreaim.host.rules.background import BackgroundProgram

log = logging.getLogger("nfreaim")

_EVERY_S: Final = 10.0  # at least, between two looks because the rules changed
_TIMEOUT_S: Final = 10.0
# Terse: without the elements of sets, of which there may be many.
_LIST: Final = ("nft", "--terse", "-j", "list", "ruleset")


def dropping(text: str, wan: Sequence[str], hook: str = "forward") -> str:
    """The first chain at *hook* that drops every pinhole's connections, in the output of nft; or "".

    Raises ValueError.
    """
    found = Ruleset(json.loads(text)).hopeless(wan, hook)
    return next((f"nftables chain {' '.join(names)}" for names in found), "")


class NativeDrops:
    """Calls *tell* with the chain that drops, or "", when that has changed. *clock* tells the time.

    hook  "forward", or "input" for pinholes that lead to this router
    """

    def __init__(
        self,
        wan: Sequence[str],
        clock: Callable[[], float],
        tell: Callable[[str], None],
        hook: str = "forward",
    ) -> None:
        self._wan = wan
        self._hook = hook
        self._here = "" if hook == "forward" else " to this router"
        self._clock = clock
        self._tell = tell
        self._known = ""
        self._generation: int | None = None
        self._look_at = 0.0
        self._running: BackgroundProgram | None = None

    def close(self) -> None:
        """Wait for the program that runs."""
        if self._running is not None:
            self._running.end()

    def look(self) -> None:
        """Look if it is time, or go on with what the last look began. Raises nothing; never waits."""
        try:
            if self._running is not None:
                done = self._running.result()
                if done is not None:
                    self._running = None
                    self._learn(
                        dropping(done.stdout, self._wan, self._hook) if done.returncode == 0 else self._known
                    )
            elif self._clock() >= self._look_at:
                self._begin()
        except (BackendError, ValueError) as error:
            self._running = None
            log.debug("native nftables rules cannot be read: %s", error)

    def _begin(self) -> None:
        now = generation()
        if now is None or now == self._generation or shutil.which(_LIST[0]) is None:
            return
        self._generation = now
        self._look_at = self._clock() + _EVERY_S
        self._running = BackgroundProgram(_LIST, _TIMEOUT_S)

    def _learn(self, found: str) -> None:
        if found == self._known:
            return
        self._known = found
        if found:
            log.warning(
                "%s drops the connections of pinholes%s: it needs an accept for them; remedy: `nfreaim check`"
                " prints the line and names its file",
                found,
                self._here,
            )
        else:
            log.info("no native nftables chain drops the connections of pinholes%s any more", self._here)
        self._tell(found)
