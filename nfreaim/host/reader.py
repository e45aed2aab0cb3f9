"""Reader: serves one queue with an engine, from the start of a process to its end.

It connects queue, engine and backend, and gives each its turn. The engine decides everything.
"""

from __future__ import annotations

import logging
from typing import Final

from nfreaim.core.engine import Engine
from nfreaim.errors import BackendError
from nfreaim.host.linux_backend import LinuxBackend
from nfreaim.host.loop import TICK_S, Loop, clock
from nfreaim.host.netfilter.packet_queue import PacketQueue

log = logging.getLogger("nfreaim")

# While packets come without a pause they have the loop to themselves for this time. A signal, an event or a
# request for the status is noticed as late.
_STAY_S: Final = 0.05
# Positions are saved when no packet waits, or at this interval if packets always wait: for thousands of busy
# flows saving takes as long as their packets do. A position that is outdated after a crash costs a longer
# search for a message boundary.
_SAVE_EVERY_S: Final = 0.25
_EFFORT: Final = 512  # positions saved at once, in 3 ms


class Reader:
    """Serves the queue; also a chore of the loop (host.loop.Chore)."""

    def __init__(self, engine: Engine, backend: LinuxBackend, queue: PacketQueue) -> None:
        self.engine = engine
        self.queue = queue
        self._backend = backend
        self._save_at = self._tick_at = 0.0

    def attach(self, loop: Loop) -> None:
        """Be served by *loop*."""
        loop.serve(self.queue, self._serve)
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
        for followed in self._backend.queue.load():
            self.engine.follow(followed, clock())

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
            self.queue.send_verdicts(self.engine.tick(now))

    def close(self, reset_skewed: bool) -> None:
        """Give verdicts for all packets, waiting or held, close the pinholes, and leave the queue.

        If the rules stay, skewed flows wait for the next daemon, and established flows are saved for it. If
        the rules are removed (*reset_skewed*), no daemon can translate skewed flows again: both ends are
        reset, and no flow is saved.
        """
        self.queue.serve()
        self.queue.send_verdicts(self.engine.shutdown("daemon stopped"))
        if reset_skewed:
            self._reset_skewed()
        else:
            self.engine.save()
        self.queue.close()
        try:
            self._backend.queue.queue_everything()
        except BackendError as error:  # another program removed the rules meanwhile
            log.warning("%s", error)

    def _reset_skewed(self) -> None:
        """Reset both ends of each skewed flow, each in its own sequence numbers, and delete all records."""
        for key, resets in self.engine.resets():
            for towards, seq, ack in resets:
                self._backend.resets.send(towards, seq, ack)
            self._backend.store.unprotect(key)
        self._backend.store.forget_records()

    def _serve(self) -> None:
        held = self.engine.wakeup() is not None
        if self.queue.serve(0.0 if held else _STAY_S):
            self._save_at = 0.0
