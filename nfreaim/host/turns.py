"""Turns: the queues of one process, and whose turn it is.

Sessions come first: packets of flows that the engine knows. Newcomers, and behind them the peer gate, have
short turns when no session's packet waits, so that a flood of theirs keeps no session waiting.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Container
from typing import Final

from nfreaim.config import GATE_QUEUE, NEWCOMERS
from nfreaim.core.engine import Engine
from nfreaim.core.firewall.peer_gate import PeerGate
from nfreaim.core.noise import SessionReader
from nfreaim.core.verdict import Verdicts
from nfreaim.host.loop import Loop, clock
from nfreaim.host.netfilter.packet_queue import GateQueue, NoEngine, PacketQueue, SkewedFlows
from nfreaim.marks import Marks

# While packets come without a pause they have the loop to themselves for this time. A signal, an event or a
# request for the status is noticed as late.
_STAY_S: Final = 0.05
_TURN_S: Final = 0.003  # of newcomers and of the gate, each
_PAUSE_MS: Final = 5  # without a packet; then the loop goes on
_MOST_WAITING: Final = 4096  # newcomers, and packets at the gate: more than come in a turn of all others


class Turns:
    """The queues, in the order in which they are served.

    number  of the queue of control connections
    skewed  whether the kernel's set has the flow of a packet
    gate    the gate's queue (``gate_queue``), if this process serves it, too
    """

    def __init__(
        self,
        number: int,
        engine: Engine,
        skewed: Callable[[bytes], bool] = lambda raw: False,
        gate: PacketQueue | None = None,
    ) -> None:
        asked = SkewedFlows(skewed, engine.flows.streams)
        self.sessions = PacketQueue(number, SessionReader(engine), clock, skewed=asked)
        self._gather = engine.gather
        self._wakeup = engine.wakeup
        self._newcomers = PacketQueue(number + NEWCOMERS, _Newcomers(engine), clock, most=_MOST_WAITING)
        self._others = [self._newcomers]
        if gate is not None:
            self._others.append(gate)
        self._poll = select.poll()
        self._descriptors: set[int] = set()
        self._busy = False
        self._idle: Callable[[], None] = lambda: None

    @property
    def _all(self) -> list[PacketQueue]:
        return [self.sessions, *self._others]

    def open(self) -> None:
        """Bind what is not bound yet: from now on packets wait for this process. Raises BackendError."""
        for queue in self._all:
            queue.open()
        for queue in self._all:
            self._poll.register(queue.fileno(), select.POLLIN)
        self._descriptors = {queue.fileno() for queue in self._others}

    def attach(self, loop: Loop, idle: Callable[[], None]) -> None:
        """Be served by *loop*. *idle* is called when no session's packet waits."""
        self._idle = idle
        # Since the queues were bound flows of an earlier process have become known: what waits there of them
        # was sent before what waits with the sessions.
        self._newcomers.serve(_STAY_S)
        loop.serve(self.sessions, self.serve)
        for queue in self._others:
            loop.serve(queue, self._serve_others)

    def drain(self) -> None:
        """Give verdicts for what waits, in one last turn of each."""
        for queue in self._all:
            queue.serve()

    def close(self) -> None:
        """Unbind all."""
        for queue in self._all:
            queue.close()

    def send_verdicts(self, verdicts: Verdicts) -> None:
        """Carry out *verdicts*; each packet knows its queue."""
        self.sessions.send_verdicts(verdicts)

    def serve(self) -> None:
        """A session's packet waits."""
        held = self._wakeup() is not None
        wait = not held and not self._busy
        if self.sessions.serve(_STAY_S if not held else 0.0, wait) and not held:
            self._idle()

    def _serve_others(self) -> None:
        """A packet of another queue waits; the sessions have had their turn before."""
        until = clock() + _STAY_S
        self._turn(self._descriptors)
        # As in a queue's own turn: to return to the selector for each packet would double the system calls.
        while self._wakeup() is None and clock() < until and (ready := self._poll.poll(_PAUSE_MS)):
            numbers = {number for number, _ in ready}
            if self.sessions.fileno() in numbers:
                self.sessions.serve(_TURN_S, wait=False)
            self._turn(numbers)

    def _turn(self, ready: Container[int]) -> None:
        """One short turn of each queue but the sessions', if its descriptor is *ready*."""
        drained = [queue.fileno() not in ready or queue.serve(_TURN_S, wait=False) for queue in self._others]
        self._busy = not all(drained)
        if drained[0] and self._gather(clock()):
            self._newcomers.serve(_TURN_S, wait=False)


def gate_queue(number: int, gate: PeerGate, marks: Marks) -> PacketQueue:
    """The gate's queue, if that of control connections has *number*."""
    return PacketQueue(
        number + GATE_QUEUE, NoEngine(), clock, GateQueue(gate, marks.verified), most=_MOST_WAITING
    )


class _Newcomers:
    """An engine, as the queue of newcomers needs it."""

    def __init__(self, engine: Engine) -> None:
        self.process_slow = engine.newcomer

    def passes(self, raw: bytes, from_inside: bool, now: float) -> bool:
        return False
