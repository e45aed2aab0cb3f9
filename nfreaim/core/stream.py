"""The stream editor: one direction of a flow as a sequence of bytes that may be replaced before they leave.

Offsets count bytes from the first one after the SYN and never wrap; sequence numbers appear here and
nowhere else. Nothing here knows a protocol, the clock's source or the kernel.

An edit replaces original bytes [start, end). Edits are disjoint, ascending and only over bytes that were
not forwarded yet; so what leaves for [a, b) is the same whatever the segmentation, and a retransmission
is the same read again. This version carries edits that keep the length: original and edited offsets are
equal, and sequence numbers pass as they are.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from nfreaim.core.packet import Segment

if TYPE_CHECKING:
    from nfreaim.core.flow import Direction, Flow

_MASK: Final = 0xFFFFFFFF
_HALF: Final = 0x80000000
# Edits of one stream that are remembered for retransmissions: some hundred messages, far more than are ever
# unacknowledged at a time.
_REMEMBERED: Final = 1024


@dataclass(frozen=True, slots=True)
class Edit:
    """Replace the original stream bytes [start, end) by *data*."""

    start: int
    end: int
    data: bytes


def differences(old: bytes, new: bytes, at: int) -> list[Edit]:
    """Edits, at stream offset *at* on, that turn *old* into *new*; nearby differences make one edit."""
    edits: list[Edit] = []
    for pos in (index for index in range(len(old)) if old[index] != new[index]):
        near = edits and at + pos - edits[-1].end < 3
        start = edits.pop().start if near else at + pos
        edits.append(Edit(start, at + pos + 1, new[start - at : pos + 1]))
    return edits


class OffsetMap:
    """The append-only list of a stream's edits, and what they make of its bytes."""

    __slots__ = ("edits",)

    def __init__(self) -> None:
        self.edits: list[Edit] = []

    def add(self, edits: Sequence[Edit]) -> None:
        """Append *edits*, all or none. Raises ValueError if one changes the length or is out of order."""
        end = self.edits[-1].end if self.edits else 0
        for edit in edits:
            if len(edit.data) != edit.end - edit.start or not edit.data:
                raise ValueError(
                    f"edit [{edit.start}, {edit.end}) by {len(edit.data)} bytes changes the length"
                )
            if edit.start < end:
                raise ValueError(f"edit at {edit.start} begins before the end of the last, {end}")
            end = edit.end
        self.edits += edits
        del self.edits[:-_REMEMBERED]

    def render(self, segment: Segment, at: int) -> Segment:
        """*segment*, whose payload begins at stream offset *at*, as it shall leave."""
        end = at + len(segment.raw) - segment.start
        index = bisect_right(self.edits, at, key=lambda edit: edit.end)
        while index < len(self.edits) and (edit := self.edits[index]).start < end:
            low, high = max(edit.start, at), min(edit.end, end)
            data = edit.data[low - edit.start : high - edit.start]
            where = segment.start + low - at
            if segment.raw[where : where + len(data)] != data:
                segment = segment.patched(where, data)
            index += 1
        return segment


@dataclass(frozen=True, slots=True)
class Held:
    """A packet whose verdict is kept open: its *token*, where its payload stands, and since when."""

    token: Any
    segment: Segment
    at: int
    fresh: int
    """Offset of its first byte that no earlier packet carried."""
    since: float


class Stream:
    """One direction of a flow.

    next      offset of the first byte not seen yet; everything below was read in order
    expected  the same as a sequence number
    map       the edits
    held      packets kept back, oldest first; their bytes are seen but not forwarded
    gap       when the hole before *next* was first met, or None; *gaps* packets were dropped behind it
    """

    __slots__ = ("base", "direction", "expected", "flow", "gap", "gaps", "held", "held_bytes", "map", "next")

    def __init__(self, flow: Flow, direction: Direction, base: int) -> None:
        self.flow = flow
        self.direction = direction
        self.rebase(base)
        self.map = OffsetMap()
        self.held: list[Held] = []
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

    def hold(self, packet: Held) -> None:
        """Keep *packet* back."""
        self.held.append(packet)
        self.held_bytes += len(packet.segment.raw) - packet.segment.start

    def let_go(self, below: int | None = None) -> list[Held]:
        """The held packets that end at or before offset *below* (None: all), no longer held."""
        count = len(self.held)
        if below is not None:
            count = 0
            while count < len(self.held) and self._end(self.held[count]) <= below:
                count += 1
        freed, self.held = self.held[:count], self.held[count:]
        self.held_bytes -= sum(len(packet.segment.raw) - packet.segment.start for packet in freed)
        return freed

    @staticmethod
    def _end(packet: Held) -> int:
        return packet.at + len(packet.segment.raw) - packet.segment.start
