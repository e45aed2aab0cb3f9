"""PacketQueue: the NFQUEUE as the engine needs it. The only module that knows NetfilterQueue.

Every packet the kernel hands out gets exactly one verdict, here and nowhere else: an exception in the
binding's callback would leave its packet in the kernel and stall the connection. Nothing is decided here.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import struct
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Protocol

from netfilterqueue import COPY_PACKET, NetfilterQueue

from nfreaim.core.firewall.peer_gate import PeerGate
from nfreaim.core.verdict import ACCEPT, DROP, Verdict, Verdicts
from nfreaim.errors import BackendError
from nfreaim.host.report.journal import origin

log = logging.getLogger(__name__)

SKEW_MARK: Final = 0x10000  # packet mark that the rules set on flows that must fail closed
DONE_MARK: Final = 0x40000  # what we set on a packet that was changed: the rules never queue it again
# What we set on a packet whose connection is verified: the rules take the connection out of the queue.
VERIFIED_MARK: Final = 0x800000
# Hook numbers of packets that come from an inside host, or from this router itself: PREROUTING and OUTPUT.
# The others, INPUT and POSTROUTING, see what is on its way to one.
_FROM_INSIDE: Final = (0, 3)
_GATE: Final = 2  # FORWARD: connections through a pinhole that are not verified yet
# 2000 busy connections overran the default of 1024 packets, even with a do-nothing C program; 16384 lost
# none.
_LENGTH: Final = 16384
_SOCKET_BYTES: Final = 8 << 20
_TURN: Final = 0.005  # seconds, then the loop gets to look at its clock and at everything else
_PAUSE: Final = 0.005  # seconds without a packet end a longer turn
_TIMEVAL: Final = struct.Struct("ll")


class _TurnOver(Exception):
    """Leaves the binding's read loop, which under load would never return. Raised after a verdict only."""


class Consumer(Protocol):
    """Who reads what is queued: an engine, see core.engine."""

    def passes(self, raw: bytes, from_inside: bool, now: float) -> bool: ...

    def consider(self, raw: bytes, token: Any, from_inside: bool, now: float, skewed: bool) -> Verdicts: ...


class PacketQueue:
    """One bound queue.

    clock  seconds that never go back, the engine's time
    gate   gets what is forwarded through pinholes, *engine* the rest; None where nothing forwarded is queued
    """

    def __init__(
        self, number: int, engine: Consumer, clock: Callable[[], float], gate: PeerGate | None = None
    ) -> None:
        self.number = number
        self._passes = engine.passes
        self._consider = engine.consider
        self._gate = gate
        self._clock = clock
        self._until = math.inf
        self._failed: set[type[Exception]] = set()
        self._queue = NetfilterQueue()

    def open(self) -> None:
        """Bind the queue: from now on packets wait for us. Raises BackendError."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # a smaller socket buffer still works
                self._queue.bind(
                    self.number, self._handle, _LENGTH, mode=COPY_PACKET, range=0xFFFF, sock_len=_SOCKET_BYTES
                )
            with socket.socket(fileno=os.dup(self.fileno())) as same:
                pause = _TIMEVAL.pack(0, int(_PAUSE * 1e6))
                same.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, pause)
        except OSError as error:
            raise BackendError(
                f"queue {self.number} cannot be bound ({error}): another program serves it, or CAP_NET_ADMIN "
                "is missing; stop the other one or choose another number with --queue and in the rules"
            ) from error

    def fileno(self) -> int:
        """For a selector: readable when packets wait."""
        return int(self._queue.get_fd())

    def serve(self, stay: float = 0.0) -> bool:
        """Give verdicts for what waits, for some milliseconds at most. Raises OSError if the queue breaks.

        stay  for so many seconds wait for more, until a packet is held or none comes for 5 ms. Asking first
              whether there is one, and for others afterwards, would double the system calls of each.

        Returns whether none came for so long.
        """
        self._until = self._clock() + (stay or _TURN)
        with suppress(_TurnOver):
            self._queue.run(block=stay > 0)
            return stay > 0
        return False

    def apply(self, verdicts: Verdicts) -> None:
        """Carry out *verdicts*, whose tokens are packets of this queue. One that fails keeps none waiting."""
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
        """Unbind. What still waits in the kernel is dropped by it, and sent again by its sender."""
        self._queue.unbind()

    def _handle(self, packet: Any) -> None:
        # A packet that is held keeps its verdict open: its token, this object, lives on in the engine. The
        # payload was copied out, so the binding's own retain() is not needed.
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
                skewed = bool(packet.get_mark() & SKEW_MARK)
                verdicts = self._consider(raw, packet, from_inside, now, skewed)
        except Exception as error:
            verdicts = [(packet, self._failure(packet, error))]
        self._answer(verdicts, now)

    def _failure(self, packet: Any, error: Exception) -> Verdict:
        """The verdict for a packet that made the engine fail."""
        # Each packet of a flow may fail alike: the first of a kind says where, the others that they did.
        first = type(error) not in self._failed
        self._failed.add(type(error))
        skewed = packet.get_mark() & SKEW_MARK
        what = "is dropped" if skewed else "passes as it came"
        trace = error if first else None
        log.error("a packet failed in the engine and %s: %s", what, origin(error), exc_info=trace)
        return DROP if skewed else ACCEPT

    def _forwarded(self, gate: PeerGate, packet: Any, now: float) -> None:
        """A packet through a pinhole. What fails in the gate is not verified, so it does not pass."""
        verdict: Verdict = DROP
        try:
            verdict = gate.process(packet.get_payload(), now)
        except Exception:
            log.exception("a packet failed in the peer gate and is dropped")
        self._answer([(packet, verdict)], now)

    def _answer(self, verdicts: Verdicts, now: float) -> None:
        self.apply(verdicts)
        # A packet that is held has its own hour, which the loop knows.
        if now >= self._until or not verdicts:
            raise _TurnOver
