"""Edit and OffsetMap: translate offsets and bytes of an original stream to the edited one, and back.

This is pure arithmetic on stream offsets, without sequence numbers, packets or protocols.

Edits are disjoint, ascending and append-only, and each replaces at least one byte. ``fwd(x)`` is the offset
in the edited stream of original offset x; inside an edit of [s, e) by n bytes it is fwd(s) + min(x - s, n).
It is monotone, so a span [a, b) always leaves as edited[fwd(a):fwd(b)], whatever the segmentation.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

# At most as many edits of one stream are remembered: a window full of them. Of older edits the sum of their
# shifts is kept.
REMEMBERED: Final = 1024
# At most as many acknowledged edits are remembered, for late duplicates of their segments.
SETTLED: Final = 64
_CHANGED: Final = re.compile(rb"[^\0]+(?:\0{1,2}[^\0]+)*")


@dataclass(frozen=True, slots=True)
class Edit:
    """Replace the original stream bytes [start, end) by *data*."""

    start: int
    end: int
    data: bytes

    @property
    def resizes(self) -> bool:
        """Whether the edit changes the number of bytes."""
        return len(self.data) != self.end - self.start


def differences(old: bytes, new: bytes, at: int) -> list[Edit]:
    """Edits, from stream offset *at* on, that turn *old* into *new*; differences less than three equal bytes
    apart share an edit. Raises ValueError if the two differ in length.
    """
    if len(old) != len(new):
        raise ValueError(f"{len(new)} bytes in place of {len(old)}")
    changed = int.from_bytes(old, "big") ^ int.from_bytes(new, "big")
    runs = _CHANGED.finditer(changed.to_bytes(len(old), "big"))
    return [Edit(at + run.start(), at + run.end(), new[run.start() : run.end()]) for run in runs]


class OffsetMap:
    """The edits of a stream. *skewed*: one of them, also a forgotten one, changed the length."""

    __slots__ = ("_after", "_edited_starts", "_starts", "before", "edits", "skewed")

    def __init__(self, edits: Sequence[Edit] = (), before: int = 0) -> None:
        self.edits: list[Edit] = []
        self.before = before  # sum of the shifts of forgotten edits
        self.skewed = before != 0
        self._starts: list[int] = []  # of each edit, original
        self._edited_starts: list[int] = []  # of each edit, edited
        self._after: list[int] = []  # shift behind each edit
        self.add(edits)

    @property
    def shift(self) -> int:
        """The shift of offsets behind the last edit."""
        return self._after[-1] if self._after else self.before

    def add(self, edits: Sequence[Edit]) -> None:
        """Append *edits*, all or none. Raises ValueError if one is empty or out of order."""
        end = self.edits[-1].end if self.edits else 0
        for edit in edits:
            if not end <= edit.start < edit.end:
                raise ValueError(f"edit [{edit.start}, {edit.end}) does not follow {end}")
            end = edit.end
        for edit in edits:
            shift = self.shift
            self._starts.append(edit.start)
            self._edited_starts.append(edit.start + shift)
            self._after.append(shift + len(edit.data) - (edit.end - edit.start))
            self.edits.append(edit)
            self.skewed = self.skewed or edit.resizes
        self._forget(len(self.edits) - REMEMBERED)

    def settle(self, y: int) -> None:
        """Forget the edits before edited offset *y*, which was acknowledged, except the last SETTLED.

        A retransmission of acknowledged bytes is a duplicate to its receiver. Shifted by the sum of all
        forgotten shifts it stays one: the sum is exact behind the last forgotten edit, and fwd is monotone.
        """
        count = bisect_right(self._edited_starts, y)
        while count and self._edited_starts[count - 1] + len(self.edits[count - 1].data) > y:
            count -= 1
        self._forget(min(count, len(self.edits) - SETTLED))

    def _forget(self, count: int) -> None:
        """Keep only the sum of the shifts of the first *count* edits."""
        if count > 0:
            self.before = self._after[count - 1]
            for kept in (self.edits, self._starts, self._edited_starts, self._after):
                del kept[:count]

    def undo(self, count: int) -> None:
        """Take back the last *count* edits; no byte of them has left yet."""
        if count:
            for kept in (self.edits, self._starts, self._edited_starts, self._after):
                del kept[-count:]
            self.skewed = self.before != 0 or any(edit.resizes for edit in self.edits)

    def forget(self) -> None:
        """Keep only the sum of all shifts, because no byte of these edits will be sent again."""
        self.before = self.shift
        for kept in (self.edits, self._starts, self._edited_starts, self._after):
            kept.clear()

    def fwd(self, x: int) -> int:
        """The offset in the edited stream of original offset *x*."""
        index = bisect_right(self._starts, x) - 1
        if index < 0:
            return x + self.before
        edit = self.edits[index]
        if x < edit.end:
            return self._edited_starts[index] + min(x - edit.start, len(edit.data))
        return x + self._after[index]

    def removes(self, x: int) -> bool:
        """Whether an edit removed the original byte at offset *x* without a byte in its place."""
        return self.fwd(x) == self.fwd(x + 1)

    def back(self, y: int) -> int:
        """The last original offset at or before edited offset *y*: for acknowledgements."""
        index = bisect_right(self._edited_starts, y) - 1
        if index < 0:
            return y - self.before
        edit, inside = self.edits[index], y - self._edited_starts[index]
        if inside < len(edit.data):
            return min(edit.start + inside, edit.end - 1)
        return y - self._after[index]

    def back_left(self, y: int) -> int:
        """The first original offset at or behind edited offset *y*: for the left edge of a SACK block."""
        index = bisect_left(self._edited_starts, y) - 1
        if index < 0:
            return y - self.before
        edit, inside = self.edits[index], y - self._edited_starts[index]
        if inside <= len(edit.data):
            return min(edit.start + inside, edit.end)
        return y - self._after[index]

    def render(self, data: bytes, at: int) -> bytes:
        """The edited bytes of *data*, the original bytes from offset *at* on; *data* itself if unchanged."""
        end = at + len(data)
        index = max(bisect_right(self._starts, at) - 1, 0)
        parts: list[bytes] = []
        pos = at
        for edit in self.edits[index:]:
            if edit.start >= end:
                break
            if edit.end <= pos:
                continue
            low = max(edit.start, pos)
            high = min(edit.end, end)
            last = len(edit.data) if high == edit.end else min(high - edit.start, len(edit.data))
            parts += (data[pos - at : low - at], edit.data[low - edit.start : last])
            pos = high
        if not parts:
            return data
        parts.append(data[pos - at :])
        return b"".join(parts)
