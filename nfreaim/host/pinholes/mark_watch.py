"""MarkWatch: looks from time to time whether other programs' rules leave our connmarks alone.

Beside a rule that does not, no pinhole can work, so none is opened, and the log says why. Programs read the
rules beside the daemon; only what is about to be opened before they have answered once waits for them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Final

from nfreaim.errors import BackendError
from nfreaim.host.netfilter.foreign_marks import ForeignMarks
from nfreaim.host.netfilter.legacy_tables import LegacyTables
from nfreaim.host.netfilter.nft_generation import generation
from nfreaim.host.rules.background import BackgroundPrograms
from nfreaim.marks import Marks

log = logging.getLogger("nfreaim")

ROUTES: Final = ("ip", "-j", "-4", "rule")
NATIVE: Final = ("nft", "-j", "list", "ruleset")
SAVES: Final = (("iptables-legacy-save",), ("iptables-nft-save",))
_TIMEOUT_S: Final = 5.0
_LOOK_EVERY_S: Final = 2.0
_READ_EVERY_S: Final = 30.0  # without a sign of change: the rules of routes give none

_Version = tuple[bytes, int | None]


class MarkWatch:
    """What stands against pinholes. Until ``begin`` is called, nothing does. *clock* tells the time."""

    def __init__(self, clock: Callable[[], float], marks: Marks) -> None:
        self._clock = clock
        self._marks = marks
        self._tables = LegacyTables()
        self._version: _Version | None = None
        self._look_at = self._read_at = 0.0
        self._programs = BackgroundPrograms()
        self._answers: dict[tuple[str, ...], str] = {}
        self._known = True
        self._harms: list[str] = []

    def close(self) -> None:
        """Wait for the programs that run, and close the socket."""
        self._programs.end()
        self._tables.close()

    @property
    def busy(self) -> bool:
        """Whether a program runs. Then ``look`` should be called often."""
        return bool(self._programs)

    def begin(self) -> None:
        """Read the rules for the first time. Raises BackendError."""
        self._known = False
        self.look()

    def look(self) -> None:
        """Read the rules if they have changed, or if it is time. Raises BackendError."""
        now = self._clock()
        if self._programs:
            self._collect(wait=False)
        elif now >= self._look_at:
            self._look_at = now + _LOOK_EVERY_S
            version = self._tables.others("mangle"), generation()
            if version != self._version or now >= self._read_at:
                self._version, self._read_at = version, now + _READ_EVERY_S
                self._answers = {}
                self._programs.start((ROUTES, NATIVE, *SAVES), _TIMEOUT_S)

    def require(self) -> None:
        """Raise BackendError if no pinhole can work."""
        if not self._known:
            self._collect(wait=True)
        if self._harms:
            raise BackendError(self._harms[0])

    def _collect(self, wait: bool) -> None:
        try:
            for done in self._programs.ended(wait):
                self._answers[tuple(done.args)] = done.stdout if done.returncode == 0 else ""
        except BackendError:
            self._version = None
            raise
        if self._programs:
            return
        self._known = True
        self._tell(foreign_marks(self._marks, self._answers))

    def _tell(self, found: ForeignMarks) -> None:
        """Note and log what stands against pinholes, once for each rule."""
        before, self._harms = self._harms, [f"{harm}; remedy: {harm.remedy}" for harm in found.harms]
        for harm in self._harms:
            if harm not in before:
                log.error("no pinhole is opened, because none could work: %s", harm)
        if before and not self._harms:
            log.info("rules of others leave our connmarks alone again: pinholes are opened")


def foreign_marks(marks: Marks, answers: dict[tuple[str, ...], str]) -> ForeignMarks:
    """What the programs' answers, by their words, tell of others' marks. What is no answer tells nothing."""
    found = ForeignMarks(marks)
    found.read_routes(_json(answers.get(ROUTES, "")))
    for words in SAVES:
        found.read_saved(answers.get(words, ""), words[0].removesuffix("-save"))
    found.read_native(_json(answers.get(NATIVE, "")))
    return found


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None
