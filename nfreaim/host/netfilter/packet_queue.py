"""PacketQueue: hands the packets of one NFQUEUE to an engine, and the engine's verdicts to the kernel.

The only module that imports NetfilterQueue. It gives every packet exactly one verdict, also if the engine
fails: an exception in the binding's callback would leave the packet in the kernel and stall its connection.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import struct
import traceback
import warnings
from collections.abc import Callable, Container
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from netfilterqueue import COPY_PACKET, NetfilterQueue

from nfreaim.core.firewall.peer_gate import PeerGate
from nfreaim.core.tcp.segment import SYN
from nfreaim.core.verdict import ACCEPT, DROP, Verdict, Verdicts
from nfreaim.errors import BackendError
from nfreaim.host.netfilter import queue_stats

log = logging.getLogger(__name__)

# Hooks of packets that come from an inside host or from this router: PREROUTING and OUTPUT. The other two
# that queue, INPUT and POSTROUTING, see packets on their way to one.
_FROM_INSIDE: Final = (0, 3)
# FORWARD, and INPUT and POSTROUTING for those to this router: connections through a pinhole that are not
# verified yet.
_GATE: Final = (1, 2, 4)
_POSTROUTING: Final = 4
# In packets. 2000 busy connections overran the default of 1024, even with a C program that accepts every
# packet at once; with 16384 none was lost.
_MOST_PACKETS: Final = 16384
_SOCKET_BYTES: Final = 8 << 20
_TURN_S: Final = 0.005  # of a turn, after which the loop does its other work
_PAUSE_S: Final = 0.005  # without a packet; then a longer turn ends
_TIMEVAL: Final = struct.Struct("ll")


class _TurnOver(Exception):
    """Ends a turn: the binding's read loop does not return under load. Raised only after a verdict."""


class PacketReader(Protocol):
    """The part of core.engine.Engine that a queue needs."""

    def passes(self, raw: bytes, from_inside: bool, now: float) -> bool: ...

    def process_slow(
        self, raw: bytes, token: Any, from_inside: bool, now: float, skewed: bool
    ) -> Verdicts: ...


class GateQueue(NamedTuple):
    """The peer gate, and the bit of the packet mark by which it releases a connection."""

    gate: PeerGate
    mark: int


class SkewedFlows(NamedTuple):
    """Which packets may not pass untranslated.

    has    whether the kernel's set has the flow of a packet
    known  the keys of flows (see Segment) of whose packets, SYNs apart, the engine knows it by itself
    """

    has: Callable[[bytes], bool]
    known: Container[bytes]

    def asks_for(self, raw: bytes) -> bool:
        """What the engine has to be told of a packet."""
        if len(raw) >= 40 and raw[12:24] in self.known and not raw[33] & SYN:
            return False
        return self.has(raw)


_NONE: Final = SkewedFlows(lambda raw: False, ())


class PacketQueue:
    """One bound queue.

    clock   the engine's time: seconds that never go back
    gate    gets the packets of pinholes; *engine* gets all others. None: the rules queue none of these here
    most    packets that wait at most; the kernel drops others
    skewed  of whose packets this queue has some
    """

    def __init__(
        self,
        number: int,
        engine: PacketReader,
        clock: Callable[[], float],
        gate: GateQueue | None = None,
        most: int = _MOST_PACKETS,
        skewed: SkewedFlows = _NONE,
    ) -> None:
        self.number = number
        self._passes = engine.passes
        self._process_slow = engine.process_slow
        self._gate = None if gate is None else gate.gate
        self._mark = 0 if gate is None else gate.mark
        self._skewed = skewed
        self._clock = clock
        self._until = math.inf
        self._failed: set[type[Exception]] = set()
        self._most = most
        self._bound = False
        self._early: list[Any] | None = None  # packets that came since ``open`` and before the first turn
        self._queue = NetfilterQueue()

    def open(self) -> None:
        """Bind the queue, unless it is: from now on packets wait for this process. Raises BackendError."""
        if self._bound:
            return
        # While it binds, the library waits for the kernel's answers, and hands out packets that come between
        # these: too early, because flows of an earlier process are not known yet, and theirs would be reset.
        self._early = []
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # a smaller socket buffer still works
                self._queue.bind(
                    self.number,
                    self._handle,
                    self._most,
                    mode=COPY_PACKET,
                    range=0xFFFF,
                    sock_len=_SOCKET_BYTES,
                )
            with socket.socket(fileno=os.dup(self.fileno())) as same:
                pause = _TIMEVAL.pack(0, int(_PAUSE_S * 1e6))
                same.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, pause)
            self._bound = True
        except OSError as error:
            raise BackendError(f"queue {self.number} cannot be bound: {self._why_not(error)}") from error

    def _why_not(self, error: OSError) -> str:
        """Who serves the queue already, as far as can be told, and the remedy."""
        with suppress(OSError, BackendError):
            for found in queue_stats.queues():
                if found.number == self.number:
                    process, command = queue_stats.server_of(found)
                    if queue_stats.is_ours(command):
                        return f"nfreaim serves it (process {process}); stop that one first"
                    who = f"process {process}, {command.split()[0]}," if process else "another program"
                    return f"{who} serves it; stop that one, or choose another --queue, in the rules, too"
        return f"{error}; CAP_NET_ADMIN is needed, and a kernel with nfnetlink_queue"

    def fileno(self) -> int:
        """For a selector: readable when packets wait."""
        return int(self._queue.get_fd())

    def serve(self, turn_s: float = 0.0, wait: bool = False) -> bool:
        """Give verdicts for the packets that wait. Raises OSError if the queue breaks.

        turn_s  the turn lasts this many seconds at most; 0: 5 ms
        wait    it ends only when a packet is held or none comes for 5 ms. Returning to the selector for each
                packet would double the system calls.

        Returns whether the turn ended because no packet came.
        """
        self._until = self._clock() + (turn_s or _TURN_S)
        if self._early is not None:
            self._serve_early(self._early)
        with suppress(_TurnOver):
            self._queue.run(block=wait)
            return True
        return False

    def send_verdicts(self, verdicts: Verdicts) -> None:
        """Carry out *verdicts*, whose tokens are packets of this queue. If one fails, the others follow."""
        for packet, verdict in verdicts:
            try:
                if verdict.release:
                    packet.set_mark(packet.get_mark() | self._mark)
                    # The rules look for the mark at the head of POSTROUTING. What this router sends is queued
                    # behind that, so it enters the chain again.
                    if packet.hook == _POSTROUTING:
                        packet.repeat()
                    else:
                        packet.accept()
                elif verdict is ACCEPT:
                    packet.accept()
                elif verdict.accept:
                    packet.set_payload(verdict.payload)
                    packet.accept()
                else:
                    packet.drop()
            except Exception:
                log.exception("a verdict failed, its packet is dropped")
                with suppress(Exception):
                    packet.drop()

    def close(self) -> None:
        """Unbind the queue. The kernel drops the packets that still wait; their senders retransmit."""
        self._queue.unbind()

    def _serve_early(self, packets: list[Any]) -> None:
        self._early = None
        for packet in packets:
            with suppress(_TurnOver):
                self._handle(packet)

    def _handle(self, packet: Any) -> None:
        if self._early is not None:
            packet.retain()
            self._early.append(packet)
            return
        # The engine may hold the packet: it keeps this object as the token of a later verdict. The payload is
        # copied out here, so the binding's retain() is not needed.
        now = self._clock()
        hook = packet.hook
        if self._gate is not None and hook in _GATE:
            self._forwarded(self._gate, packet, now)
            return
        raw, from_inside = packet.get_payload(), hook in _FROM_INSIDE
        try:
            if self._passes(raw, from_inside, now):
                packet.accept()
                if now < self._until:
                    return
                verdicts: Verdicts = []
            else:
                skewed = self._skewed.asks_for(raw)
                verdicts = self._process_slow(raw, packet, from_inside, now, skewed)
        except Exception as error:
            verdicts = [(packet, self._failure(raw, error))]
        self._finish_turn(verdicts, now)

    def _failure(self, raw: bytes, error: Exception) -> Verdict:
        """The verdict for a packet that made the engine fail."""
        # Every packet of a flow may fail in the same way: only the first failure of a type logs its
        # traceback.
        first = type(error) not in self._failed
        self._failed.add(type(error))
        skewed = self._skewed.has(raw)
        what = "is dropped" if skewed else "passes as it came"
        trace = error if first else None
        log.error("a packet failed in the engine and %s: %s", what, _origin(error), exc_info=trace)
        return DROP if skewed else ACCEPT

    def _forwarded(self, gate: PeerGate, packet: Any, now: float) -> None:
        """Give the gate's verdict for a packet of a pinhole, or drop it if the gate fails."""
        verdict: Verdict = DROP
        try:
            verdict = gate.process(packet.get_payload(), now)
            if verdict is ACCEPT and now < self._until:
                packet.accept()
                return
        except Exception:
            log.exception("a packet failed in the peer gate and is dropped")
            verdict = DROP
        self._finish_turn([(packet, verdict)], now)

    def _finish_turn(self, verdicts: Verdicts, now: float) -> None:
        self.send_verdicts(verdicts)
        # No verdict: a packet was held. The turn ends, because the loop releases held packets in time.
        if now >= self._until or not verdicts:
            raise _TurnOver


class NoEngine:
    """Stands in for an engine at a queue that gets no control connections."""

    def passes(self, raw: bytes, from_inside: bool, now: float) -> bool:
        return False

    def process_slow(self, raw: bytes, token: Any, from_inside: bool, now: float, skewed: bool) -> Verdicts:
        # Until they are replaced, rules of an earlier installation may queue control connections here.
        return [(token, DROP if skewed else ACCEPT)]


def _origin(error: Exception) -> str:
    """The type of an exception and the line that raised it; not its text, which may quote a message."""
    where = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        where = f" at {Path(frame.f_code.co_filename).name}:{line}"
    return f"{type(error).__name__}{where}"
