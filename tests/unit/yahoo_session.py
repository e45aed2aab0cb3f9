"""One YMSG connection through a scripted router, for the tests of Yahoo! Messenger's helper.

The session forwards as strictly as can be: every byte before the offset from which the helper wants to wait
has left, and what has left cannot be edited any more.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Self

from nfreaim.core.address import Direction
from nfreaim.core.tcp.offsets import Edit, OffsetMap
from nfreaim.helpers.yahoo import YAHOO
from nfreaim.helpers.yahoo.pager import YahooHelper
from tests.unit.fakes import Router
from tests.unit.irc_session import INSIDE, NEIGHBOUR, OUTSIDE, ScriptedNat
from tests.unit.wires import ResizedWire
from tests.yahoo.ymsg import V9, offer, raw, sign_on, url

C2S, S2C = Direction.ORIGINAL, Direction.REPLY
OFFER = offer(url(INSIDE, 5555))
OFFERED = offer(url(OUTSIDE, 5555))

__all__ = [
    "C2S",
    "INSIDE",
    "NEIGHBOUR",
    "OFFER",
    "OFFERED",
    "OUTSIDE",
    "S2C",
    "ScriptedNat",
    "Session",
    "YahooWire",
]


class Session:
    """``say`` is the client's, ``hear`` the server's; each returns what left of it so far."""

    def __init__(self, nat: ScriptedNat | None = None, midstream: bool = False) -> None:
        self.nat = nat or ScriptedNat()
        self.helper = YahooHelper(midstream)
        self.seen = [bytearray(), bytearray()]
        self.edits: tuple[list[Edit], list[Edit]] = ([], [])
        self.holds: list[int] = []

    def signed_on(self, version: int = V9) -> Session:
        auth, challenge, answer, welcome = sign_on(version)
        self.feed(C2S, auth)
        self.feed(S2C, challenge)
        self.feed(C2S, answer)
        assert not self.helper.established
        self.feed(S2C, welcome)
        assert self.helper.established
        return self

    def say(self, data: bytes, *cuts: int) -> bytes:
        return self._feed(C2S, data, cuts)

    def hear(self, data: bytes, *cuts: int) -> bytes:
        return self._feed(S2C, data, cuts)

    def reasons(self) -> list[str]:
        """Why each message became what it became."""
        return [report.reason for report in self.nat.reports]

    def _feed(self, direction: Direction, data: bytes, cuts: tuple[int, ...]) -> bytes:
        before = len(self._rendered(direction))
        for low, high in pairwise([0, *cuts, len(data)]):
            self.feed(direction, data[low:high])
        return self._rendered(direction)[before:]

    def feed(self, direction: Direction, segment: bytes) -> int | None:
        """One segment; from which offset on the helper wants to wait."""
        start = len(self.seen[direction])
        self.seen[direction] += segment
        end = start + len(segment)
        scan = self.helper.scan(direction, segment, start, self.nat)
        for edit in scan.edits if scan is not None else ():
            assert self.nat.left[direction] <= edit.start < edit.end <= end
            self.edits[direction].append(edit)
        hold = scan.hold if scan is not None else None
        self.nat.left[direction] = end if hold is None else max(min(hold, end), self.nat.left[direction])
        if hold is not None and hold < end:
            self.holds.append(hold)
        return hold

    def _rendered(self, direction: Direction) -> bytes:
        return OffsetMap(self.edits[direction]).render(bytes(self.seen[direction]), 0)


class YahooWire(ResizedWire):
    """A connection through a whole engine."""

    keepalive = raw(0x8A, b"")
    proposal = OFFER

    def make_router(self) -> Router:
        return Router(spec=YAHOO)

    def begun(self) -> Self:
        """Past sign-on."""
        self.handshake()
        hello, challenge, answer, welcome = sign_on()
        self.client(hello)
        self.server(challenge)
        self.client(answer)
        self.server(welcome)
        return self
