"""Watch: notices when somebody else removes, empties or gets around our rules and sets, and restores them.

A look every other second costs some hundred microseconds: sizes of the legacy tables, the generation of the
nft rules, the presence of the sets. Only when something moved, the tables are read, and only when that says
so, or others' rules changed, programs are run, beside the daemon: its packets never wait for them. What only
the daemon knows (pinholes, entries of sets) it puts back by the *refills*. Knows no rule itself.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Generator, Iterable, Sequence
from subprocess import CompletedProcess
from typing import Final

from nfreaim.errors import BackendError
from nfreaim.host.netfilter.ipset import NetworkSet, Presence
from nfreaim.host.netfilter.legacy_tables import OURS, LegacyTables, Ours, generation
from nfreaim.host.rules import script
from nfreaim.host.rules.background import BackgroundProgram

log = logging.getLogger("nfreaim")

_LOOK: Final = 2.0  # seconds between looks
_READ: Final = 10.0  # between looks into the tables although no size has changed: a rule may be another
_ASK: Final = 600.0  # between questions to nfreaim-rules although nothing has changed: so may have a policy
_FOREIGN: Final = 10.0  # the least between such questions because others' rules changed
_AT_ONCE: Final = 5  # restorations in a row that come at once and are logged
_BACKOFF: Final = (5.0, 300.0)  # between those after them: at first, each time twice as long, at the most
_QUIET: Final = 600.0  # without a restoration, then the row begins anew
_NAMED: Final = 6  # so many damages are named in a log line

Refill = Callable[[], Sequence[object]]
"""Puts back what only the daemon knows of, and returns it. Raises BackendError."""

_Steps = Generator[BackgroundProgram, "CompletedProcess[str]", None]


class Watch:
    """One look after the other; programs that are run meanwhile are taken up by the next ``tick``.

    settings  what the rules were installed with
    serves    ports, queue and workers of the daemon
    sets      names of the sets that have to exist
    lan       the set of inside networks, which the rules fill
    entries   refills that are cheap, called at each look
    forwards  the refill that reads the nat table, called when it has changed
    restored  told when the rules were away and are back
    now       the daemon's clock
    """

    def __init__(
        self,
        settings: script.Settings,
        serves: tuple[Sequence[int], int, int],
        sets: Iterable[str],
        lan: NetworkSet,
        entries: Sequence[Refill],
        forwards: Refill,
        restored: Callable[[float], None],
        now: float,
    ) -> None:
        self._settings = settings
        self._serves = serves
        self._sets = list(sets)
        self._lan = lan
        self._entries, self._forwards, self._restored_rules = entries, forwards, restored
        self._tables, self._presence = LegacyTables(), Presence()
        self._running: BackgroundProgram | None = None
        self._steps: _Steps | None = None
        self._now = self._next = now
        self._restored = self._restore_at = self._foreign_at = 0.0
        self._read_at, self._ask_at = now + _READ, now + _ASK
        self._row = 0
        self._said = ""
        self._sizes: dict[str, bytes] = {}
        self._generation: int | None = None
        self._known = Ours({}, ())
        self._rebase()

    @property
    def busy(self) -> bool:
        """Whether a program runs: then ``tick`` should be called often."""
        return self._running is not None

    def close(self) -> None:
        """Wait for what runs, and give the sockets back."""
        if self._running is not None:
            self._running.end()
        self._tables.close()
        self._presence.close()

    def tick(self, now: float) -> None:
        """Look, if it is time, or go on with what a look has begun. *now* is the daemon's clock."""
        self._now = now
        try:
            if self._steps is not None:
                self._proceed()
            elif now >= self._next:
                self._next = now + _LOOK
                self._look()
        except BackendError as error:
            self._steps = self._running = None
            self._postpone()
            self._say(f"our rules cannot be looked after or restored: {error}; remedy: {self._remedy()}")
        except Exception:  # a mistake of ours, and no reason to leave the packets alone
            self._steps = self._running = None
            self._next = now + _ASK
            log.exception("looking after our rules failed")

    def _look(self) -> None:
        sizes, generated, now = self._tables.sizes(), generation(), self._now
        moved = {table for table in sizes | self._sizes if sizes.get(table) != self._sizes.get(table)}
        foreign = "filter" in moved or generated != self._generation
        reading, asking = now >= self._read_at, now >= self._ask_at
        damage = self._lost_sets()
        if moved or reading:
            damage += self._known.changed(self._tables.ours())
            self._read_at = now + _READ
        if damage:
            if now >= self._restore_at:
                self._begin(self._restore(damage))
            return  # the sizes known stay as they were: the next look will find the damage again
        if foreign and now < self._foreign_at and not asking:
            return
        self._sizes, self._generation = sizes, generated
        self._report(self._refill("nat" in moved or reading), [])
        if foreign or asking:
            self._foreign_at, self._ask_at = now + _FOREIGN, now + _ASK
            self._begin(self._question())

    def _lost_sets(self) -> list[str]:
        lost = [f"set {name} missing" for name in self._sets if not self._presence.of(name)]
        if not lost and not self._lan.filled():
            lost = [f"set {self._lan.name} empty"]
        return lost

    def _question(self) -> _Steps:
        """Others' rules have changed: are ours complete, and at the right place?"""
        shown = yield script.start(["show"])
        damage = [line for line in shown.stdout.splitlines() if line.startswith("not installed:")]
        for variant in _variants(shown.stdout):
            saved = yield BackgroundProgram([f"{variant}-save", "-t", "filter"], script.TIMEOUT)
            damage += _damaged(variant, saved.stdout.splitlines())
        if damage:
            yield from self._restore(damage)

    def _restore(self, damage: list[str]) -> _Steps:
        shown = yield script.start(["show"])
        found = script.settings(shown.stdout)
        if shown.returncode == 0 and found is not None and found != self._settings:
            log.info("the rules were installed anew: %s", " ".join(script.arguments(*found)))
            if problem := script.difference(shown.stdout, *self._serves):
                self._say(f"{problem}; and restart the daemon")
            self._settings = found
            self._rebase()
            return
        done = yield script.start(["install", *script.arguments(*self._settings)])
        if done.returncode:
            raise BackendError(script.message(done.stderr))
        self._postpone()
        self._rebase()
        self._restored_rules(self._now)
        self._report(self._refill(True), damage)

    def _refill(self, forwards: bool) -> list[object]:
        """Everything that was put back."""
        refills = [*self._entries, self._forwards] if forwards else self._entries
        return [item for refill in refills for item in refill()]

    def _report(self, refilled: list[object], damage: list[str]) -> None:
        if not refilled and not damage:
            return
        named = [*damage[:_NAMED], *([f"{len(damage) - _NAMED} more"] if len(damage) > _NAMED else [])]
        text = f"somebody else changed our rules ({', '.join(named) or 'entries removed'}): restored"
        if refilled:
            text += f", with {len(refilled)} entries: {', '.join(map(str, refilled[:_NAMED]))}"
            text += ", ..." if len(refilled) > _NAMED else ""
        if self._row <= _AT_ONCE:
            log.warning("%s", text)
            self._said = ""
        else:
            log.debug("%s", text)
            self._say(
                "somebody keeps changing our rules: they are restored less and less often, in the end every "
                f"{_BACKOFF[1]:g} s; remedy: find out who does it, and have it done before nfreaim's rules"
            )

    def _postpone(self) -> None:
        """When the next restoration may begin."""
        first, most = _BACKOFF
        self._row = self._row + 1 if self._now - self._restored < _QUIET else 1
        self._restored = self._now
        over = self._row - _AT_ONCE
        self._restore_at = self._now + (min(most, first * 2**over) if over >= 0 else 0.0)

    def _rebase(self) -> None:
        """What is there now is what has to be there."""
        self._sizes, self._generation = self._tables.sizes(), generation()
        self._known = self._tables.ours()._replace(misplaced=())

    def _begin(self, steps: _Steps) -> None:
        self._steps = steps
        self._running = next(steps)

    def _proceed(self) -> None:
        assert self._running is not None
        assert self._steps is not None
        result = self._running.result()
        if result is None:
            return
        try:
            self._running = self._steps.send(result)
        except StopIteration:
            self._steps = self._running = None

    def _say(self, text: str) -> None:
        """Once, until something else is to be said."""
        if text != self._said:
            log.error("%s", text)
        self._said = text

    def _remedy(self) -> str:
        return f"{script.NAME} install {' '.join(script.arguments(*self._settings))}"


def _variants(shown: str) -> list[str]:
    """The programs whose filter table has our accept, but for the one that speaks to the legacy tables."""
    legacy = {line.split()[0] for line in shown.splitlines() if re.match(r"\S+ +raw ", line)}
    accepts = re.findall(rf"^(\S+) +filter .*-A FORWARD -j {OURS}$", shown, re.MULTILINE)
    return [variant for variant in dict.fromkeys(accepts) if variant not in legacy]


def _damaged(variant: str, saved: Sequence[str]) -> list[str]:
    """What is wrong with our accept in a filter table, saved by the program *variant*."""
    forwarding = [line for line in saved if line.startswith("-A FORWARD ")]
    damage = []
    if forwarding and not forwarding[0].endswith(f" {OURS}"):
        damage.append(f"{variant} filter: jump FORWARD > {OURS} not in its place")
    if forwarding and not any(line.startswith(f"-A {OURS} ") for line in saved):
        damage.append(f"{variant} filter: chain {OURS} changed")
    return damage
