"""A connection from a peer outside to a listening inside host, through a gate, packet by packet.

The inside host is a small TCP receiver: it keeps the first bytes that come for each place and acknowledges
what is whole. A packet may get lost on its way there from the gate.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.counters import Counters
from nfreaim.core.firewall.peer_gate import PeerGate
from nfreaim.core.firewall.waiting import GateLimits
from nfreaim.core.greeting import Greeting
from nfreaim.core.tcp.segment import ACK, FIN, RST, SYN, Segment
from nfreaim.core.verdict import Verdict
from nfreaim.helpers.oscar.peer_greetings import greetings
from tests.oscar.peer_headers import CONFIRM, odc_frame
from tests.tcp.packets import PSH_ACK, checksum_error, packet

PEER = Endpoint("203.0.113.20", 40123)
LISTENER = Endpoint("10.0.0.5", 5190)
COOKIE = b"3855154\0"


@dataclass
class FakeGatehouse:
    """Writes down what it is asked to do. Inside is 10.0.0.0/8."""

    expecting: dict[Endpoint, tuple[Greeting, ...]] = field(default_factory=dict)
    resets: list[tuple[bytes, int, int]] = field(default_factory=list)
    bad: list[tuple[FlowId, str]] = field(default_factory=list)
    claims: list[FlowId] = field(default_factory=list)

    def expected(self, inside: Endpoint) -> tuple[Greeting, ...]:
        return self.expecting.get(inside, ())

    def is_inside_host(self, address: str) -> bool:
        return address.startswith("10.")

    def reset(self, key: bytes, seq: int, ack: int) -> None:
        self.resets.append((key, seq & 0xFFFFFFFF, ack & 0xFFFFFFFF))

    def refused(self, connection: FlowId, reason: str) -> None:
        self.bad.append((connection, reason))

    def claimed(self, connection: FlowId, now: float) -> None:
        self.claims.append(connection)


class Gate:
    """A gate with its surroundings; unless told otherwise its start is long ago."""

    def __init__(self, limits: GateLimits | None = None, started: float = 0.0) -> None:
        self.house = FakeGatehouse()
        self.counters = Counters()
        self.gate = PeerGate(self.house, self.counters, started, limits)
        self.now = 1000.0
        self.expect("direct-im", COOKIE)

    def expect(self, service: str, cookie: bytes | None = None, inside: Endpoint = LISTENER) -> None:
        self.house.expecting[inside] = greetings(service, cookie)


class Link:
    """One connection. `received` is what the inside host's application has read."""

    def __init__(self, gate: Gate | None = None, port: int = PEER.port, isn: int = 2**32 - 5) -> None:
        self.world = gate or Gate()
        self.peer = Endpoint(PEER.address, port)
        self.isn, self.inside_isn = isn, 7000
        self.places: dict[int, int] = {}
        self.reset_inside = self.released = False

    @property
    def received(self) -> bytes:
        whole = bytearray()
        while len(whole) in self.places:
            whole.append(self.places[len(whole)])
        return bytes(whole)

    def outside(
        self, at: int, data: bytes = b"", flags: int = PSH_ACK, lost: bool = False, ack: bool = True
    ) -> Verdict:
        """The peer sends *data* at stream offset *at*; it may be *lost* behind the gate. Then the inside
        host acknowledges."""
        raw = packet(self.peer, LISTENER, self.isn + 1 + at & 0xFFFFFFFF, self.inside_isn + 1, flags, data)
        verdict = self.world.gate.process(raw, self.world.now)
        self.released |= verdict.release
        if verdict.accept and not lost:
            self._arrive(raw if verdict.payload is None else verdict.payload, data)
        if ack and verdict.accept and not self.reset_inside:
            self.inside()
        return verdict

    def _arrive(self, raw: bytes, sent: bytes) -> None:
        segment = Segment.parse(raw)
        assert segment is not None
        assert checksum_error(raw) == 0
        if segment.flags & RST:
            # RFC 5961: only exactly where the next byte is expected.
            self.reset_inside = segment.seq == (self.isn + 1 + len(self.received)) & 0xFFFFFFFF
            return
        at = (segment.seq - self.isn - 1 + 2**31 & 0xFFFFFFFF) - 2**31
        for index, byte in enumerate(raw[segment.start :]):
            if at + index >= 0:
                self.places.setdefault(at + index, byte)

    def inside(self, flags: int = ACK, data: bytes = b"") -> Verdict:
        """The inside host sends; it acknowledges what it has."""
        number = self.isn + 1 + len(self.received) & 0xFFFFFFFF
        seq = self.inside_isn + (0 if flags & SYN else 1)
        verdict = self.world.gate.process(
            packet(LISTENER, self.peer, seq, number, flags, data), self.world.now
        )
        self.released |= verdict.release
        return verdict

    def handshake(self) -> Link:
        assert self.outside(-1, flags=SYN, ack=False).accept
        assert self.inside(SYN | ACK).accept
        assert self.outside(0, flags=ACK).accept
        return self

    def fin(self, at: int) -> Verdict:
        return self.outside(at, flags=FIN | ACK)


def odc(cookie: bytes = COOKIE) -> bytes:
    """The first frame of a direct IM."""
    return odc_frame(cookie, flags=CONFIRM)
