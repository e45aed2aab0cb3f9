"""A scripted router, one XMPP connection through it, and what clients say: for the tests of its helper.

The session forwards as strictly as can be: every byte before the offset from which the helper wants to wait
has left, and what has left cannot be edited any more.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from nfreaim.core.address import Direction, Endpoint
from nfreaim.core.helper import Expectation, Refused
from nfreaim.core.tcp.offsets import Edit, OffsetMap
from nfreaim.helpers.xmpp.xmpp_helper import XmppHelper
from tests.unit import irc_session
from tests.xmpp import texts

C2S, S2C = Direction.ORIGINAL, Direction.REPLY
INSIDE, OUTSIDE, SERVER, NEIGHBOUR, BOB = "10.0.0.5", "203.0.113.1", "203.0.113.9", "10.0.0.6", "203.0.113.20"
HOME = "10.0.0.9"

SIGN_ON, OLD_SIGN_ON, RESUMED = (
    [(Direction(way), text) for way, text in turns]
    for turns in (texts.SIGN_ON, texts.OLD_SIGN_ON, texts.RESUMED)
)


@dataclass
class ScriptedNat(irc_session.ScriptedNat):
    """Beside what its parent does: *withdrawn* and *accepted*, which are names of agreements."""

    withdrawn: list[bytes] = field(default_factory=list)
    agreed: list[bytes] = field(default_factory=list)

    def offered(self, expectation: Expectation) -> None:
        """Its peer may come, and no pinhole is opened."""

    def withdraw(self, agreement: bytes, reason: str) -> None:
        self.withdrawn.append(agreement)

    def accepted(self, agreement: bytes) -> None:
        self.agreed.append(agreement)

    def is_home(self, host: str) -> bool:
        return host.startswith("10.")


class RefusingNat(ScriptedNat):
    """Refuses one port, and other hosts than those of the LAN."""

    def expect(self, expectation: Expectation) -> Endpoint:
        if expectation.inside.port == 5555 or not expectation.inside.address.startswith("10.0.0."):
            raise Refused("not this one")
        return super().expect(expectation)


def at_home() -> ScriptedNat:
    """The server is inside, and bob signs on from outside."""
    inside, outside = Endpoint(HOME, 5222), Endpoint(BOB, 40123)
    return RefusingNat(server_inside=True, inside=inside, outside=outside)


class Session:
    """One connection: ``say`` is the client's, ``hear`` the server's; each returns what left of it so far."""

    def __init__(self, nat: ScriptedNat | None = None, midstream: bool = False) -> None:
        self.nat = nat or ScriptedNat()
        self.helper = XmppHelper(midstream)
        self.seen = [bytearray(), bytearray()]
        self.edits: tuple[list[Edit], list[Edit]] = ([], [])
        self.holds: list[int] = []

    def signed_on(self, turns: list[tuple[Direction, bytes]] = SIGN_ON) -> Session:
        for direction, text in turns:
            self.feed(direction, text)
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
