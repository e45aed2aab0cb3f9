"""Watch: restores our rules and sets when another program has removed, emptied or bypassed them.

Every other second the watch looks at the sizes of the legacy tables, the generation of the nft rules and the
presence of the sets, which costs some hundred microseconds. It reads the tables only when a size has changed.
It runs programs only when the tables show damage or other rules than ours have changed, and beside the
daemon, so that no packet waits. nfreaim-rules restores the rules; the *refills* put back what only the daemon
knows: pinholes and other entries of sets.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from subprocess import CompletedProcess
from typing import Final, NamedTuple

from nfreaim.errors import BackendError
from nfreaim.host.netfilter.inside_networks import InsideNetworks
from nfreaim.host.netfilter.ipset import SetPresence
from nfreaim.host.netfilter.legacy_tables import LegacyTables, OurRules, generation
from nfreaim.host.netfilter.names import CHAIN, SETS
from nfreaim.host.rules import script
from nfreaim.host.rules.background import BackgroundProgram

log = logging.getLogger("nfreaim")

_LOOK_EVERY_S: Final = 2.0
_READ_EVERY_S: Final = 10.0  # between readings of tables of unchanged size: a rule may have been replaced
_ASK_EVERY_S: Final = 600.0  # between runs of nfreaim-rules without a sign of change: a policy has none
_FOREIGN_EVERY_S: Final = 10.0  # at least, between two runs because other rules than ours changed
_AT_ONCE: Final = 5  # restorations in a row that are made at once and logged
_BACKOFF_FIRST_S, _BACKOFF_MOST_S = 5.0, 300.0  # before each further one, doubled each time
_QUIET_S: Final = 600.0  # without a restoration; then the row begins anew
_NAMED: Final = 6  # at most as many damages are named in a log line

Refill = Callable[[], Sequence[object]]
"""Puts back entries that only the daemon knows, and returns them. Raises BackendError."""

_Steps = Generator[BackgroundProgram, "CompletedProcess[str]", None]


class Refills(NamedTuple):
    """The daemon's part of a restoration.

    entries   called at each look, because they are cheap
    forwards  reads the nat table, so it is called only when that has changed
    restored  called with the time when rules that were missing are back
    unguarded called with the reason why connections may get into a flowtable, or "", at each look
    """

    entries: Sequence[Refill]
    forwards: Refill
    restored: Callable[[float], None]
    unguarded: Callable[[str], None]


class Watch:
    """Looks from time to time. If a look starts a program, a later ``tick`` goes on with its result.

    installed  the settings of the installed rules
    served     the settings that the daemon serves; its interfaces are not compared
    inside     the set of inside networks, which rules and daemon fill
    now        the daemon's clock
    """

    def __init__(
        self,
        installed: script.Settings,
        served: script.Settings,
        inside: InsideNetworks,
        refills: Refills,
        now: float,
    ) -> None:
        self._settings = replace(installed, native=served.native)
        self._served = served
        self._inside = inside
        self._refills = refills
        self._tables, self._presence = LegacyTables(), SetPresence()
        self._running: BackgroundProgram | None = None
        self._steps: _Steps | None = None
        self._now = self._next = now
        self._restored = self._restore_at = self._foreign_at = 0.0
        self._read_at, self._ask_at = now + _READ_EVERY_S, now + _ASK_EVERY_S
        self._row = 0
        self._said = ""
        self._warned: list[str] = []
        self._sizes: dict[str, bytes] = {}
        self._generation: int | None = None
        self._known = OurRules({}, ())
        self._rebase(generation())

    @property
    def busy(self) -> bool:
        """Whether a program runs. Then ``tick`` should be called often."""
        return self._running is not None

    def close(self) -> None:
        """Wait for the program that runs, and close the sockets."""
        if self._running is not None:
            self._running.end()
        self._tables.close()
        self._presence.close()

    def tick(self, now: float) -> None:
        """Look, if it is time, or go on with what the last look began. *now* is the daemon's clock."""
        self._now = now
        try:
            if self._steps is not None:
                self._proceed()
            elif now >= self._next:
                self._next = now + _LOOK_EVERY_S
                self._look()
        except BackendError as error:
            self._steps = self._running = None
            self._postpone()
            self._say(f"our rules cannot be looked after or restored: {error}; remedy: {self._remedy()}")
        except Exception:  # a mistake of ours must not end the daemon, which serves packets
            self._steps = self._running = None
            self._next = now + _ASK_EVERY_S
            log.exception("looking after our rules failed")

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
            self._foreign_at, self._ask_at = now + _FOREIGN_EVERY_S, now + _ASK_EVERY_S
            self._begin(self._question())

    def _lost_sets(self) -> list[str]:
        lost = [f"set {name} missing" for name in SETS if not self._presence.of(name)]
        if not lost and not self._inside.filled():
            lost = [f"set {self._inside.name} empty"]
        return lost

    def _question(self) -> _Steps:
        """After a change of other rules: look whether ours are complete and at their position."""
        shown = yield script.start(self._show())
        self._learn(shown)
        damage = [line for line in shown.stdout.splitlines() if line.startswith("not installed:")]
        for variant in _variants(shown.stdout):
            saved = yield BackgroundProgram([f"{variant}-save", "-t", "filter"], script.TIMEOUT_S)
            damage += _damaged(variant, saved.stdout.splitlines())
        if damage:
            yield from self._restore(damage)

    def _restore(self, damage: list[str]) -> _Steps:
        generated = generation()  # what others change while the programs run is looked at afterwards
        shown = yield script.start(["show"])
        found = script.settings(shown.stdout)
        if found is not None:  # the configuration names these chains, so what is in them is no installation's
            found = replace(found, native=self._served.native)
        if shown.returncode == 0 and found is not None and found != self._settings:
            log.info("the rules were installed anew: %s", " ".join(found.words()))
            if problem := script.difference(shown.stdout, self._served):
                self._say(f"{problem}; and restart the daemon")
            self._settings = found.completed(self._served)
            self._inside.lan = found.lan
            if self._settings == found:
                self._rebase(generated)
                return
            damage = []
        done = yield script.start(self._settings.install())
        if done.returncode:
            raise BackendError(script.message(done.stderr))
        self._refills.unguarded(script.unguarded(done.stdout))
        self._postpone()
        self._rebase(generated)
        self._refills.restored(self._now)
        self._report(self._refill(True), damage)

    def _show(self) -> list[str]:
        return ["show", *self._settings.native_words()]

    def _learn(self, shown: CompletedProcess[str]) -> None:
        """What `show` says besides damage: chains that cannot have our accept, and flowtables."""
        self._refills.unguarded(script.unguarded(shown.stdout))
        warnings = script.warnings(shown.stderr)
        for line in warnings:
            if line not in self._warned:
                log.warning("%s", line)
        self._warned = warnings

    def _refill(self, forwards: bool) -> list[object]:
        """Call the refills; returns all entries that they put back."""
        refills = [*self._refills.entries, self._refills.forwards] if forwards else self._refills.entries
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
                f"{_BACKOFF_MOST_S:g} s; remedy: find out who does it, "
                "and have it done before nfreaim's rules"
            )

    def _postpone(self) -> None:
        """Set the time from which on the next restoration may begin."""
        self._row = self._row + 1 if self._now - self._restored < _QUIET_S else 1
        self._restored = self._now
        over = self._row - _AT_ONCE
        self._restore_at = self._now + (
            min(_BACKOFF_MOST_S, _BACKOFF_FIRST_S * 2**over) if over >= 0 else 0.0
        )

    def _rebase(self, generated: int | None) -> None:
        """Take the tables as they are now for those that have to be there; nftables as *generated* tells."""
        self._sizes, self._generation = self._tables.sizes(), generated
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
        """Log an error, unless it was logged last."""
        if text != self._said:
            log.error("%s", text)
        self._said = text

    def _remedy(self) -> str:
        return f"{script.NAME} install {' '.join(self._settings.words())}"


def _variants(shown: str) -> list[str]:
    """The iptables variants whose filter table has our accept, without the one of the legacy tables."""
    legacy = {line.split()[0] for line in shown.splitlines() if re.match(r"\S+ +raw ", line)}
    accepts = re.findall(rf"^(\S+) +filter .*-A FORWARD -j {CHAIN}$", shown, re.MULTILINE)
    return [variant for variant in dict.fromkeys(accepts) if variant not in legacy]


def _damaged(variant: str, saved: Sequence[str]) -> list[str]:
    """In words, the damage to our accept in a filter table that ``*variant*-save`` printed."""
    forwarding = [line for line in saved if line.startswith("-A FORWARD ")]
    damage = []
    if forwarding and not forwarding[0].endswith(f" {CHAIN}"):
        damage.append(f"{variant} filter: jump FORWARD > {CHAIN} not in its place")
    if forwarding and not any(line.startswith(f"-A {CHAIN} ") for line in saved):
        damage.append(f"{variant} filter: chain {CHAIN} changed")
    return damage
