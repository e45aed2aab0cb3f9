"""Boundary: finds a packet boundary in a direction of which bytes were missed.

After a crash the bytes that passed meanwhile are unknown. The text of a message may look like packets, even
at the beginning of a segment, and packets have no numbers. So:

- A chain of packets begins where a segment begins with a header, and is followed by lengths only.
- It is trusted when, after QUIET_S without a byte and at the chain's end, the next segment begins with a
  header of the same session. A chain that is inside a packet at such a pause is dropped.

A client hands each packet to its TCP in one piece, so after a pause a true packet begins. A chain that was
made up of text has to end exactly where the burst ends that it is hidden in. If it does, it has become the
true chain, and until then nothing was edited or opened.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from nfreaim.errors import Malformed
from nfreaim.helpers.yahoo.ymsg_reader import YmsgReader

QUIET_S: Final = 1.0
"""A packet on its way takes milliseconds, and a lost segment of it the time of a retransmission."""


class Boundary:
    """One direction. *make* makes a reader that begins anywhere; *reader* follows the present chain.

    sure  the chain is trusted: *reader* may read on from the next byte
    """

    __slots__ = ("_last", "_make", "_proving", "reader", "sure")

    def __init__(self, make: Callable[[], YmsgReader]) -> None:
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
        elif quiet and self.reader.packets:
            self._proving = True
        session, packets = self.reader.session, self.reader.packets
        try:
            found = self.reader.feed(data, start)
        except Malformed:
            self._again()
            return
        if self._proving and self.reader.packets > packets:
            self.sure = self.sure or (bool(found) and found[0].session == session)
            self._proving = False
