"""Resync: finds a frame boundary in a direction of which bytes were missed.

After a crash the bytes that passed meanwhile are unknown, and so are the frame boundaries. The text of a
message must never be taken for frames, even if its author knows how TCP will cut it. So:

- A chain of frames begins where a segment begins with a frame header. It is followed frame by frame, whatever
  the frames hold; each has to be numbered one higher than the one before, without tolerance. Bytes inside a
  chain are not searched, so a frame whose beginning was seen hides every frame that its text could imitate.
- The chain is trusted only when, after QUIET_S without a byte, the next segment begins with a frame of
  the number that is due. A chain that is inside a frame at such a pause is dropped.

Why this cannot be misled: a sender is silent only between two frames, because it hands each frame to its TCP
in one piece. So after a pause a true frame begins, with its true number. A chain that was made up of text is
hidden in a burst of true frames. It has to end exactly where the burst ends, or it is dropped at the pause;
and it has to have reached the number of the frame that follows. If it does, by a guess among 65536, it has
become the true chain, and until then nothing was edited or opened. Several messages that were prepared to
swallow each other's headers gain nothing, because they swallow none across a pause.

One case remains: a receiver that keeps its peer's window shut for QUIET_S, in the middle of a frame
whose beginning was missed. This receiver is the other end of the same connection, and could have a pinhole
opened only to the host that sent these bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from nfreaim.errors import Malformed
from nfreaim.helpers.oscar.flap import FlapReader

QUIET_S: Final = 1.0
"""A frame on its way takes milliseconds, and a lost segment of it the time of a retransmission."""


class Resync:
    """One direction. *make* makes a reader that begins anywhere; *reader* follows the present chain.

    sure  the chain is trusted: *reader* may read on from the next byte
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
        """Read *data*, the bytes of a segment from *start* on; *joined*: they follow the last bytes seen."""
        quiet = self._last is None or now - self._last >= QUIET_S
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
