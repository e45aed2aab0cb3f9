"""FastPath: tells the packets that pass as they are and need nothing else done, with the least work.

Nearly all packets of a signed-on flow are of two kinds: an acknowledgement without data, and data in order
that the helper wants nothing of. Everything else is the engine's, which would answer the same for these two.
Nothing is changed here unless the packet passes.
"""

from __future__ import annotations

from typing import Final

from nfreaim.core.counters import Counters
from nfreaim.core.flow import Flow
from nfreaim.core.tcp.segment import ACK, FRAGMENT, HEADERS, PSH, TCP_PROTOCOL
from nfreaim.core.tcp.stream import Stream

_PLAIN: Final = (ACK, ACK | PSH)


class FastPath:
    """*streams* and *moved* are the engine's: every stream by its key, and the flows that have moved."""

    def __init__(self, streams: dict[bytes, Stream], moved: dict[bytes, Flow], counters: Counters) -> None:
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
        if flow.skewed or flow.server_inside:
            return False
        if start < size:
            helper, nat, direction = flow.helper, flow.nat, stream.direction
            if helper is None or nat is None or stream.held or stream.unsent is not None:
                return False
            other = flow.streams[not direction]
            if ack != other.expected or not helper.skips(direction, raw, start, nat):
                return False
            stream.advance(stream.next + size - start)
            if helper.established:
                self._moved[flow.key] = flow
        flow.seen = now
        self._counters.packets += 1
        return True
