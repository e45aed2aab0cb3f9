"""The stream editor: one direction of a flow as a sequence of bytes that may be replaced before they leave.

Offsets count bytes from the first one after the SYN and never wrap. This file alone converts sequence numbers
to offsets and back; it depends on no protocol, clock or kernel.

Edits are made only over bytes that were not forwarded yet. So the bytes that leave for [a, b) are the same
whatever the segmentation, and a retransmission repeats them. While no edit has changed a length, sequence
numbers are equal on both sides and headers pass unchanged. From the first such edit on every segment of the
flow is translated: its own number and payload by the map of its stream, acknowledgement and SACK blocks (RFC
2018) by the map of the other stream. A number outside the stream (that of a blind reset, say) is shifted like
its neighbours and never moved to a valid one. No byte leaves beyond the receiver's window, which may have no
room for bytes that an edit added: the receiver would refuse them, or connection tracking its answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from nfreaim.core.address import Direction
from nfreaim.core.tcp.custody import Custody
from nfreaim.core.tcp.offsets import Edit, OffsetMap
from nfreaim.core.tcp.segment import ACK, FIN, HALF, MASK, RST, Segment, distance, wrap

FAR: Final = 1 << 22
"""Bytes. A sequence number farther from the stream than any window belongs to no packet of it."""
# Flows without edits share this map, and those without held packets the list _NOTHING, because most flows
# never need their own. Neither is ever changed.
_UNEDITED: Final = OffsetMap()


@dataclass(frozen=True, slots=True)
class Held:
    """A packet that is held: its verdict is open.

    token     names the packet to the queue
    at        offset of its payload
    new_from  offset of its first byte that no earlier packet has forwarded
    since     when it was held
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

_REPEATED: Final = 2
"""A segment that came more often was repeated by a time-out, which begins at what was not acknowledged (RFC
6298, section 5.4); a probe of the tail repeats one only once (RFC 8985, section 7)."""
F = TypeVar("F")
"""The flow of a stream."""


@dataclass(slots=True)
class Gap:
    """Bytes of a stream that are missing, while others from behind them came.

    first  offset of the first segment behind the gap that came
    since  when the gap was met
    times  how often this segment came
    """

    first: int
    since: float
    times: int = 0

    @property
    def arrived(self) -> bool:
        """Whether the missing bytes have: their sender goes on repeating what comes behind them.

        Silence alone shows nothing. The sender may have had no way to its peer, and fills the gap when its
        next repetition is due.
        """
        return self.times > _REPEATED

    def in_vain(self, now: float, patience: float) -> bool:
        """Whether the missing bytes have arrived, and others were waiting for *patience* seconds."""
        return self.arrived and now - self.since > patience


class Stream(Generic[F]):
    """One direction of a flow.

    flow         its flow
    other        the stream of the other direction
    from_inside  whether its sender is the inside end of the flow
    next         offset of the first byte that was not seen yet; all bytes below were read in order
    expected     the sequence number of *next*
    map          the edits
    acked        edited offset that the receiver acknowledged last, in flows that may be skewed
    edge         edited offset where the receiver's window ends, or None while that is unknown
    scale        the receiver's window scale in bits, or None if it was not seen
    held         held packets, oldest first; their bytes are seen but not forwarded
    dropped_from offset of the first byte that was held and then dropped and has not left since; or None
    custody      bytes that were taken out of held packets and that the receiver may lack, or None
    gap          the one before *next*, or None
    """

    __slots__ = (
        "acked",
        "base",
        "custody",
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
        self.custody: Custody | None = None
        self.gap: Gap | None = None

    def rebase(self, seq: int) -> None:
        """Offset 0 has sequence number *seq*; no byte has been seen yet."""
        self.base = self.expected = wrap(seq)
        self.next = self.acked = 0
        self.edge: int | None = None

    def offset(self, seq: int) -> int:
        """The stream offset of sequence number *seq*: of those possible, the one nearest to *next*."""
        return self.next + distance(self.expected, seq)

    def acknowledges(self, segment: Segment) -> bool:
        """Whether *segment*, of this stream, has an acknowledgement number that its sender can send now.

        RFC 5961 section 5: it acknowledges no byte that was not sent, and is not older than a window. Packets
        of inside hosts are queued before the kernel checks them, so a forger has to guess this number as
        well.
        """
        if not segment.flags & ACK:
            return False
        other = self.other
        if segment.ack == other.expected and not other.map.skewed:
            return True  # true of most segments
        sent = other.map.fwd(other.next) if other.map.skewed else other.next
        # One more, because a FIN has a sequence number of its own and may have passed unnoted ahead of a gap.
        return wrap(other.base + sent + 1 - segment.ack) <= min(sent + 1, FAR)

    def advance(self, end: int) -> None:
        """All bytes below offset *end* have been seen."""
        self.next = end
        self.expected = (self.base + end) & MASK  # ``wrap``, without a call for each packet that passes
        self.gap = None

    def met_gap(self, at: int, now: float) -> Gap:
        """A segment at offset *at*, behind missing bytes, has come."""
        if self.gap is None:
            self.gap = Gap(at, now)
        if at < self.gap.first:
            self.gap.first, self.gap.times = at, 0
        self.gap.times += at == self.gap.first
        return self.gap

    def rendered(self, segment: Segment, at: int) -> Segment:
        """*segment* of this stream, with its payload at offset *at*, as it leaves; itself if unchanged."""
        other = self.other
        payload = segment.raw[segment.start :]
        edited = self.map.render(payload, at) if self.map.edits else payload
        if not (self.map.skewed or other.map.skewed):
            return segment if edited == payload else segment.patched(segment.start, edited)
        leaves_at, flags = self.map.fwd(at), segment.flags
        if not edited and at < self.next and not flags & (FIN | RST):
            # An edit removed all its bytes, or it repeats an old number to get an answer (keep-alive, window
            # probe). Its number has to stay before the one that the receiver expects, which gets no answer.
            leaves_at = self.map.fwd(at + max(1, len(payload))) - 1
        elif flags & RST and at == self.map.back(self.acked):
            leaves_at = self.acked  # it answers an acknowledgement, which may end inside an edit's bytes
        room = None if self.edge is None or flags & RST or not self.map.skewed else self.edge - leaves_at
        if room is not None and (room < 0 or 0 < room < len(edited)):
            # Bytes beyond the window are cut off, as the receiver would do, and their sender repeats them.
            # Data that begin at the edge are a window probe, and pass to get an answer.
            leaves_at, flags = min(leaves_at, leaves_at + room), flags & ~FIN
            edited = edited[: max(room, 0)]
        ack = segment.ack
        blocks = None
        if other.map.skewed and flags & ACK:
            ack = other.base + other.map.back(other.edited_offset(ack))
            blocks = other.original_block
        return segment.rebuilt(self.base + leaves_at, ack, edited, blocks, flags)

    def on_ack(self, segment: Segment) -> None:
        """Note which bytes of this stream the sender of *segment* has and accepts. It is the receiver."""
        acked = self.edited_offset(segment.ack)
        if not self.acked <= acked <= self.map.fwd(self.next) + 1:
            return  # outdated, or forged
        self.acked = acked
        if self.scale is not None:
            self.edge = max(self.edge or 0, acked + (segment.window << self.scale))

    def on_plain_ack(self, ack: int, window: int) -> None:
        """``on_ack``, while no edit has changed a length: for nearly all packets, so without a call."""
        acked = self.next + ((ack - self.expected + HALF) & MASK) - HALF
        if self.acked <= acked <= self.next + 1:
            self.acked = acked
            if self.scale is not None:
                edge = acked + (window << self.scale)
                if self.edge is None or edge > self.edge:
                    self.edge = edge

    def relieved(self, segment: Segment) -> Segment:
        """*segment*, of the other stream and with the sender's numbers, which may acknowledge what is in
        custody as well. Its window ends where its receiver said."""
        custody, acked = self.custody, self.offset(segment.ack)
        if custody is None or not custody.start <= acked < custody.told or segment.flags & (ACK | RST) != ACK:
            return segment
        scale = self.scale or 0
        window = (segment.window << scale) - (self.map.fwd(custody.told) - self.map.fwd(acked))
        payload = segment.raw[segment.start :]
        seq, ack = segment.seq, self.base + custody.told
        return segment.rebuilt(seq, ack, payload, None, window=max(0, window) >> scale)

    def moved_to(self, segment: Segment, at: int) -> Segment:
        """The empty *segment* as it leaves with the number of offset *at* in place of its own."""
        rendered = self.rendered(segment, at)
        if rendered is not segment:
            return rendered
        return segment.rebuilt(self.base + self.map.fwd(at), segment.ack, b"", None)

    def edited_offset(self, seq: int) -> int:
        """The offset in the edited stream of the receiver's sequence number *seq*."""
        now = self.map.fwd(self.next)
        return now + distance(self.base + now, seq)

    def original_block(self, left: int, right: int) -> tuple[int, int] | None:
        """A SACK block of the receiver, in the numbers of the original stream; None if it covers no byte."""
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
        """The first offset that may be edited: *new_from*, or the first byte before it that was held back."""
        if self.custody is not None and self.custody.withheld is not None:
            return self.custody.withheld
        if self.held:
            return self.held[0].new_from
        return new_from if self.dropped_from is None else self.dropped_from

    def forwarded(self, end: int) -> None:
        """A packet was forwarded whose payload ends at offset *end*."""
        if self.dropped_from is not None and end > self.dropped_from:
            self.dropped_from = None

    def hold(self, packet: Held) -> None:
        """Hold *packet*."""
        if self.held:
            self.held.append(packet)
        else:
            self.held = [packet]
        self.held_bytes += packet.segment.size

    def release(self, below: int | None = None) -> list[Held]:
        """Take and return the held packets that end at or before offset *below* (None: all)."""
        count = len(self.held)
        if below is not None:
            count = 0
            while count < len(self.held) and self.held[count].end <= below:
                count += 1
        freed, self.held = self.held[:count], self.held[count:] or _NOTHING
        self.held_bytes -= sum(packet.segment.size for packet in freed)
        return freed
