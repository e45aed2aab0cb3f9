"""Restoring: what restores our rules when another program has removed, emptied or bypassed them, whichever
firewall has them.

nfreaim-rules restores rules beside the daemon, so that no packet waits; the *refills* put back what only the
daemon knows: pinholes and other entries of sets. When something is missing, and how that is learned, is told
by ``watch`` (legacy tables) and ``nft_watch`` (nftables).
"""

from __future__ import annotations

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from subprocess import CompletedProcess
from typing import Final, NamedTuple

from nfreaim.errors import BackendError
from nfreaim.host.netfilter.inside_networks import InsideNetworks
from nfreaim.host.netfilter.names import CHAIN
from nfreaim.host.netfilter.nft_generation import generation
from nfreaim.host.rules import script
from nfreaim.host.rules.background import BackgroundProgram

log = logging.getLogger("nfreaim")

LOOK_EVERY_S: Final = 2.0
ASK_EVERY_S: Final = 600.0
"""Between runs of nfreaim-rules without a sign of change: a policy has none."""
FOREIGN_EVERY_S: Final = 10.0
"""At least, between two runs because other rules than ours changed."""
_AT_ONCE: Final = 5  # restorations in a row that are made at once and logged
_BACKOFF_FIRST_S, _BACKOFF_MOST_S = 5.0, 300.0  # before each further one, doubled each time
_QUIET_S: Final = 600.0  # without a restoration; then the row begins anew
_NAMED: Final = 6  # at most as many damages are named in a log line

Refill = Callable[[], Sequence[object]]
"""Puts back entries that only the daemon knows, and returns them. Raises BackendError."""

Steps = Generator[BackgroundProgram, "CompletedProcess[str]", None]


class Refills(NamedTuple):
    """The daemon's part of a restoration.

    entries   called at each look, because they are cheap
    forwards  reads the nat table, so it is called only when that has changed
    unwatched called with the time until which rules were missing: before they are restored, and behind it if
              programs have done that, because it takes them long
    unguarded called with the reason why connections may get into a flowtable, or "", at each look
    """

    entries: Sequence[Refill]
    forwards: Refill
    unwatched: Callable[[float], None]
    unguarded: Callable[[str], None]


class Restoring(ABC):
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
        self._running: BackgroundProgram | None = None
        self._steps: Steps | None = None
        self._now = self._next = now
        self._restored = self._restore_at = 0.0
        self._row = 0
        self._said = ""
        self._warned: list[str] = []

    @property
    def busy(self) -> bool:
        """Whether a program runs. Then ``tick`` should be called often."""
        return self._running is not None

    @property
    def settings(self) -> script.Settings:
        """What the rules are installed with, also after somebody has installed them anew."""
        return self._settings

    def close(self) -> None:
        """Wait for the program that runs."""
        if self._running is not None:
            self._running.end()

    def tick(self, now: float) -> None:
        """Look, if it is time, or go on with what the last look began. *now* is the daemon's clock."""
        self._now = now
        try:
            if self._steps is not None:
                self._proceed()
            elif now >= self._next:
                self._next = now + LOOK_EVERY_S
                self._look()
        except BackendError as error:
            self._failed(error)
        except Exception:  # a mistake of ours must not end the daemon, which serves packets
            self._steps = self._running = None
            self._next = now + ASK_EVERY_S
            log.exception("looking after our rules failed")

    def _failed(self, error: BackendError) -> None:
        self._steps = self._running = None
        self._postpone()
        self._say(f"our rules cannot be looked after or restored: {error}; remedy: {self._remedy()}")

    @abstractmethod
    def _look(self) -> None:
        """Look whether something is missing, and restore it or begin to."""

    @abstractmethod
    def _rebase(self, generated: int | None) -> None:
        """Take our rules as they are now for those that have to be there, and those of others for known.

        generated  the kernel's number of the nft rules that are known
        """

    def _question(self) -> Steps:
        """After a change of other rules: look whether ours are complete and at their position."""
        shown = yield script.start(self._show())
        self._learn(shown)
        damage = [line for line in shown.stdout.splitlines() if line.startswith("not installed:")]
        for variant in _variants(shown.stdout):
            saved = yield BackgroundProgram([f"{variant}-save", "-t", "filter"], script.TIMEOUT_S)
            damage += _damaged(variant, saved.stdout.splitlines())
        if damage:
            yield from self._restore(damage)

    def _restore(self, damage: list[str]) -> Steps:
        """Have nfreaim-rules restore the rules, unless they were installed anew with other settings."""
        generated = generation()  # what others change while the programs run is looked at afterwards
        shown = yield script.start(["show"])
        found = self._taken_over(shown)
        if found is not None and self._settings == found:
            self._rebase(generated)
            return
        yield from self._install([] if found is not None else damage, generated)

    def _taken_over(self, shown: CompletedProcess[str]) -> script.Settings | None:
        """The settings of rules that were installed anew, which count from now on; None: they were not."""
        found = script.settings(shown.stdout)
        if shown.returncode != 0 or found is None:
            return None
        # The configuration names these chains, so what is in them is no installation's.
        found = replace(found, native=self._served.native)
        if found == self._settings:
            return None
        log.info("the rules were installed anew: %s", " ".join(found.words()))
        if problem := script.difference(shown.stdout, self._served):
            self._say(f"{problem}; and restart the daemon")
        self._settings = found.completed(self._served)
        self._inside.lan = found.lan
        return found

    def _install(self, damage: list[str], generated: int | None) -> Steps:
        self._refills.unwatched(self._now)
        done = yield script.start(self._settings.install())
        if done.returncode:
            raise BackendError(script.message(done.stderr))
        self._refills.unguarded(script.unguarded(done.stdout))
        self._postpone()
        self._rebase(generated)
        self._refills.unwatched(self._now)
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

    def _begin(self, steps: Steps) -> None:
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
