"""The stream editor: one direction of a flow as a sequence of bytes that may be replaced before they leave.

Offsets count bytes from the first one after the SYN and never wrap; sequence numbers appear here and
nowhere else. Nothing here knows a protocol, the clock's source or the kernel.

Edits are made only over bytes that were not forwarded yet; so what leaves for [a, b) is the same whatever the
segmentation, and a retransmission is the same read again. While no edit changed a length both numberings are
equal and headers pass as they are. Behind one, every segment of the flow is translated: its own position and
payload through the map of its stream, acknowledgement and SACK blocks (RFC 2018) through that of the other.
A position that is not where the stream is (a blind reset, say) is shifted like its neighbours, never moved to
a valid one. Nothing leaves for beyond the window: what an edit added may not fit into what was offered, and
the receiver would refuse it, or connection tracking what the receiver then says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from nfreaim.core.address import Direction
from nfreaim.core.tcp.offsets import Edit, OffsetMap
from nfreaim.core.tcp.segment import ACK, FIN, MASK, RST, Segment, distance, wrap

FAR: Final = 1 << 22
"""A number farther from the stream than any window belongs to no packet of it."""
# Idle flows share this map and have no list of held packets: most never need their own. Never changed.
_UNEDITED: Final = OffsetMap()


@dataclass(frozen=True, slots=True)
class Held:
    """A packet whose verdict is kept open: its *token*, the offset of its payload, and since when.

    new_from  offset of its first byte that no earlier packet carried away
    """

    token: Any
    segment: Segment
    at: int
    new_from: int
    since: float

    @property
    def end(self) -> int:
        return self.at + self.segment.size


_NOTHING: Final[list[Held]] = []

F = TypeVar("F")
"""What a stream is a direction of."""


class Stream(Generic[F]):
    """One direction of a flow.

    flow         its flow
    other        the stream of the other direction
    from_inside  whether its sender is the inside end of the flow
    next         offset of the first byte not seen yet; everything below was read in order
    expected     the same as a sequence number
    map          the edits
    acked        edited offset that its receiver acknowledged last, in flows that may be skewed
    edge         edited offset up to which its receiver offered to take it, or None while that is not known
    scale        by how many bits its receiver shifts its windows, or None if that was not seen
    held         packets kept back, oldest first; their bytes are seen but not forwarded
    dropped_from offset from which on bytes were held and then dropped, and nothing has left since; or None
    gap          when the gap before *next* was first met, or None
    """

    __slots__ = (
        "acked",
        "base",
        "direction",
        "dropped_from",
        "edge",
        "expected",
        "flow",
        "from_inside",
        "gap",
        "held",
        "held_bytes",
        "map",
        "next",
        "other",
        "scale",
    )

    other: Stream[F]

    def __init__(self, flow: F, direction: Direction, base: int) -> None:
        self.flow = flow
        self.direction = direction
        self.from_inside = not direction
        self.rebase(base)
        self.map = _UNEDITED
        self.scale: int | None = None
        self.held = _NOTHING
        self.held_bytes = 0
        self.dropped_from: int | None = None
        self.gap: float | None = None

    def rebase(self, seq: int) -> None:
        """Sequence number *seq* is that of offset 0; nothing has been seen yet."""
        self.base = self.expected = wrap(seq)
        self.next = self.acked = 0
        self.edge: int | None = None

    def offset(self, seq: int) -> int:
        """The stream offset that sequence number *seq* means: the one nearest to *next*."""
        return self.next + distance(self.expected, seq)

    def acknowledges(self, segment: Segment) -> bool:
        """Whether *segment*, of this stream, acknowledges what its sender may have received by now.

        RFC 5961, section 5: nothing that was not sent, and nothing outdated by more than a window. Packets of
        inside hosts come before any check of the kernel's, so whoever forges one has to guess this, too.
        """
        if not segment.flags & ACK:
            return False
        other = self.other
        if segment.ack == other.expected and not other.map.skewed:
            return True  # most of the time
        sent = other.map.fwd(other.next) if other.map.skewed else other.next
        # One more: a FIN takes a position, and may have passed unnoted ahead of a gap.
        return wrap(other.base + sent + 1 - segment.ack) <= min(sent + 1, FAR)

    def advance(self, end: int) -> None:
        """Everything below offset *end* has been seen."""
        self.next = end
        self.expected = (self.base + end) & MASK  # ``wrap``, without a call for each packet that passes
        self.gap = None

    def rendered(self, segment: Segment, at: int) -> Segment:
        """*segment* of this stream, its payload at offset *at*, as it shall leave; itself if unchanged."""
        other = self.other
        payload = segment.raw[segment.start :]
        edited = self.map.render(payload, at) if self.map.edits else payload
        if not (self.map.skewed or other.map.skewed):
            return segment if edited == payload else segment.patched(segment.start, edited)
        place, flags = self.map.fwd(at), segment.flags
        if not edited and at < self.next and not flags & (FIN | RST):
            # Nothing is left of it, or it repeats an old position to be answered (keep-alive, window probe).
            # Either way it must stand before what its receiver waits for: there, it would get no answer.
            place = self.map.fwd(at + max(1, len(payload))) - 1
        elif flags & RST and at == self.map.back(self.acked):
            place = self.acked  # it answers an acknowledgement, be it of a part of what an edit added
        room = None if self.edge is None or flags & RST or not self.map.skewed else self.edge - place
        if room is not None and (room < 0 or 0 < room < len(edited)):
            # What does not fit is cut off, as its receiver would, and its sender brings it again. But what
            # begins at the edge is a probe, and gets its answer as it is.
            place, flags = min(place, place + room), flags & ~FIN
            edited = edited[: max(room, 0)]
        ack = segment.ack
        blocks = None
        if other.map.skewed and flags & ACK:
            ack = other.base + other.map.back(other.edited_offset(ack))
            blocks = other.original_block
        return segment.rebuilt(self.base + place, ack, edited, blocks, flags)

    def on_ack(self, segment: Segment) -> None:
        """*segment*, of the other direction, says how much of this stream its sender has, and will take."""
        acked = self.edited_offset(segment.ack)
        if not self.acked <= acked <= self.map.fwd(self.next) + 1:
            return  # it is outdated, or neither end of this flow sent it
        self.acked = acked
        if self.scale is not None:
            self.edge = max(self.edge or 0, acked + (segment.window << self.scale))

    def placed(self, segment: Segment, at: int) -> Segment:
        """The empty *segment*, wherever it stands, as if it stood at offset *at*."""
        rendered = self.rendered(segment, at)
        if rendered is not segment:
            return rendered
        return segment.rebuilt(self.base + self.map.fwd(at), segment.ack, b"", None)

    def edited_offset(self, seq: int) -> int:
        """The offset in the edited stream that the receiver means by sequence number *seq*."""
        now = self.map.fwd(self.next)
        return now + distance(self.base + now, seq)

    def original_block(self, left: int, right: int) -> tuple[int, int] | None:
        """The edges of a SACK block from the receiver of the edited stream, for its sender; None if empty."""
        begin = self.map.back_left(self.edited_offset(left))
        end = self.map.back(self.edited_offset(right))
        return (self.base + begin, self.base + end) if begin < end else None

    def edit(self, edits: Sequence[Edit]) -> None:
        """Make *edits*, all or none, and forget old ones. Raises ValueError as OffsetMap.add does."""
        if self.map is _UNEDITED:
            self.map = OffsetMap()
        self.map.settle(self.acked)
        self.map.add(edits)

    def first_editable(self, new_from: int) -> int:
        """The first offset that may still be edited, if all before *new_from* left except what was held."""
        if self.held:
            return self.held[0].new_from
        return new_from if self.dropped_from is None else self.dropped_from

    def forwarded(self, end: int) -> None:
        """Something was forwarded that ends at offset *end*."""
        if self.dropped_from is not None and end > self.dropped_from:
            self.dropped_from = None

    def hold(self, packet: Held) -> None:
        """Keep *packet* back."""
        if self.held:
            self.held.append(packet)
        else:
            self.held = [packet]
        self.held_bytes += packet.segment.size

    def release(self, below: int | None = None) -> list[Held]:
        """The held packets that end at or before offset *below* (None: all), no longer held."""
        count = len(self.held)
        if below is not None:
            count = 0
            while count < len(self.held) and self.held[count].end <= below:
                count += 1
        freed, self.held = self.held[:count], self.held[count:] or _NOTHING
        self.held_bytes -= sum(packet.segment.size for packet in freed)
        return freed
