"""Custody: what a sender is told has arrived, and that it does. Random conversations: tests/property."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from nfreaim.core.address import Endpoint
from nfreaim.core.flow_table import FlowLimits
from nfreaim.core.settings import EngineSettings
from nfreaim.core.tcp.segment import ACK, FIN, RST, SYN
from nfreaim.core.verdict import Verdict
from tests.tcp.packets import Packet, mss, near, packet
from tests.unit.fakes import CLIENT, Router, Wire
from tests.unit.offers import EDITED, FIRST, PROPOSAL

CUT = FIRST + 3  # within the address
HELD = FIRST  # the first byte that an edit concerns
SETTINGS = EngineSettings(hold=1.0, patience=0.01)


class Waiting(Wire):
    """A client with Nagle's algorithm, whose server acknowledges what it is asked to."""

    def __init__(self, router: Router | None = None, client: Endpoint = CLIENT) -> None:
        super().__init__(router or Router(SETTINGS), client)

    def judge(self, raw: bytes, verdict: Verdict) -> None:
        """Segments are cut and joined here."""
        if verdict.accept:
            self.arrive(Packet(verdict.payload or raw))

    def handshake(self) -> Waiting:
        syn = packet(self.ends[0], self.ends[1], self.isn[0], 0, SYN, tcp_options=mss(1460))
        answer = packet(
            self.ends[1], self.ends[0], self.isn[1], self.isn[0] + 1, SYN | ACK, tcp_options=mss(1460)
        )
        self.router.process(self, syn, True)
        self.router.process(self, answer, False)
        self.inject(0, 0, flags=ACK)
        return self

    def begin(self) -> int:
        """The client sends the beginning of a proposal, and 10 ms pass; where the proposal begins."""
        self.sign_on()
        at = len(self.sent[0])
        self.client(PROPOSAL[:CUT])
        self.router.wait(0.01)
        return at

    def answer(self, at: int, window: int = 1000, flags: int = ACK, seq: int | None = None) -> Packet | None:
        """The server acknowledges what stands before offset *at*; what the client gets."""
        seq = len(self.sent[1]) if seq is None else seq
        raw = packet(
            self.ends[1],
            self.ends[0],
            self.isn[1] + 1 + seq,
            self.isn[0] + 1 + at,
            flags,
            window=window,
        )
        (verdict,) = self.router.process(self, raw, False).values()
        return Packet(verdict.payload or raw) if verdict.accept else None

    def acked(self, got: Packet | None) -> int:
        """The offset that *got* acknowledges to the client."""
        assert got is not None
        return near(got.ack - self.isn[0] - 1, 0)

    def own(self) -> list[tuple[int, bytes]]:
        """Packets of the daemon's own since the last call: offset and payload."""
        sent = [Packet(raw) for raw in self.router.kernel.sent]
        self.router.kernel.sent.clear()
        return [(near(each.seq - self.isn[0] - 1, 0), each.payload) for each in sent]

    @property
    def protected(self) -> dict[str, Any] | None:
        return self.router.kernel.protected.get(self.stored.key)


@pytest.fixture
def wire() -> Waiting:
    return Waiting()


def test_beginning_leaves_without_the_held_bytes_and_its_ack_becomes_theirs(wire: Waiting) -> None:
    at = wire.begin()
    assert wire.c2s[at:] == PROPOSAL[:HELD]
    assert not wire.router.open_tokens
    assert wire.protected is None
    got = wire.answer(at + HELD)
    assert wire.acked(got) == at + CUT
    assert got is not None
    assert got.window == 1000 - (CUT - HELD)
    assert wire.protected is not None
    wire.client(PROPOSAL[CUT:])
    assert wire.c2s[at:] == EDITED
    assert wire.acked(wire.answer(len(wire.sent[0]))) == len(wire.sent[0])
    assert wire.protected is None
    assert not wire.stored.skewed
    assert not wire.own()


def test_nothing_is_told_before_the_receiver_has_all_before_it(wire: Waiting) -> None:
    at = wire.begin()
    assert wire.acked(wire.answer(at + HELD - 1)) == at + HELD - 1
    assert wire.protected is None


def test_nothing_is_told_without_a_record(wire: Waiting) -> None:
    at = wire.begin()
    wire.router.kernel.broken = True
    assert wire.acked(wire.answer(at + HELD)) == at + HELD


def test_window_that_has_no_room_behind_the_held_bytes_is_left_alone(wire: Waiting) -> None:
    at = wire.begin()
    assert wire.acked(wire.answer(at + HELD, window=CUT - HELD)) == at + HELD


def test_what_the_sender_repeats_is_asked_for_once_more(wire: Waiting) -> None:
    at = wire.begin()
    (verdict,) = wire.inject(0, at, PROPOSAL[:CUT]).values()
    assert verdict.payload is not None
    assert Packet(verdict.payload).payload == PROPOSAL[:HELD]
    (verdict,) = wire.inject(0, at + HELD, PROPOSAL[HELD:CUT]).values()
    assert verdict.payload is not None
    asking = Packet(verdict.payload)
    assert (asking.payload, near(asking.seq - wire.isn[0] - 1, 0)) == (b"", at + HELD - 1)


def test_rest_carries_the_bytes_until_the_receiver_has_them(wire: Waiting) -> None:
    at = wire.begin()
    wire.answer(at + HELD)
    wire.client(PROPOSAL[CUT:])
    (verdict,) = wire.inject(0, at + CUT, PROPOSAL[CUT:]).values()  # it was lost, and comes again
    assert verdict.payload is not None
    assert Packet(verdict.payload).payload == EDITED[HELD:]
    wire.answer(len(wire.sent[0]))
    (verdict,) = wire.inject(0, at + CUT, PROPOSAL[CUT:]).values()
    assert Packet(verdict.payload or wire.raw(0, at + CUT, PROPOSAL[CUT:])).payload == EDITED[CUT:]


def test_rest_that_does_not_come_lets_the_bytes_leave_as_they_came_until_they_arrive(wire: Waiting) -> None:
    at = wire.begin()
    wire.answer(at + HELD)
    times = []
    for _ in range(1200):
        wire.router.wait(0.1)
        for place, payload in wire.own():
            assert (place, payload) == (at + HELD, PROPOSAL[HELD:CUT])
            times.append(wire.router.now - 1000.0)
    pauses = [later - sooner for sooner, later in pairwise(times)]
    assert pauses == pytest.approx([0.5, 1, 2, 4, 8, 16, 30, 30], abs=0.15)
    wire.answer(at + CUT)
    assert wire.protected is None
    wire.router.wait(60.0)
    assert not wire.own()
    assert wire.router.engine.wakeup() is None


def test_own_packets_come_to_an_end(wire: Waiting) -> None:
    at = wire.begin()
    wire.answer(at + HELD)
    count = 0
    for _ in range(1000):
        wire.router.wait(1.0)
        count += len(wire.own())
    assert count == 12


@pytest.mark.parametrize("way", [0, 1])
def test_reset_in_its_place_ends_them_and_a_blind_one_does_not(wire: Waiting, way: int) -> None:
    at = wire.begin()
    wire.answer(at + HELD)
    wire.inject(way, len(wire.sent[way]) + 7, flags=RST)
    wire.router.wait(1.0)
    assert wire.own()
    wire.inject(way, len(wire.sent[way]), flags=RST)
    wire.router.wait(1.0)
    wire.router.wait(60.0)
    assert not wire.own()


def test_reset_that_answers_what_the_sender_was_told_stands_where_the_receiver_is(wire: Waiting) -> None:
    at = wire.begin()
    wire.answer(at + HELD)
    (verdict,) = wire.inject(0, at + CUT, flags=RST).values()
    assert verdict.payload is not None
    assert near(Packet(verdict.payload).seq - wire.isn[0] - 1, 0) == at + HELD


def test_fin_carries_the_bytes(wire: Waiting) -> None:
    at = wire.begin()
    wire.answer(at + HELD)
    (verdict,) = wire.inject(0, at + CUT, flags=FIN | ACK).values()
    assert verdict.payload is not None
    fin = Packet(verdict.payload)
    assert (fin.payload, fin.flags & FIN) == (PROPOSAL[HELD:CUT], FIN)


def test_next_daemon_sends_what_the_sender_was_told(wire: Waiting) -> None:
    at = wire.begin()
    wire.answer(at + HELD)
    record = wire.protected
    assert record is not None
    later = Router(SETTINGS)
    later.engine.restore(record, later.now)
    later.wait(0.0)
    (raw,) = later.kernel.sent
    sent = Packet(raw)
    assert (near(sent.seq - wire.isn[0] - 1, 0), sent.payload) == (at + HELD, PROPOSAL[HELD:CUT])


def test_daemon_that_stops_sends_them(wire: Waiting) -> None:
    at = wire.begin()
    wire.answer(at + HELD)
    wire.router.shutdown()
    assert wire.own() == [(at + HELD, PROPOSAL[HELD:CUT])]


def test_at_most_eight_of_one_client_and_the_others_are_held_as_they_are() -> None:
    router = Router(SETTINGS)
    wires = [Waiting(router, Endpoint(CLIENT.address, 40000 + number)) for number in range(10)]
    for each in wires:
        each.sign_on()
        each.client(PROPOSAL[:CUT])
    router.wait(0.01)
    assert router.engine.counters.custodies == 8
    assert len(router.open_tokens) == 2
    another = Waiting(router, Endpoint("10.0.0.6", 40123))
    another.begin()
    assert router.engine.counters.custodies == 9
    router.wait(1.0)
    assert not router.open_tokens


def test_flow_that_may_not_fail_closed_is_held_as_it_is() -> None:
    wire = Waiting(Router(replace(SETTINGS, limits=FlowLimits(skewed_per_host=0))))
    wire.begin()
    assert wire.router.open_tokens
    assert wire.router.engine.counters.custodies == 0


def test_segment_that_would_not_fit_is_cut_and_its_sender_repeats_the_rest(wire: Waiting) -> None:
    at = wire.begin()
    wire.answer(at + HELD)
    rest = PROPOSAL[CUT:] + b"text " + b"a" * 1180 + b"\n"
    wire.client(rest)
    assert len(wire.c2s) == at + HELD + len(rest)
    wire.answer(len(wire.c2s))
    wire.inject(0, at + CUT, rest)
    assert wire.c2s[at:] == EDITED + rest[len(PROPOSAL) - CUT :]
