"""Peers: the peer gate between hostile peers and an inside host that is honest, and all of it bounded.

An input: lenient (1 byte), then steps of six bytes: kind, link (low 2 bits), at:2, size, version.
A step's version says which of several openings its bytes are taken from, so that two bytes for one place are
easily had. The inside host keeps the first byte that comes for each place and acknowledges what is whole.
"""

from __future__ import annotations

import random
from enum import IntEnum
from itertools import count, takewhile
from typing import Final

from nfreaim.core.address import Endpoint
from nfreaim.core.counters import Counters
from nfreaim.core.firewall.peer_gate import GateLimits, PeerGate
from nfreaim.core.greeting import Greeting, length, match
from nfreaim.core.tcp.segment import ACK, FIN, RST, SYN, URG, Segment
from nfreaim.core.verdict import Verdict
from nfreaim.helpers.oscar.peer_greetings import greetings
from tests.oscar.peer_headers import oft
from tests.tcp.packets import PSH_ACK, checksum_error, near, packet
from tests.unit.peer_link import COOKIE, FakeGatehouse, odc

LISTENERS: Final = (Endpoint("10.0.0.5", 5190), Endpoint("10.0.0.6", 4443))
LIMITS: Final = GateLimits(waiting=2, others=2, idle=100.0, lenient=60.0)
SERVICES: Final = ("direct-im", "send-file", "get-file", "")
VERSIONS: Final = (
    odc(),
    oft(0x0101),
    oft(0x0202),
    odc(b"other\0\0\0"),
    oft(0x1108),
    b"GET / HTTP/1.0\r\n\r\n" + bytes(60),
    odc()[:19] + b"x" + bytes(60),
    b"",
)
SIZE: Final = 6


class Kind(IntEnum):
    """What a step does."""

    PEER = 0  # the peer sends *size* bytes of a version, at *at* - 16
    LOST = 1  # the same, and it is lost behind the gate
    CALL = 2  # the peer's SYN, its number *at*; with a size it carries data
    ANSWER = 3  # the inside host says what it has to say: SYN/ACK, or an acknowledgement
    FLAGS = 4  # the peer sends *size* bytes with the flags of *version*
    CLOSE = 5  # the inside host resets
    EXPECT = 6  # *at* names the service that is expected at the link's listener from now on
    TIME = 7  # so many seconds pass
    UNWATCHED = 8  # the rules were away for a while
    INSIDE = 9  # the inside host sends *size* bytes
    CUT = 10  # the peer sends, and the queue hands out only the beginning
    STRAY = 11  # a packet of no connection, from the peer or (odd) from the inside


class Link:
    """One peer's port and a listener. *isn*: of the connection that the inside host has, or None."""

    def __init__(self, number: int) -> None:
        self.peer = Endpoint("203.0.113.20", 40000 + number)
        self.here = LISTENERS[number % 2]
        self.called: int | None = None
        self.isn: int | None = None
        self.last = 1000
        self.own = 7000
        self.places: dict[int, int] = {}
        self.released = False

    @property
    def received(self) -> bytes:
        return bytes(self.places[at] for at in takewhile(self.places.__contains__, count()))

    def hangs_up(self) -> None:
        self.called = self.isn = None
        self.places.clear()
        self.released = False


class Peers:
    """One execution."""

    def __init__(self, data: bytes) -> None:
        self.house, self.counters = FakeGatehouse(), Counters()
        self.now = 1000.0
        self.lenient_until = self.now + LIMITS.lenient if data[:1] > b"\x7f" else 0.0
        self.gate = PeerGate(self.house, self.counters, self.lenient_until - LIMITS.lenient, LIMITS)
        self.links = [Link(number) for number in range(4)]
        self.ever: dict[Endpoint, set[Greeting]] = {here: set() for here in LISTENERS}
        self.expect(LISTENERS[0], 0)
        self.expect(LISTENERS[1], 1)
        self.data = data[1:]

    def run(self) -> None:
        for at in range(0, len(self.data) - SIZE + 1, SIZE):
            kind, link, high, low, size, version = self.data[at : at + SIZE]
            self.step(Kind(kind % len(Kind)), self.links[link & 3], high << 8 | low, size, version)
            self.bounded()

    def step(self, kind: Kind, link: Link, at: int, size: int, version: int) -> None:
        here = link.here
        if kind in (Kind.PEER, Kind.LOST, Kind.FLAGS, Kind.CUT):
            flags = version if kind is Kind.FLAGS else PSH_ACK
            place = at % 512 - 16
            data = VERSIONS[version % len(VERSIONS)][max(place, 0) :][:size]
            self.outside(link, place, data, flags & ~SYN, kind)
        elif kind is Kind.CALL:
            link.last = at
            raw = packet(link.peer, here, at, 0, SYN | (URG if version == 1 else 0), VERSIONS[0][:size])
            verdict = self.process(raw, link)
            if verdict.accept:
                assert len(verdict.payload or raw) == 40, "data on a SYN has passed"
                if link.isn is None:
                    link.called = at
        elif kind is Kind.ANSWER:
            self.answer(link, b"")
        elif kind is Kind.INSIDE:
            self.answer(link, bytes(size))
        elif kind is Kind.CLOSE:
            self.process(packet(here, link.peer, link.own + 1, 0, RST), link)
            link.hangs_up()
        elif kind is Kind.EXPECT:
            self.expect(here, at)
        elif kind is Kind.TIME:
            self.now += at
            self.gate.expire(self.now)
        elif kind is Kind.UNWATCHED:
            self.gate.unwatched(self.now)
            self.lenient_until = self.now + LIMITS.lenient
        else:
            other = Endpoint("10.0.0.8", at)
            ends = (link.peer, other) if size % 2 else (other, link.peer)
            raw = packet(*ends, at, at, version, bytes(size))
            self.judge(self.gate.process(raw[: 20 + version] if size > 250 else raw, self.now), raw, None)

    def expect(self, here: Endpoint, number: int) -> None:
        self.house.expecting[here] = greetings(SERVICES[number % len(SERVICES)], COOKIE)
        self.ever[here] |= set(self.house.expecting[here])

    def outside(self, link: Link, at: int, data: bytes, flags: int, kind: Kind) -> None:
        if link.released:
            return  # it does not come to the queue any more
        base = link.isn if link.isn is not None else link.last
        raw = packet(link.peer, link.here, (base + 1 + at) & 0xFFFFFFFF, link.own + 1, flags, data)
        given = raw[: 30 + len(raw) // 2] if kind is Kind.CUT else raw
        verdict = self.process(given, link)
        if not verdict.accept or kind in (Kind.LOST, Kind.CUT) or link.isn is None:
            return
        out = Segment.parse(verdict.payload or raw)
        assert out is not None
        place = near(out.seq - link.isn - 1, 0)
        if out.flags & RST:
            if place == len(link.received):
                link.hangs_up()
            return
        if not out.flags & ACK:
            return  # RFC 9293: such a segment is dropped
        assert not out.flags & URG or self.now < self.lenient_until, "urgent data has passed"
        for index, byte in enumerate(out.raw[out.start :]):
            if place + index >= 0:
                link.places.setdefault(place + index, byte)

    def answer(self, link: Link, data: bytes) -> None:
        """The inside host says what it has to."""
        if link.released:
            return
        if link.isn is None and link.called is not None:
            raw = packet(link.here, link.peer, link.own, (link.called + 1) & 0xFFFFFFFF, SYN | ACK)
            if self.process(raw, link).accept:
                link.isn, link.called = link.called, None
            return
        if link.isn is not None:
            ack = (link.isn + 1 + len(link.received)) & 0xFFFFFFFF
            self.process(packet(link.here, link.peer, link.own + 1, ack, PSH_ACK, data), link)

    def process(self, raw: bytes, link: Link) -> Verdict:
        verdict = self.gate.process(raw, self.now)
        self.judge(verdict, raw, link)
        return verdict

    def judge(self, verdict: Verdict, raw: bytes, link: Link | None) -> None:
        assert isinstance(verdict, Verdict)
        if verdict.payload is not None:
            assert verdict.accept
            assert verdict.payload != raw
            out = Segment.parse(verdict.payload)
            assert out is not None
            assert not checksum_error(out.raw), "the checksum of what the gate makes"
            assert out.raw[12:20] == raw[12:20]
            assert out.start == len(out.raw), "the gate made up data"
            assert out.flags & RST or out.flags & SYN
        if verdict.release:
            assert verdict.accept
            if self.now >= self.lenient_until:  # before, what was established while nobody looked goes on
                assert link is not None, "a stray packet released something"
                assert match(link.received, self.ever[link.here]), "released before its greeting was right"
            if link is not None:
                assert raw[12:16] == bytes(map(int, link.here.address.split("."))), "released by its peer"
                link.released = True

    def bounded(self) -> None:
        gate = self.gate
        assert len(gate._waiting) <= LIMITS.waiting
        assert len(gate._others) <= LIMITS.others
        assert not gate._waiting.keys() & gate._others.keys(), "one connection is remembered twice"
        longest = max([length(one) for some in self.ever.values() for one in some], default=0)
        for table in (gate._waiting, gate._others):
            assert all(len(one.read) <= longest for one in table.values()), "more than a greeting is kept"


def made(kind: Kind, link: int = 0, at: int = 0, size: int = 0, version: int = 0) -> bytes:
    return bytes([kind, link, at >> 8 & 255, at & 255, size, version])


def seeds() -> list[bytes]:
    """Connections that are verified, refused, cut, repeated, forgotten."""
    found = []
    for version in range(len(VERSIONS)):
        for size in (255, 30, 7):
            for link in (0, 1):
                out = [made(Kind.CALL, link, 500), made(Kind.ANSWER, link)]
                for at in range(0, 90, size):
                    out += [made(Kind.PEER, link, at + 16, size, version), made(Kind.ANSWER, link)]
                found.append(b"\0" + b"".join(out))
    several = [made(Kind.CALL, link, 900 + link) + made(Kind.ANSWER, link) for link in (0, 1, 2, 3, 0)]
    found.append(b"\0" + b"".join(several))
    found.append(b"\xff" + b"".join(several[:2]) + made(Kind.TIME, 0, 200) + b"".join(several))
    found.append(b"\0" + b"".join(several[:2]) + made(Kind.EXPECT, 0, 3) + made(Kind.CLOSE) + several[0])
    found.append(b"\0" + several[0] + made(Kind.FLAGS, 0, 16, 20, FIN | ACK | URG) + made(Kind.UNWATCHED))
    found.append(b"\0" + several[0] + made(Kind.STRAY, 0, 7, 3, ACK) + made(Kind.LOST, 0, 16, 80, 0))
    return found


def mutated(data: bytes, limit: int, rng: random.Random) -> bytes:
    """*data* with steps changed, inserted, removed or repeated."""
    steps = [data[at : at + SIZE] for at in range(1, len(data) - SIZE + 1, SIZE)]
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randint(0, len(steps))
        what = rng.random()
        if what < 0.35 or not steps:
            place = rng.choice((16, 16, 15, 17, 18, 24, 36, 46, 500, 501, 900, rng.randrange(1 << 16)))
            size = rng.choice((0, 1, 2, 7, 30, 76, 255))
            step = made(Kind(rng.randrange(len(Kind))), rng.randrange(4), place, size, rng.randrange(256))
            steps.insert(at, step)
        elif what < 0.5:
            del steps[at : at + rng.choice((1, 1, 3))]
        elif what < 0.65:
            steps[at:at] = steps[max(0, at - rng.choice((1, 2, 4))) : at]
        else:
            damaged = bytearray(steps[at % len(steps)])
            place = rng.randrange(SIZE)
            damaged[place] = rng.choice((damaged[place] ^ 1, damaged[place] + 1 & 255, rng.randrange(256)))
            steps[at % len(steps)] = bytes(damaged)
    head = data[:1] if rng.random() < 0.95 else rng.randbytes(1)
    return (head + b"".join(steps))[:limit]
