"""Reader: the flows of one queue, read by one engine, from the start of a process to its end.

Takes no decision: it brings queue, engine and kernel together, and says when each has its turn.
"""

from __future__ import annotations

import logging
from typing import Final

from nfreaim.core.engine import Engine
from nfreaim.errors import BackendError
from nfreaim.host.linux_backend import LinuxBackend
from nfreaim.host.loop import TICK, Loop, clock
from nfreaim.host.netfilter.packet_queue import PacketQueue

log = logging.getLogger("nfreaim")

# So long packets have the loop to themselves, as long as they come without a pause. It is also how late a
# signal, an event or the status may be noticed meanwhile.
_STAY: Final = 0.05
# Where flows stand is written down when no packet waits, and so often if there is always one: of thousands of
# busy flows that takes as long as their packets do. What a crash finds outdated costs a longer search only.
_KEEP: Final = 0.25
_EFFORT: Final = 512  # places at once: 3 ms


class Reader:
    """A chore of the loop (host.loop.Chore), and what serves the queue."""

    def __init__(self, engine: Engine, kernel: LinuxBackend, queue: PacketQueue) -> None:
        self.engine = engine
        self.queue = queue
        self._kernel = kernel
        self._keep_at = self._tick_at = 0.0

    def attach(self, loop: Loop) -> None:
        """Be served by *loop*."""
        loop.serve(self.queue, self._serve)
        loop.chore("tick", self)

    def restore(self) -> None:
        """Go on with the flows of an earlier life; a damaged record counts as lost."""
        for key, record in self._kernel.begin().items():
            try:
                self.engine.sessions.restore(record, clock())
            except (ValueError, KeyError, TypeError) as error:
                log.warning("a connection cannot go on: its record is damaged (%s)", type(error).__name__)
                self._kernel.abandon(key)

    def due(self) -> float:
        hold = self.engine.wakeup()
        due = self._tick_at if hold is None else min(self._tick_at, hold)
        return min(due, self._keep_at) if self.engine.sessions.moved else due

    def work(self, now: float) -> None:
        if now >= self._keep_at:
            self.engine.sessions.keep(_EFFORT)
            self._keep_at = 0.0 if self.engine.sessions.moved else now + _KEEP
        hold = self.engine.wakeup()
        if now >= self._tick_at or (hold is not None and now >= hold):
            self._tick_at = now + TICK
            self.queue.apply(self.engine.tick(now))

    def close(self, cut: bool) -> None:
        """Answer what waits, let go what is held, close what is open, leave the queue, empty the set.

        Skewed flows wait for the next daemon, as long as the rules stay, and known sessions are kept for it.
        If the rules go, too (*cut*), nobody could ever translate them again: both ends are told, nothing is
        kept.
        """
        self.queue.serve()
        self.queue.apply(self.engine.shutdown("daemon stopped"))
        if not cut:
            self.engine.sessions.keep()
        else:
            for flow in list(self.engine.flows.skewed.values()):
                self._kernel.cut(flow)
            self._kernel.forget()
        self.queue.close()
        try:
            self._kernel.take_back()
        except BackendError as error:  # somebody removed the rules meanwhile
            log.warning("%s", error)

    def _serve(self) -> None:
        held = self.engine.wakeup() is not None
        if self.queue.serve(0.0 if held else _STAY):
            self._keep_at = 0.0
