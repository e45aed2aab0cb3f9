"""Reader: serves the queues of a process with an engine, from the start of a process to its end.

It connects queues, engine and backend, and gives each its turn. The engine decides everything.
"""

from __future__ import annotations

import logging
import time
from typing import Final

from nfreaim.core.custodian import owing
from nfreaim.core.engine import Engine
from nfreaim.errors import BackendError
from nfreaim.host.linux_backend import LinuxBackend
from nfreaim.host.loop import TICK_S, Loop, clock
from nfreaim.host.turns import Turns

log = logging.getLogger("nfreaim")

# Positions are saved when no packet waits, or at this interval if packets always wait: for thousands of busy
# flows saving takes as long as their packets do. A position that is outdated after a crash costs a longer
# search for a message boundary.
_SAVE_EVERY_S: Final = 0.25
_EFFORT: Final = 512  # positions saved at once, in 3 ms
_SETTLE_S: Final = 2.0
_SETTLE_STEP_S: Final = 0.01


class Reader:
    """Serves the queues; also a chore of the loop (host.loop.Chore)."""

    def __init__(self, engine: Engine, backend: LinuxBackend, turns: Turns) -> None:
        self.engine = engine
        self._turns = turns
        self._backend = backend
        self._save_at = self._tick_at = 0.0

    def attach(self, loop: Loop) -> None:
        """Be served by *loop*."""
        self._turns.attach(loop, self._idle)
        loop.chore("tick", self)

    def restore(self) -> None:
        """Go on with the flows of an earlier process; a damaged record is deleted. Raises BackendError."""
        self._backend.prepare()
        for key, record in self._backend.store.load(self._backend.conntrack).items():
            try:
                self.engine.restore(record, clock())
            except (ValueError, KeyError, TypeError) as error:
                log.warning("a connection cannot go on: its record is damaged (%s)", type(error).__name__)
                self._backend.store.forget_record(key)

    def follow(self) -> None:
        """Go on with the followed servers of an earlier daemon. Raises BackendError."""
        self.engine.follow(self._backend.queue.load(), clock())

    def due(self) -> float:
        hold = self.engine.wakeup()
        due = self._tick_at if hold is None else min(self._tick_at, hold)
        return min(due, self._save_at) if self.engine.unsaved else due

    def work(self, now: float) -> None:
        if now >= self._save_at:
            self.engine.save(_EFFORT)
            self._save_at = 0.0 if self.engine.unsaved else now + _SAVE_EVERY_S
        hold = self.engine.wakeup()
        if now >= self._tick_at or (hold is not None and now >= hold):
            self._tick_at = now + TICK_S
            self._turns.send_verdicts(self.engine.tick(now))

    def close(self, reset_skewed: bool) -> None:
        """Give verdicts for all packets, waiting or held, close the pinholes, and leave the queues.

        If the rules stay, skewed flows wait for the next daemon, and established flows are saved for it. If
        the rules are removed (*reset_skewed*), no daemon can translate skewed flows again: both ends are
        reset, and no flow is saved.
        """
        self._turns.drain()
        self._turns.send_verdicts(self.engine.shutdown("daemon stopped"))
        self._settle()
        if reset_skewed:
            self._reset_skewed()
        else:
            self.engine.save()
        self._turns.close()
        try:
            self._backend.queue.queue_everything(stopping=self._backend.alone)
        except BackendError as error:  # another program removed the rules meanwhile
            log.warning("%s", error)

    def _settle(self) -> None:
        """Wait until what was sent at the end has arrived: no connection shall wait or be reset for that."""
        until = clock() + _SETTLE_S
        while owing(self.engine.flows) and clock() < until:
            time.sleep(_SETTLE_STEP_S)
            self._turns.drain()
            self._turns.send_verdicts(self.engine.tick(clock()))

    def _reset_skewed(self) -> None:
        """Reset both ends of each skewed flow, each in its own sequence numbers, and delete all records."""
        for key, resets in self.engine.flows.resets():
            for towards, seq, ack in resets:
                self._backend.resets.send(towards, seq, ack)
            self._backend.store.unprotect(key)
        self._backend.store.forget_records()

    def _idle(self) -> None:
        self._save_at = 0.0
