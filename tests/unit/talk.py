"""One flow read by the OSCAR helper alone, and a router that answers it by the book."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

from nfreaim.core.address import Direction, Endpoint
from nfreaim.core.counters import Counters
from nfreaim.core.helper import Expectation, Refused, Report
from nfreaim.core.tcp.offsets import Edit
from nfreaim.helpers.oscar import OSCAR
from tests.oscar.signon import CLIENT_SIGNON, HOST_ONLINE, SIGNON
from tests.unit.oscar_fixtures import AnyNumbers

REACHED = Endpoint("203.0.113.100", 5190)


@dataclass
class FakeNat:
    """The router of a server at 10.0.0.9:5190, as one flow of it sees it. Remembers what it is asked."""

    server_inside: bool = True
    reached_at: Endpoint | None = REACHED
    names: frozenset[str] = frozenset({"home.example"})
    refuse: str | None = None
    port: int | None = None  # where pinholes open, if not at the port that was asked for
    counters: Counters = field(default_factory=lambda: Counters.of([OSCAR]))
    left: list[int] = field(default_factory=lambda: [0, 0])  # how much of each direction has been forwarded
    followed: list[Endpoint] = field(default_factory=list)
    expected: dict[bytes, Expectation] = field(default_factory=dict)
    kept: int = 0
    agreements: list[bytes] = field(default_factory=list)
    withdrawn: list[str] = field(default_factory=list)
    offers: list[Expectation] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)

    @property
    def inside(self) -> Endpoint:
        return Endpoint("10.0.0.9", 5190) if self.server_inside else Endpoint("10.0.0.5", 40123)

    @property
    def outside(self) -> Endpoint:
        return Endpoint("203.0.113.20", 51000) if self.server_inside else Endpoint("203.0.113.9", 5190)

    def reached(self) -> Endpoint:
        if self.reached_at is None:
            raise Refused("connection tracking does not know the flow")
        return self.reached_at

    def outside_of(self, server: Endpoint) -> Endpoint:
        raise Refused("no rule forwards it")

    def is_home(self, host: str) -> bool:
        return host in self.names or host.startswith(("10.", "192.168."))

    def watch_server(self, server: Endpoint) -> None:
        self.followed.append(server)

    def expect(self, expectation: Expectation) -> Endpoint:
        if self.refuse:
            raise Refused(self.refuse)
        self.expected[expectation.agreement] = expectation
        return Endpoint(self.reached().address, self.port or expectation.inside.port)

    def offered(self, expectation: Expectation) -> None:
        self.offers.append(expectation)

    def withdraw(self, agreement: bytes, reason: str) -> None:
        if self.expected.pop(agreement, None):
            self.withdrawn.append(reason)

    def established(self, session: bool = False) -> None:
        """Nothing to prepare."""

    def withdraw_all(self, reason: str) -> None:
        self.expected.clear()
        self.withdrawn.append(reason)

    def accepted(self, agreement: bytes) -> None:
        self.agreements.append(agreement)

    def has_standing(self) -> bool:
        return False

    def has_pinholes(self) -> bool:
        return bool(self.expected)

    def inside_of(self, announced: Endpoint) -> Endpoint | None:
        return None

    def is_ours(self, address: str) -> bool:
        return self.reached_at is not None and address == self.reached_at.address

    def set_buffered(self, size: int) -> None:
        self.kept = size

    def may_read(self, direction: Direction) -> bool:
        return True

    def editable(self, direction: Direction, start: int) -> bool:
        return start >= self.left[direction]

    def count(self, counter: str) -> None:
        self.counters.helpers[counter] += 1

    def report(self, report: Report) -> None:
        self.reports.append(report)


class Talk:
    """One flow read by an OscarHelper: bytes in, bytes out, with an engine's care for what has left.

    late   holds end before more comes, as when the sender waits for an ACK
    holds  the offset of each answer "hold", within the bytes of the last ``send``
    """

    def __init__(self, nat: FakeNat | None = None, late: bool = False) -> None:
        self.nat = nat or FakeNat()
        self.late = late
        self.helper = AnyNumbers(midstream=False)
        self.sent = [b"", b""]
        self.edits: list[list[Edit]] = [[], []]
        self.held: list[list[int]] = [[], []]  # where held packets begin
        self.holds: list[int | None] = []

    def send(self, way: int, data: bytes, cuts: Iterable[int] = ()) -> bytes:
        """What becomes of *data*, sent in pieces cut at these offsets into it."""
        base = len(self.sent[way])
        self.holds = []
        for low, high in pairwise([0, *cuts, len(data)]):
            start = len(self.sent[way])
            self.sent[way] += data[low:high]
            scan = self.helper.scan(Direction(way), data[low:high], start, self.nat)
            hold = scan.hold if scan else None
            for edit in scan.edits if scan else ():
                assert edit.start >= self.nat.left[way], "an edit over bytes that have left"
                assert edit.start >= max([0, *(old.end for old in self.edits[way])])
                assert self.sent[way][edit.start : edit.end] != edit.data, "an edit that changes nothing"
                self.edits[way].append(edit)
            self.holds.append(None if hold is None else hold - base)
            self.held[way].append(start)
            if self.late or hold is None or hold < self.nat.left[way]:
                hold = len(self.sent[way])
            # Whole packets leave: the first that stays is the one that holds the byte *hold*.
            ends = [*self.held[way][1:], len(self.sent[way])]
            gone = sum(end <= hold for end in ends)
            self.nat.left[way] = ([*self.held[way], len(self.sent[way])])[gone]
            self.held[way] = self.held[way][gone:]
        return self.rendered(way, base)

    def rendered(self, way: int, base: int) -> bytes:
        out, pos = b"", base
        for edit in self.edits[way]:
            if edit.start >= base:
                out += self.sent[way][pos : edit.start] + edit.data
                pos = edit.end
        return out + self.sent[way][pos:]

    def begun(self) -> Talk:
        """Past the sign-on frames, as a login connection is."""
        self.send(1, SIGNON, [1, 2, 4, 6])
        self.send(0, CLIENT_SIGNON)
        return self

    def online(self) -> Talk:
        """Past sign-on, as a session is."""
        self.begun().send(1, HOST_ONLINE, [1, 2, 4, 6])
        assert self.helper.established
        return self
