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
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol

from netfilterqueue import COPY_PACKET, NetfilterQueue

from nfreaim.core.firewall.peer_gate import PeerGate
from nfreaim.core.verdict import ACCEPT, DROP, Verdict, Verdicts
from nfreaim.errors import BackendError
from nfreaim.host.netfilter.names import DONE_MARK, SKEWED_MARK, VERIFIED_MARK

log = logging.getLogger(__name__)

# Hooks of packets that come from an inside host or from this router: PREROUTING and OUTPUT. The other two
# that queue, INPUT and POSTROUTING, see packets on their way to one.
_FROM_INSIDE: Final = (0, 3)
_GATE: Final = 2  # FORWARD: connections through a pinhole that are not verified yet
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


class PacketQueue:
    """One bound queue.

    clock  the engine's time: seconds that never go back
    gate   gets packets that are forwarded through pinholes; *engine* gets all others. None: the rules queue
           no forwarded packets here
    """

    def __init__(
        self, number: int, engine: PacketReader, clock: Callable[[], float], gate: PeerGate | None = None
    ) -> None:
        self.number = number
        self._passes = engine.passes
        self._process_slow = engine.process_slow
        self._gate = gate
        self._clock = clock
        self._until = math.inf
        self._failed: set[type[Exception]] = set()
        self._queue = NetfilterQueue()

    def open(self) -> None:
        """Bind the queue: from now on packets wait for this process. Raises BackendError."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # a smaller socket buffer still works
                self._queue.bind(
                    self.number,
                    self._handle,
                    _MOST_PACKETS,
                    mode=COPY_PACKET,
                    range=0xFFFF,
                    sock_len=_SOCKET_BYTES,
                )
            with socket.socket(fileno=os.dup(self.fileno())) as same:
                pause = _TIMEVAL.pack(0, int(_PAUSE_S * 1e6))
                same.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, pause)
        except OSError as error:
            raise BackendError(
                f"queue {self.number} cannot be bound ({error}): another program serves it, or CAP_NET_ADMIN "
                "is missing; stop the other one or choose another number with --queue and in the rules"
            ) from error

    def fileno(self) -> int:
        """For a selector: readable when packets wait."""
        return int(self._queue.get_fd())

    def serve(self, stay_s: float = 0.0) -> bool:
        """Give verdicts for the packets that wait, for 5 ms at most. Raises OSError if the queue breaks.

        stay_s  if not 0: the turn lasts this many seconds, but ends when a packet is held or none comes for
                5 ms. Returning to the selector for each packet would double the system calls.

        Returns whether the turn ended because no packet came.
        """
        self._until = self._clock() + (stay_s or _TURN_S)
        with suppress(_TurnOver):
            self._queue.run(block=stay_s > 0)
            return stay_s > 0
        return False

    def send_verdicts(self, verdicts: Verdicts) -> None:
        """Carry out *verdicts*, whose tokens are packets of this queue. If one fails, the others follow."""
        for packet, verdict in verdicts:
            try:
                if verdict.release:
                    packet.set_mark(packet.get_mark() | VERIFIED_MARK)
                    packet.accept()
                elif verdict is ACCEPT:
                    packet.accept()
                elif verdict.accept:
                    packet.set_payload(verdict.payload)
                    packet.set_mark(packet.get_mark() | DONE_MARK)
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

    def _handle(self, packet: Any) -> None:
        # The engine may hold the packet: it keeps this object as the token of a later verdict. The payload is
        # copied out here, so the binding's retain() is not needed.
        now = self._clock()
        hook = packet.hook
        if hook == _GATE and self._gate is not None:
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
                skewed = bool(packet.get_mark() & SKEWED_MARK)
                verdicts = self._process_slow(raw, packet, from_inside, now, skewed)
        except Exception as error:
            verdicts = [(packet, self._failure(packet, error))]
        self._finish_turn(verdicts, now)

    def _failure(self, packet: Any, error: Exception) -> Verdict:
        """The verdict for a packet that made the engine fail."""
        # Every packet of a flow may fail in the same way: only the first failure of a type logs its
        # traceback.
        first = type(error) not in self._failed
        self._failed.add(type(error))
        skewed = packet.get_mark() & SKEWED_MARK
        what = "is dropped" if skewed else "passes as it came"
        trace = error if first else None
        log.error("a packet failed in the engine and %s: %s", what, _origin(error), exc_info=trace)
        return DROP if skewed else ACCEPT

    def _forwarded(self, gate: PeerGate, packet: Any, now: float) -> None:
        """Give the gate's verdict for a packet through a pinhole, or drop it if the gate fails."""
        verdict: Verdict = DROP
        try:
            verdict = gate.process(packet.get_payload(), now)
        except Exception:
            log.exception("a packet failed in the peer gate and is dropped")
        self._finish_turn([(packet, verdict)], now)

    def _finish_turn(self, verdicts: Verdicts, now: float) -> None:
        self.send_verdicts(verdicts)
        # No verdict: a packet was held. The turn ends, because the loop releases held packets in time.
        if now >= self._until or not verdicts:
            raise _TurnOver


def _origin(error: Exception) -> str:
    """The type of an exception and the line that raised it; not its text, which may quote a message."""
    where = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        where = f" at {Path(frame.f_code.co_filename).name}:{line}"
    return f"{type(error).__name__}{where}"
