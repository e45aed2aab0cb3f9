"""The stream editor: one direction of a flow as a sequence of bytes that may be replaced before they leave.

Offsets count bytes from the first one after the SYN and never wrap; sequence numbers appear here and
nowhere else. Nothing here knows a protocol, the clock's source or the kernel.

Edits are made only over bytes that were not forwarded yet; so what leaves for [a, b) is the same whatever the
segmentation, and a retransmission is the same read again. While no edit changed a length both numberings are
equal and headers pass as they are. Behind one, every segment of the flow is translated: its own position and
payload through the map of its stream, acknowledgement and SACK blocks (RFC 2018) through that of the other.
A position that is not where the stream is (a blind reset, say) is shifted like its neighbours, never moved to
a valid one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from nfreaim.core.offsets import Edit, OffsetMap
from nfreaim.core.packet import ACK, FIN, RST, Segment

if TYPE_CHECKING:
    from nfreaim.core.flow import Direction, Flow

_MASK: Final = 0xFFFFFFFF
_HALF: Final = 0x80000000
# What idle flows have in place of a map and a list of their own: most of them never need any. Never changed.
_UNEDITED: Final = OffsetMap()


@dataclass(frozen=True, slots=True)
class Held:
    """A packet whose verdict is kept open: its *token*, where its payload stands, and since when."""

    token: Any
    segment: Segment
    at: int
    fresh: int
    """Offset of its first byte that no earlier packet carried."""
    since: float


_NOTHING: Final[list[Held]] = []


class Stream:
    """One direction of a flow.

    from_inside  its sender is the inside end of the flow
    next      offset of the first byte not seen yet; everything below was read in order
    expected  the same as a sequence number
    map       the edits
    acked     edited offset that its receiver acknowledged last, once the stream is skewed
    held      packets kept back, oldest first; their bytes are seen but not forwarded
    gap       when the hole before *next* was first met, or None; *gaps* packets were dropped behind it
    """

    __slots__ = (
        "acked",
        "base",
        "direction",
        "expected",
        "flow",
        "from_inside",
        "gap",
        "gaps",
        "held",
        "held_bytes",
        "map",
        "next",
    )

    def __init__(self, flow: Flow, direction: Direction, base: int) -> None:
        self.flow = flow
        self.direction = direction
        self.from_inside = not direction
        self.rebase(base)
        self.map = _UNEDITED
        self.acked = 0
        self.held = _NOTHING
        self.held_bytes = 0
        self.gap: float | None = None
        self.gaps = 0

    def rebase(self, seq: int) -> None:
        """Sequence number *seq* is that of offset 0; nothing has been seen yet."""
        self.base = self.expected = seq & _MASK
        self.next = 0

    def offset(self, seq: int) -> int:
        """The stream offset that sequence number *seq* means: the one nearest to *next*."""
        return self.next + ((seq - self.expected + _HALF) & _MASK) - _HALF

    def advance(self, end: int) -> None:
        """Everything below offset *end* has been seen."""
        self.next = end
        self.expected = (self.base + end) & _MASK
        self.gap = None
        self.gaps = 0

    def rendered(self, segment: Segment, at: int) -> Segment:
        """*segment* of this stream, its payload at offset *at*, as it shall leave; itself if unchanged."""
        other = self.flow.streams[1 - self.direction]
        payload = segment.raw[segment.start :]
        edited = self.map.render(payload, at) if self.map.edits else payload
        if not (self.map.skewed or other.map.skewed):
            return segment if edited == payload else segment.patched(segment.start, edited)
        place = self.map.fwd(at)
        if not edited and at < self.next and not segment.flags & (FIN | RST):
            # Nothing is left of it, or it repeats an old position to be answered (keep-alive, window probe).
            # Either way it must stand before what its receiver waits for: there, it would get no answer.
            place = self.map.fwd(at + max(1, len(payload))) - 1
        elif segment.flags & RST and at == self.map.back(self.acked):
            place = self.acked  # it answers an acknowledgement, be it of a part of what an edit added
        seq = self.base + place
        ack = segment.ack
        blocks = None
        if other.map.skewed and segment.flags & ACK:
            other.acked = other.edited_offset(ack)
            ack = other.base + other.map.back(other.acked)
            blocks = other.original_block
        return segment.rebuilt(seq, ack, edited, blocks)

    def placed(self, segment: Segment, at: int) -> Segment:
        """The empty *segment*, wherever it stands, as if it stood at offset *at*."""
        rendered = self.rendered(segment, at)
        if rendered is not segment:
            return rendered
        return segment.rebuilt(self.base + self.map.fwd(at), segment.ack, b"", None)

    def edited_offset(self, seq: int) -> int:
        """The offset in the edited stream that the receiver means by sequence number *seq*."""
        now = self.map.fwd(self.next)
        return now + ((seq - self.base - now + _HALF) & _MASK) - _HALF

    def original_block(self, left: int, right: int) -> tuple[int, int] | None:
        """The edges of a SACK block from the receiver of the edited stream, for its sender; None if empty."""
        begin = self.map.back_left(self.edited_offset(left))
        end = self.map.back(self.edited_offset(right))
        return (self.base + begin, self.base + end) if begin < end else None

    def edit(self, edits: Sequence[Edit]) -> None:
        """Add *edits* to the map, all or none. Raises ValueError if they are not in order."""
        if self.map is _UNEDITED:
            self.map = OffsetMap()
        self.map.add(edits)

    def hold(self, packet: Held) -> None:
        """Keep *packet* back."""
        if self.held:
            self.held.append(packet)
        else:
            self.held = [packet]
        self.held_bytes += len(packet.segment.raw) - packet.segment.start

    def let_go(self, below: int | None = None) -> list[Held]:
        """The held packets that end at or before offset *below* (None: all), no longer held."""
        count = len(self.held)
        if below is not None:
            count = 0
            while count < len(self.held) and self._end(self.held[count]) <= below:
                count += 1
        freed, self.held = self.held[:count], self.held[count:] or _NOTHING
        self.held_bytes -= sum(len(packet.segment.raw) - packet.segment.start for packet in freed)
        return freed

    @staticmethod
    def _end(packet: Held) -> int:
        return packet.at + len(packet.segment.raw) - packet.segment.start
