"""FastPath: finds the packets that pass unchanged and need nothing else done, with the least work.

Nearly all packets of an established flow are of two kinds: an acknowledgement without data, and data in order
that the helper skips. The engine's general path answers the same for these two, at several times the cost.
Nothing changes here unless the packet passes.
"""

from __future__ import annotations

from typing import Final

from nfreaim.core.counters import Counters
from nfreaim.core.flow import Flow, State
from nfreaim.core.tcp.segment import ACK, FRAGMENT, HEADERS, PSH, TCP_PROTOCOL
from nfreaim.core.tcp.stream import Stream

_PLAIN: Final = (ACK, ACK | PSH)
# Names of this module: reading an enum's member at each packet takes longer.
_NEW: Final = State.NEW
_ESTABLISHED: Final = State.ESTABLISHED


class FastPath:
    """*streams* and *moved* are the engine's: every stream by its key, and the flows that have moved."""

    def __init__(
        self, streams: dict[bytes, Stream[Flow]], moved: dict[bytes, Flow], counters: Counters
    ) -> None:
        self._streams = streams
        self._moved = moved
        self._counters = counters

    def passes(self, raw: bytes, from_inside: bool, now: float) -> bool:
        """Whether the packet *raw* passes as it is, and nothing else follows; see Engine.process."""
        stream = self._streams.get(raw[12:24])  # both ends, if the IPv4 header has no options
        size = len(raw)
        if stream is None or size < 40:
            return False
        first, total, fragment, protocol, seq, ack, offset, flags = HEADERS.unpack_from(raw)
        start = 20 + (offset >> 4 << 2)
        if (
            (seq != stream.expected or flags not in _PLAIN or stream.from_inside is not from_inside)
            or (first != 0x45 or total != size or protocol != TCP_PROTOCOL or fragment & FRAGMENT)
            or not 40 <= start <= size
        ):
            return False
        flow = stream.flow
        if flow.tracked and (flow.attended or not flow.reading.plain):
            return False
        if start < size:
            reading = flow.reading
            state = reading.state
            if (state is not _ESTABLISHED and state is not _NEW) or stream.held:
                return False
            if stream.dropped_from is not None or ack != stream.other.expected:
                return False
            if not reading.helper.skips(stream.direction, raw, start, flow.nat):
                return False
            stream.advance(stream.next + size - start)
            if state is _ESTABLISHED:
                self._moved[flow.key] = flow
        if flow.tracked:
            stream.other.on_plain_ack(ack, raw[34] << 8 | raw[35])
        flow.seen = now
        self._counters.packets += 1
        return True
