"""Conversation: streams handed straight to the OSCAR helper, which is asked for nothing but its edits.

Two copies of the helper read the same: one gets every step as it is cut, the other every step whole. Both
must make the same edits, and each edit must lie in a field that the parser of `fields` knows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from nfreaim.core.address import Direction, Endpoint
from nfreaim.core.helper import Expectation, Refused
from nfreaim.core.tcp.offsets import Edit
from nfreaim.errors import Malformed
from nfreaim.helpers.oscar.session import OscarHelper
from tests.fuzz.line import candidates
from tests.fuzz.program import Step
from tests.oscar.fields import Reader
from tests.unit.talk import FakeNat

LAN: Final = IPv4Network("10.0.0.0/24")
PORTS: Final = range(40000, 40064)


@dataclass
class Nat(FakeNat):
    """A router that opens what it is asked for, at other ports where the port is odd."""

    agreed_on: dict[bytes, tuple[Expectation, Endpoint]] = field(default_factory=dict)
    ever: list[tuple[Endpoint, Endpoint]] = field(default_factory=list)

    def is_home(self, host: str) -> bool:
        try:
            return IPv4Address(host) in LAN
        except ValueError:
            return host == "home.example"

    def expect(self, expectation: Expectation) -> Endpoint:
        inside = expectation.inside
        if self.server_inside:
            assert IPv4Address(inside.address) in LAN, "a pinhole out of the inside networks is asked for"
        else:
            assert inside.address == self.inside.address, "a pinhole to somebody else is asked for"
        if inside.port < 1024 or inside.port > 0xFFFF:
            raise Refused("port")
        port = PORTS[inside.port % len(PORTS)] if inside.port & 1 else inside.port
        outside = Endpoint(self.reached().address, port)
        self.agreed_on[expectation.agreement] = (expectation, outside)
        self.ever.append((inside, outside))
        return outside

    def offered(self, expectation: Expectation) -> None:
        """Its peer may come, and no pinhole is opened."""

    def withdraw(self, agreement: bytes, reason: str) -> None:
        self.agreed_on.pop(agreement, None)

    def withdraw_all(self, reason: str) -> None:
        self.agreed_on.clear()

    def has_standing(self) -> bool:
        return any(each.standing for each, _ in self.agreed_on.values())

    def has_pinholes(self) -> bool:
        return bool(self.agreed_on)

    def inside_of(self, announced: Endpoint) -> Endpoint | None:
        return next((each.inside for each, end in self.agreed_on.values() if end == announced), None)


class Side:
    """One copy of the helper, with an engine's care for what has left. *late*: nothing is held."""

    def __init__(self, server_inside: bool, late: bool) -> None:
        self.nat = Nat(server_inside=server_inside, reached_at=Endpoint("198.51.100.200", 45190))
        self.helper = OscarHelper(midstream=False)
        self.late = late
        self.sizes = [0, 0]
        self.held: list[list[int]] = [[], []]
        self.edits: list[list[Edit]] = [[], []]

    def read(self, way: int, data: bytes) -> list[Edit]:
        """Raises Malformed."""
        nat, start = self.nat, self.sizes[way]
        self.sizes[way] += len(data)
        scan = self.helper.scan(Direction(way), data, start, nat)
        edits, hold = scan if scan else ((), None)
        low = nat.left[way]
        for edit in edits:
            assert low <= edit.start < edit.end <= self.sizes[way], "an edit over what left or has not come"
            assert nat.server_inside or not edit.resizes, "another length where the client is inside"
            low = edit.end
        self.edits[way] += edits
        starts = [*self.held[way], start]
        if self.late or hold is None or not nat.left[way] <= hold < self.sizes[way]:
            hold = self.sizes[way]
        ends = [*starts[1:], self.sizes[way]]
        gone = sum(end <= hold for end in ends)
        nat.left[way] = [*starts, self.sizes[way]][gone]
        self.held[way] = starts[gone:]
        return list(edits)


class Conversation:
    """One connection."""

    def __init__(self, server_inside: bool, home: Endpoint, late: bool) -> None:
        self.whole, self.cut = Side(server_inside, late), Side(server_inside, late)
        self.readers = (Reader(0, server_inside), Reader(1, server_inside))
        self.late = late

    def play(self, steps: Sequence[Step]) -> None:
        for step in steps:
            way, reader = step.way, self.readers[step.way]
            reader.feed(step.data)
            ends = [self._read(self.whole, way, [step.data]), self._read(self.cut, way, list(pieces(step)))]
            self._check(way)
            if not self.late:
                assert self.whole.edits == self.cut.edits, "the edits differ with the cuts"
                assert ends[0] == ends[1], "one of two gave up, by nothing but the cuts"
            if any(ends):
                return

    def _read(self, side: Side, way: int, datas: list[bytes]) -> bool:
        """Whether the helper gave up."""
        try:
            for data in [*datas, b""]:  # an error is told by the next call, if frames come before it
                side.read(way, data)
        except Malformed:
            return True
        return False

    def _check(self, way: int) -> None:
        reader = self.readers[way]
        for side in (self.whole, self.cut):
            for edit in side.edits[way]:
                old = bytes(reader.data[edit.start : edit.end])
                known = reader.within(edit.start, edit.end)
                if edit.resizes or any(place.format == "host" for place in known):
                    assert any(place.format == "host" and place.end == edit.end for place in known) or (
                        edit.end - edit.start == len(edit.data) == 2
                    ), "neither host nor length of a redirect"
                    continue
                self._fixed(side.nat, reader, edit, old)
            side.edits[way].clear()

    def _fixed(self, nat: Nat, reader: Reader, edit: Edit, old: bytes) -> None:
        moves = nat.ever + [(after, before) for before, after in nat.ever]
        for x, (was, new) in enumerate(zip(old, edit.data, strict=True), edit.start):
            if was == new:
                continue
            places = reader.within(x, x + 1)
            if not places and nat.server_inside and len(old) == 2:
                return  # the length in a FLAP header, whose redirect is in another edit
            assert places, f"an edit of byte {x}, which is in no address or port field"
            place = places[0]
            value = bytes(reader.data[place.start : place.end])
            found = [each[x - place.start] for each in candidates(place.format, value, moves)]
            assert new in found, f"{new:#04x} in {place} is of no pinhole"


def pieces(step: Step) -> Iterator[bytes]:
    size = step.numbers[0] or len(step.data) or 1
    if len(step.data) > 64 * size:
        size = len(step.data)  # a step is bounded in packets
    return (step.data[low : low + size] for low in range(0, len(step.data), size))
