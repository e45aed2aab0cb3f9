"""The peer gate and strangers: nobody's tables fill to the harm of a peer who says what he has to."""

from __future__ import annotations

from collections import Counter

import pytest

from nfreaim.core.address import Endpoint, FlowId, key_of, reverse
from nfreaim.core.firewall.waiting import GateLimits
from nfreaim.core.tcp.segment import ACK, FIN, RST, SYN
from nfreaim.core.verdict import ACCEPT, DROP, Verdict
from nfreaim.helpers.oscar.peer_greetings import greetings
from tests.tcp.packets import PSH_ACK, packet
from tests.unit.peer_link import COOKIE, LISTENER, PEER, Gate, Link, odc

OTHER = Endpoint("10.0.0.6", 4443)
ISN, INSIDE_ISN = 500, 7000


class Stranger:
    """Somebody outside, packet by packet; the rules let his bare SYN and ACK pass the gate unseen."""

    def __init__(self, gate: Gate, peer: Endpoint, inside: Endpoint = LISTENER) -> None:
        self.gate, self.peer, self.inside = gate, peer, inside

    def process(self, *made: object) -> Verdict:
        return self.gate.gate.process(packet(*made), self.gate.now)  # type: ignore[arg-type]

    def called(self, isn: int = ISN) -> Stranger:
        """Half open: the inside host has answered."""
        answer = self.process(self.inside, self.peer, INSIDE_ISN, isn + 1, SYN | ACK)
        assert answer == ACCEPT
        return self

    def silent(self) -> Stranger:
        """Established, as connection tracking announces it."""
        self.called()
        self.gate.gate.completed(self.peer, self.inside, self.gate.now)
        return self

    def says(self, data: bytes, at: int = 0, ack: int = INSIDE_ISN + 1) -> Verdict:
        return self.process(self.peer, self.inside, ISN + 1 + at, ack, PSH_ACK, data)

    def gets_in(self, data: bytes = odc()) -> bool:
        verdict = self.says(data)
        answer = self.process(self.inside, self.peer, INSIDE_ISN + 1, ISN + 1 + len(data), ACK)
        return verdict == ACCEPT and answer.release

    def resets(self) -> int:
        return resets(self.gate, self)[0]


def hosts(count: int, ports: int, base: int = 0) -> list[Endpoint]:
    return [
        Endpoint(f"198.51.100.{base + one}", 2000 + port) for port in range(ports) for one in range(count)
    ]


def resets(gate: Gate, *strangers: Stranger) -> list[int]:
    """How many resets were sent for each of *strangers*, to either end."""
    sent = Counter(key for key, _, _ in gate.house.resets)
    keys = [key_of(FlowId(one.peer, one.inside)) for one in strangers]
    return [sent[key] + sent[reverse(key)] for key in keys]


def opened() -> Gate:
    gate = Gate()
    gate.expect("direct-im", COOKIE, OTHER)
    return gate


def test_syns_alone_count_for_nothing_however_many_and_from_wherever() -> None:
    gate = Gate(GateLimits(answered=1000))
    gate.expect("direct-im", COOKIE, OTHER)
    for number in range(3000):
        Stranger(gate, Endpoint(f"192.0.{number >> 8 & 255}.{number & 255}", 1024)).called()
    assert len(gate.gate) <= 1000
    assert gate.counters.evicted_half_open > 0
    for inside in (LISTENER, OTHER):
        real = Stranger(gate, PEER, inside).called()
        assert real.gets_in()
    assert not gate.house.resets


def test_peer_who_has_answered_is_not_forgotten_for_half_open_ones() -> None:
    gate = Gate(GateLimits(answered=100))
    real = Stranger(gate, PEER).silent()
    for peer in hosts(200, 10):
        Stranger(gate, peer).called()
    assert real.gets_in()


def test_half_open_connection_is_forgotten_before_the_peer_of_another_host() -> None:
    gate = Gate(GateLimits(answered=100))
    real = Stranger(gate, PEER).called()
    for peer in hosts(40, 1):
        Stranger(gate, peer).called()
    assert real.gets_in(), "the latest half of the bound is always remembered"


@pytest.mark.parametrize("first", [b"", b"O", odc()[:19]])
@pytest.mark.parametrize("ports", [2, 3, 130])
def test_silent_strangers_from_31_addresses_shut_nobody_out(ports: int, first: bytes) -> None:
    gate = opened()
    early = Stranger(gate, PEER).silent()
    for peer in hosts(31, ports):
        stranger = Stranger(gate, peer).silent()
        if first:
            assert stranger.says(first) == ACCEPT
    late = Stranger(gate, PEER._replace(port=50000)).silent()
    assert early.gets_in()
    assert late.gets_in()
    assert Stranger(gate, PEER, OTHER).silent().gets_in()
    assert not early.resets()
    assert not late.resets()
    assert len(gate.gate) <= 4096 + 64 + 3


def test_one_source_with_every_port_holds_no_more_than_its_share() -> None:
    gate = opened()
    ones = [Stranger(gate, peer).silent() for peer in hosts(1, 4096)]
    assert gate.counters.peers_gave_way == 4096 - 16
    assert resets(gate, *ones) == [2] * (4096 - 16) + [0] * 16, "reset at both ends, not only forgotten"
    assert Stranger(gate, PEER).silent().gets_in()


def test_what_gives_way_is_reset_with_the_numbers_that_both_ends_expect() -> None:
    gate = Gate(GateLimits(per_peer=1))
    first = Stranger(gate, PEER).silent()
    prompt = first.process(LISTENER, PEER, INSIDE_ISN + 1, ISN + 1, PSH_ACK, b"prompt")
    assert prompt == ACCEPT
    assert first.says(b"OD") == ACCEPT
    assert first.process(LISTENER, PEER, INSIDE_ISN + 7, ISN + 3, ACK) == ACCEPT
    Stranger(gate, PEER._replace(port=1)).silent()
    (inside, seq, _), (outside, number, _) = gate.house.resets
    assert (inside, seq) == (reverse(outside), ISN + 3)
    assert number == INSIDE_ISN + 7
    assert [reason for _, reason in gate.house.bad] == ["gave way: too many connections wait"]
    assert first.says(b"C2", 2).payload is not None, "reset again"


def test_accomplice_of_a_lan_host_takes_room_of_that_host_only() -> None:
    """Many pinholes of one host, filled from many addresses; another host has one peer."""
    gate = Gate(GateLimits(waiting=500))
    ports = [Endpoint("10.0.0.6", port) for port in range(5000, 5032)]
    for inside in ports:
        gate.expect("direct-im", COOKIE, inside)
    real = Stranger(gate, PEER).silent()
    for inside in ports:
        for peer in hosts(60, 1):
            Stranger(gate, peer, inside).silent()
    assert gate.counters.peers_gave_way == 32 * 60 + 1 - 500
    assert real.gets_in()
    assert Stranger(gate, PEER._replace(port=2)).silent().gets_in()


def test_closing_the_last_pinhole_of_an_endpoint_leaves_nothing_of_it() -> None:
    gate = opened()
    waiting = [Stranger(gate, peer).silent() for peer in hosts(5, 2)]
    half = Stranger(gate, Endpoint("198.51.100.77", 1)).called()
    other = Stranger(gate, PEER, OTHER).silent()
    del gate.house.expecting[LISTENER]
    gate.gate.closed(LISTENER)
    assert [one.resets() for one in waiting] == [2] * 10
    assert other.gets_in()
    assert half.says(odc()).payload is not None, "a reset instead of the data"
    late = Stranger(gate, Endpoint("198.51.100.78", 1))
    assert late.process(LISTENER, late.peer, 9, 9, SYN | ACK) == DROP, "it was not complete, and shall not be"


def test_completed_after_the_closing_is_reset() -> None:
    gate = opened()
    half = Stranger(gate, PEER).called()
    gate.house.expecting.clear()
    gate.gate.completed(PEER, LISTENER, gate.now)
    assert half.resets() == 2


def test_silence_ends_after_seconds_once_another_one_waits_and_not_before() -> None:
    gate = opened()
    stranger = Stranger(gate, Endpoint("198.51.100.1", 1)).silent()
    gate.now += 600
    gate.gate.expire(gate.now)
    assert not stranger.resets(), "a peer may be slow, if he takes nobody's place"
    real = Stranger(gate, PEER).silent()
    gate.gate.expire(gate.now)
    assert stranger.resets() == 2
    gate.now += 600
    gate.gate.expire(gate.now)
    assert not real.resets()
    assert real.gets_in()


def test_silence_at_one_endpoint_is_nothing_to_another() -> None:
    gate = opened()
    one, two = Stranger(gate, PEER).silent(), Stranger(gate, PEER, OTHER).silent()
    gate.now += 60
    gate.gate.expire(gate.now)
    assert not gate.house.resets
    assert one.gets_in()
    assert two.gets_in()


def test_peer_that_has_hung_up_without_a_word_takes_no_place() -> None:
    gate = opened()
    stranger = Stranger(gate, PEER).silent()
    assert stranger.process(PEER, LISTENER, ISN + 1, INSIDE_ISN + 1, FIN | ACK) == ACCEPT
    gate.now += 6
    gate.gate.expire(gate.now)
    assert stranger.resets() == 2


def test_peer_speaks_before_connection_tracking_announces_him() -> None:
    gate = opened()
    real = Stranger(gate, PEER).called()
    assert real.gets_in()
    gate.gate.completed(PEER, LISTENER, gate.now)  # late
    assert gate.counters.peers_verified == 1
    assert len(gate.gate) == 1


@pytest.mark.parametrize("ack", [0, INSIDE_ISN, INSIDE_ISN + 1 - 2**31, INSIDE_ISN + (1 << 20) + 1])
def test_forged_data_without_the_number_of_the_answer_count_for_nothing(ack: int) -> None:
    gate = opened()
    Stranger(gate, PEER).called().says(b"GET / HTTP/1.1", ack=ack & 0xFFFFFFFF)
    assert not gate.house.bad
    assert Stranger(gate, PEER).gets_in(), "the real peer's words are read"


def test_host_that_answers_with_cookies_has_another_connection_in_mind() -> None:
    """Two SYNs of one port, 20 bytes apart; the stranger completes the first after the second was answered.

    The greeting that the gate reads is 20 bytes that the host has already, in its own count. It acknowledges
    them nevertheless, but with the number of the other SYN/ACK.
    """
    gate = opened()
    far = Stranger(gate, PEER)
    assert far.process(LISTENER, PEER, INSIDE_ISN + 20, ISN + 21, SYN | ACK) == ACCEPT
    assert far.process(LISTENER, PEER, INSIDE_ISN, ISN + 1, SYN | ACK) == ACCEPT
    assert far.says(odc()[:20], ack=INSIDE_ISN + 21) == ACCEPT
    answer = far.process(LISTENER, PEER, INSIDE_ISN + 21, ISN + 21, ACK)
    assert not answer.release
    assert far.process(PEER, LISTENER, ISN + 1 - 20, INSIDE_ISN + 1, ACK, bytes(20)) == DROP


def test_prompt_of_the_inside_host_completes_a_connection_that_was_not_announced() -> None:
    gate = Gate()
    gate.house.expecting[LISTENER] = greetings("direct-im", COOKIE)
    real = Stranger(gate, PEER).called()
    assert real.process(LISTENER, PEER, INSIDE_ISN + 1, ISN + 1, ACK) == ACCEPT  # may answer anything
    assert real.process(LISTENER, PEER, INSIDE_ISN + 1, ISN + 1, PSH_ACK, bytes(256)) == ACCEPT
    assert real.says(odc(), ack=INSIDE_ISN + 257) == ACCEPT
    assert real.process(LISTENER, PEER, INSIDE_ISN + 257, ISN + 77, ACK).release


def test_flood_ends_the_time_in_which_unknown_connections_pass() -> None:
    """Else a stranger could have his own connection forgotten, and then say what he likes."""
    gate = Gate(GateLimits(answered=4), started=990.0)
    stranger = Stranger(gate, PEER).called()
    for peer in hosts(9, 1):
        Stranger(gate, peer).called()
    assert stranger.says(b"GET / HTTP/1.1").payload is not None
    assert not stranger.process(LISTENER, PEER, INSIDE_ISN + 1, ISN + 1, PSH_ACK, b"x").release


def test_repeated_syns_and_answers_change_nothing() -> None:
    gate = Gate(GateLimits(answered=6))
    link = Link(gate).handshake()
    for _ in range(50):
        assert link.outside(-1, flags=SYN, ack=False) == ACCEPT
        assert link.inside(SYN | ACK) == ACCEPT
    assert gate.counters.evicted_half_open == 0
    link.outside(0, odc())
    assert link.released


def test_reset_of_the_peer_makes_room_and_the_inside_hosts_too() -> None:
    gate = Gate(GateLimits(per_endpoint=1))
    for port, ender in ((1, PEER), (2, LISTENER)):
        peer = PEER._replace(port=port)
        one = Stranger(gate, peer).silent()
        ends = (peer, LISTENER) if ender is PEER else (LISTENER, peer)
        assert one.process(*ends, ISN + 1, INSIDE_ISN + 1, RST | ACK) == ACCEPT
    assert not gate.house.resets
    assert Stranger(gate, PEER).silent().gets_in()
