"""One connection through a scripted router, for the tests of a protocol's helper.

The session forwards as strictly as can be: every byte before the offset from which the helper wants to wait
has left, and what has left cannot be edited any more.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Generic, Protocol, TypeVar

from nfreaim.core.address import Direction
from nfreaim.core.helper import Helper, Nat, Report
from nfreaim.core.tcp.offsets import Edit, OffsetMap

C2S, S2C = Direction.ORIGINAL, Direction.REPLY


class NotedNat(Nat, Protocol):
    """*left*: in each direction the offset behind what has left; *reports*: what the helper reported."""

    left: list[int]
    reports: list[Report]


N = TypeVar("N", bound=NotedNat)
H = TypeVar("H", bound=Helper)


class HelperSession(Generic[N, H]):
    """``say`` is the client's, ``hear`` the server's; each returns what left of it so far."""

    def __init__(self, nat: N, helper: H) -> None:
        self.nat = nat
        self.helper = helper
        self.seen = [bytearray(), bytearray()]
        self.edits: tuple[list[Edit], list[Edit]] = ([], [])
        self.holds: list[int] = []

    def say(self, data: bytes, *cuts: int) -> bytes:
        return self._feed(C2S, data, cuts)

    def hear(self, data: bytes, *cuts: int) -> bytes:
        return self._feed(S2C, data, cuts)

    def reasons(self) -> list[str]:
        """Why each message became what it became."""
        return [report.reason for report in self.nat.reports]

    def _feed(self, direction: Direction, data: bytes, cuts: tuple[int, ...]) -> bytes:
        before = len(self.rendered(direction))
        for low, high in pairwise([0, *cuts, len(data)]):
            self.feed(direction, data[low:high])
        return self.rendered(direction)[before:]

    def feed(self, direction: Direction, segment: bytes) -> int | None:
        """One segment; from which offset on the helper wants to wait."""
        start = len(self.seen[direction])
        self.seen[direction] += segment
        end = start + len(segment)
        hold = None
        scan = self.helper.scan(direction, segment, start, self.nat)
        if scan is not None:
            for edit in scan.edits:
                assert self.nat.left[direction] <= edit.start < edit.end <= end
                self.edits[direction].append(edit)
            hold = scan.hold
        self.nat.left[direction] = end if hold is None else max(min(hold, end), self.nat.left[direction])
        if hold is not None and hold < end:
            self.holds.append(hold)
        return hold

    def rendered(self, direction: Direction) -> bytes:
        """What has come of a direction, with the edits made."""
        return OffsetMap(self.edits[direction]).render(bytes(self.seen[direction]), 0)
