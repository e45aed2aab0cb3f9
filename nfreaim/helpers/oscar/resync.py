"""Resync: finds the beginning of a frame again in a direction of which a part was missed. It only looks.

After a crash the bytes that passed meanwhile are unknown, and with them where frames begin. What is in a
text message must never be taken for frames, though whoever wrote it may know how it will be cut. So:

- A chain begins where a segment begins as a frame, and is followed frame by frame, each numbered one higher
  than the one before (no tolerance here), whatever is in them. Bytes that a chain covers are not looked at:
  a frame whose beginning was seen hides everything that its text could imitate.
- It counts for nothing until, after QUIET seconds without a byte, the next segment begins with a frame of
  the number that is due. A chain that is inside a frame at such a moment is dropped.

Why this cannot be misled. Between two frames, and only there, a sender is silent: it hands a frame to its
TCP in one piece. So behind a pause a true frame begins, with its true number. A chain that was made up of
text must end exactly where the burst of true frames ends that it is hidden in, or it is dropped at the
pause, and must have come to the number of that frame. If it does, by a guess among 65536, it has become the
true chain, and nothing was edited or opened before. Whether several messages were prepared to swallow each
other's headers makes no difference: they swallow none across a pause.

What remains is a receiver that keeps its peer's window shut for QUIET seconds in the midst of a frame whose
beginning was missed. That is the other end of this very connection, and all that it could get opened is for
the host whose bytes these are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from nfreaim.errors import Malformed
from nfreaim.helpers.oscar.flap import FlapReader

QUIET: Final = 1.0
"""Seconds; a frame that is on its way takes milliseconds, a lost segment of it a retransmission's time."""


class Resync:
    """One direction. *make* gives a reader that begins anywhere; *reader* is the present one.

    sure  its frames are the true ones: from the next byte on it may be read for good
    """

    __slots__ = ("_last", "_make", "_proving", "reader", "sure")

    def __init__(self, make: Callable[[], FlapReader]) -> None:
        self._make = make
        self._last: float | None = None
        self._again()

    def _again(self) -> None:
        self.reader = self._make()
        self.sure = self._proving = False

    def saw(self, data: bytes, start: int, now: float, joined: bool) -> None:
        """A segment has the bytes *data* from *start* on; *joined*: the byte before was the last one seen."""
        quiet = self._last is None or now - self._last >= QUIET
        self._last = now
        if not joined or (quiet and not self.reader.resting):
            self._again()
        elif quiet:
            self._proving = True
        due = self.reader.due
        try:
            self.reader.feed(data, start)
        except Malformed:
            self._again()
            return
        if self.reader.broken is not None:
            self._again()
        elif self._proving and 0 <= due != self.reader.due:
            self.sure = True
