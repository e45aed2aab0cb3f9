"""The peer gate: what must not reach the inside host, and what must not be refused."""

from __future__ import annotations

import pytest

from nfreaim.core.address import FlowId, reverse
from nfreaim.core.firewall.waiting import GateLimits
from nfreaim.core.tcp.segment import ACK, FIN, RST, SYN, URG, Segment
from nfreaim.core.verdict import ACCEPT, DROP
from nfreaim.helpers.oscar.peer_greetings import Party, greetings
from tests.oscar.peer_headers import oft
from tests.tcp.packets import PSH_ACK, packet
from tests.unit.peer_link import COOKIE, LISTENER, PEER, Gate, Link, odc

HTTP = b"GET / HTTP/1.1\r\nHost: 203.0.113.1:5190\r\n\r\n"
TLS = bytes.fromhex("16030100f8010000f40303") + bytes(40)


def test_greeting_that_was_promised_is_released_when_it_has_arrived() -> None:
    link = Link().handshake()
    assert link.outside(0, odc(), ack=False) == ACCEPT
    assert not link.released
    assert link.inside().release
    assert link.outside(76, b"more") == ACCEPT
    assert link.inside().release
    assert link.world.counters.peers_verified == 1
    assert link.received == odc() + b"more"


def test_connection_that_ends_as_it_is_released_claims_its_pinhole() -> None:
    """Connection tracking announces none of these as one that was just established."""
    by_host, by_peer, none = Link(port=1), Link(port=2), Link(port=3)
    for link in (by_host, by_peer, none):
        link.handshake()
        assert link.outside(0, odc(), ack=False) == ACCEPT
    assert by_host.inside(FIN | ACK).release
    assert by_peer.outside(76, flags=FIN | ACK, ack=False) == ACCEPT
    assert by_peer.inside().release
    assert none.inside().release
    assert by_host.world.house.claims == [FlowId(by_host.peer, LISTENER)]
    assert by_peer.world.house.claims == [FlowId(by_peer.peer, LISTENER)]
    assert none.world.house.claims == []


@pytest.mark.parametrize(
    "first", [HTTP, TLS, b"\0", b"SSH-2.0-x\r\n", b"ODC3", oft(0x0101), odc(b"3855155\0")]
)
def test_stranger_is_reset_at_both_ends_and_nothing_of_it_arrives(first: bytes) -> None:
    link = Link().handshake()
    verdict = link.outside(0, first)
    assert verdict.payload is not None
    assert link.reset_inside
    assert link.received == b""
    segment = Segment.parse(
        packet(PEER, LISTENER, link.isn + 1 & 0xFFFFFFFF, link.inside_isn + 1, ACK, first)
    )
    assert segment is not None
    back = (reverse(segment.key), link.inside_isn + 1, (link.isn + 1 + len(first)) & 0xFFFFFFFF)
    assert link.world.house.resets == [back]
    link.outside(0, first)
    link.outside(len(first), odc())
    assert link.received == b""
    assert not link.released
    assert len(link.world.house.resets) == 3
    assert [who for who, _ in link.world.house.bad] == [FlowId(PEER, LISTENER)]


def test_stranger_with_a_right_beginning_is_refused_at_its_first_wrong_byte() -> None:
    link = Link().handshake()
    for at, byte in enumerate(odc(b"3855x54\0")):
        link.outside(at, bytes([byte]))
        if link.reset_inside:
            break
    assert link.reset_inside
    assert link.received == odc()[:16]
    assert not link.released


def test_after_a_refusal_the_same_ports_may_try_again() -> None:
    """The client behind may have been a scanner's NAT: what counts is the connection."""
    gate = Gate()
    Link(gate).handshake().outside(0, HTTP)
    again = Link(gate, isn=5000).handshake()
    again.outside(0, odc())
    assert again.released


def test_released_ports_used_again_are_read_again() -> None:
    """A stray ACK first: connection tracking would let the SYN behind it join the entry that the ACK made."""
    gate = Gate()
    first = Link(gate).handshake()
    first.outside(0, odc())
    assert first.released
    assert first.outside(500, flags=ACK, ack=False) == ACCEPT
    assert first.inside(RST) == ACCEPT
    again = Link(gate).handshake()  # the very same numbers
    assert again.outside(0, HTTP).payload is not None
    assert not again.released


@pytest.mark.parametrize("cut", [1, 4, 8, 12, 19, 20, 75])
def test_greeting_in_pieces_passes_piece_by_piece(cut: int) -> None:
    link = Link().handshake()
    for at in range(0, 76, cut):
        assert link.outside(at, odc()[at : at + cut]).accept
    assert link.released
    assert link.received == odc()


def test_piece_behind_a_hole_does_not_pass_until_the_hole_is_filled() -> None:
    link = Link().handshake()
    assert link.outside(10, odc()[10:]) == DROP
    assert link.outside(0, odc()[:10]) == ACCEPT
    assert not link.released
    assert link.outside(10, odc()[10:]).accept
    assert link.released


def test_same_bytes_again_pass_and_other_bytes_for_the_same_place_never_do() -> None:
    link = Link().handshake()
    assert link.outside(0, odc()[:10], lost=True) == ACCEPT
    assert link.outside(0, HTTP[:10]) == DROP
    assert link.outside(0, odc()[:10]) == ACCEPT
    assert link.outside(5, HTTP) == DROP
    assert link.outside(5, odc()[5:]) == ACCEPT
    assert link.received == odc()


def test_greeting_that_never_arrived_cannot_be_replaced_by_something_else() -> None:
    """An old timestamp or a short time to live: it passes here and is lost behind."""
    link = Link().handshake()
    assert link.outside(0, odc(), lost=True) == ACCEPT
    assert not link.released
    assert link.outside(0, HTTP) == DROP
    assert link.outside(4, HTTP) == DROP
    assert link.outside(76, HTTP).accept  # behind a greeting that has to come yet
    assert link.received == b""
    assert not link.released
    link.outside(0, odc())
    assert link.released
    assert link.received == odc() + HTTP


def test_data_on_a_syn_is_taken_off_it() -> None:
    link = Link()
    verdict = link.outside(-1, HTTP, flags=SYN, ack=False)
    assert verdict.payload is not None
    segment = Segment.parse(verdict.payload)
    assert segment is not None
    assert segment.start == len(segment.raw)
    assert segment.flags == SYN
    link.places.clear()
    link.inside(SYN | ACK)
    link.outside(0, odc())
    assert link.released


def test_data_before_the_inside_host_answered_does_not_pass() -> None:
    link = Link()
    link.outside(-1, flags=SYN, ack=False)
    assert link.outside(0, odc(), ack=False) == DROP
    link.inside(SYN | ACK)
    assert link.outside(0, odc()).accept
    assert link.released


def test_urgent_byte_would_be_read_by_us_and_not_by_the_receiver() -> None:
    link = Link().handshake()
    assert link.outside(0, b"O", flags=PSH_ACK | URG).payload is not None
    assert link.reset_inside
    assert Link().outside(-1, flags=SYN | URG, ack=False) == DROP


def test_second_syn_with_another_number_does_not_move_where_reading_begins() -> None:
    link = Link().handshake()
    assert link.outside(19, flags=SYN, ack=False) == ACCEPT
    assert link.outside(20, odc()) == DROP
    assert link.outside(0, HTTP).payload is not None
    assert link.reset_inside


def test_simultaneous_open_is_read_like_any_other() -> None:
    link = Link()
    link.outside(-1, flags=SYN, ack=False)
    assert link.inside(SYN) == ACCEPT  # of its own accord, before the peer's came
    assert link.outside(-1, flags=SYN | ACK, ack=False).accept
    assert link.inside(SYN | ACK) == ACCEPT
    assert link.outside(0, HTTP).payload is not None


def test_what_has_no_data_passes_before_and_after() -> None:
    link = Link().handshake()
    assert link.outside(0, flags=ACK) == ACCEPT
    assert link.outside(-1, b"\0", flags=ACK) == ACCEPT  # the keep-alive of old BSDs and Windows
    assert link.outside(-1, b"\0O", flags=ACK) == DROP
    link.outside(0, odc()[:5])
    assert link.outside(4, b"x", flags=ACK) == DROP  # a keep-alive, too; without a byte it passes
    assert link.outside(4, flags=ACK) == ACCEPT
    assert link.fin(5) == ACCEPT
    assert Link().handshake().fin(0) == ACCEPT


def test_sender_inside_speaks_first_and_is_let_out() -> None:
    gate = Gate()
    gate.expect("send-file")
    link = Link(gate).handshake()
    assert link.inside(PSH_ACK, oft(0x0101)) == ACCEPT
    assert not link.released
    link.outside(0, oft(0x0202, COOKIE))
    assert link.released


def test_cookies_of_all_agreements_that_share_a_pinhole_will_do() -> None:
    gate = Gate()
    second = b"7777777\0"
    gate.house.expecting[LISTENER] = greetings("direct-im", COOKIE) + greetings("direct-im", second)
    for port, cookie in enumerate((COOKIE, second), 40000):
        link = Link(gate, port).handshake()
        link.outside(0, odc(cookie))
        assert link.released
    waiting = Link(gate, 40002).handshake()
    gate.house.expecting[LISTENER] = greetings("direct-im", b"8888888\0")
    late = Link(gate, 40003).handshake()
    gate.house.expecting.clear()  # the pinhole closes; who is connected by then may still speak
    for link, cookie in ((waiting, second), (late, b"8888888\0")):
        link.outside(0, odc(cookie))
        assert link.released
    assert Link(gate, 40004).outside(-1, flags=SYN, ack=False) == DROP


@pytest.mark.parametrize(
    ("service", "peer", "kind", "good"),
    [
        ("send-file", "receiver", 0x0202, True),
        ("send-file", "receiver", 0x0204, True),
        ("send-file", "receiver", 0x0205, True),
        ("send-file", "receiver", 0x0101, False),
        ("send-file", "sender", 0x0101, True),
        ("send-file", "sender", 0x0202, False),
        ("send-file", None, 0x0101, True),
        ("send-file", None, 0x0202, True),
        ("send-file", None, 0x1108, False),
        ("get-file", None, 0x1108, True),
        ("get-file", None, 0x120C, True),
        ("get-file", None, 0x0101, True),
        ("get-file", None, 0x0000, False),
    ],
)
def test_first_word_fits_the_part_that_the_peer_has(
    service: str, peer: Party | None, kind: int, good: bool
) -> None:
    gate = Gate()
    gate.house.expecting[LISTENER] = greetings(service, COOKIE, peer)
    for port, first in enumerate(
        (oft(kind), oft(kind, b"anything"), oft(kind, magic=b"OFT3"), oft(kind, length=500))
    ):
        link = Link(gate, 40000 + port).handshake()
        link.outside(0, first)
        assert link.released is good
        assert link.reset_inside is not good


def test_services_whose_first_bytes_nobody_knows_are_not_gated() -> None:
    for service in ("talk", "games", "0" * 32):
        assert greetings(service, COOKIE) == ()


def test_packet_that_the_queue_cut_is_read_as_far_as_it_goes() -> None:
    link = Link().handshake()
    raw = packet(PEER, LISTENER, link.isn + 1 & 0xFFFFFFFF, 7001, ACK, odc() + bytes(8000))[:4016]
    assert link.world.gate.process(raw, 1000.0) == ACCEPT
    link = Link().handshake()
    raw = packet(PEER, LISTENER, link.isn + 1 & 0xFFFFFFFF, 7001, ACK, HTTP + bytes(8000))[:4016]
    reset = link.world.gate.process(raw, 1000.0).payload
    assert reset is not None
    assert len(reset) == 40


def test_garbage_is_dropped() -> None:
    gate = Gate().gate
    for raw in (b"", bytes(20), b"\x45" + bytes(60), bytes(4000)):
        assert gate.process(raw, 1.0) == DROP


# --- connections whose beginning nobody saw ---


def test_after_a_restart_a_connection_in_flight_is_not_broken() -> None:
    link = Link(Gate(started=990.0))
    assert link.outside(20, b"in the middle", ack=False) == ACCEPT
    assert not link.released
    assert link.inside(PSH_ACK, b"more").release
    assert link.world.counters.peers_passed == 1
    assert link.world.counters.peers_verified == 0


def test_connection_whose_syn_was_seen_before_the_restart_is_read() -> None:
    link = Link(Gate(started=990.0))
    assert link.inside(SYN | ACK) == ACCEPT
    assert link.outside(0, HTTP).payload is not None
    assert link.reset_inside


def test_stray_ack_after_a_restart_releases_nothing() -> None:
    """Connection tracking makes an entry of it, which a SYN with the same ports would use next."""
    link = Link(Gate(started=990.0))
    assert link.outside(0, flags=ACK, ack=False) == ACCEPT
    assert link.inside(RST) == ACCEPT
    link.handshake()
    assert link.outside(0, HTTP).payload is not None
    assert not link.released


def test_connection_that_was_forgotten_is_refused_when_it_speaks() -> None:
    link = Link().handshake()
    link.world.now += 3700
    link.world.gate.expire(link.world.now)
    assert len(link.world.gate) == 0
    assert link.inside() == ACCEPT
    assert link.outside(0, odc()).payload is not None
    assert link.reset_inside
    link.world.gate.unwatched(link.world.now)
    other = Link(link.world, 40001)
    assert other.outside(0, HTTP, ack=False) == ACCEPT


def test_connection_that_was_closed_makes_room() -> None:
    gate = Gate(GateLimits(waiting=1, others=1))
    for port, ended in ((40001, "peer"), (40002, "host"), (40003, "")):
        link = Link(gate, port).handshake()
        if ended == "peer":
            assert link.outside(0, flags=RST | ACK, ack=False) == ACCEPT
        elif ended == "host":
            assert link.inside(RST | ACK) == ACCEPT


def test_fin_that_is_acknowledged_with_the_greeting_releases() -> None:
    link = Link().handshake()
    link.outside(0, odc(), flags=PSH_ACK | FIN, ack=False)
    number = (link.isn + 1 + 77) & 0xFFFFFFFF
    assert link.world.gate.process(packet(LISTENER, PEER, 7001, number, ACK), 1000.0).release
