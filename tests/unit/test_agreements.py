"""What a pinhole is kept for: whom a counter-proposal admits, and which messages end an agreement."""

from __future__ import annotations

import pytest

from nfreaim.core.address import Endpoint
from nfreaim.core.firewall.pinhole import Pinhole
from tests.golden import load
from tests.oscar.messages import BASIC, COOKIE, SECOND, addressed, declined, proposal
from tests.oscar.snac import ICBM_FAILED, snac_frame
from tests.oscar.tlv import tlv
from tests.tcp.packets import packed
from tests.unit.fakes import OUTSIDE
from tests.unit.oscar_wires import wire_of

GOLDEN = load()


@pytest.mark.parametrize("own_address_known", [True, False])
def test_a_counter_proposal_admits_only_the_peer_that_the_server_saw(own_address_known: bool) -> None:
    wire = wire_of()
    wire.router.kernel.broken = not own_address_known
    wire.server(proposal(addressed(2, 3, address=packed("192.168.7.5")) + tlv(4, packed("203.0.113.2")), 7))
    wire.router.kernel.broken = False
    wire.client(proposal(BASIC + SECOND))
    assert [p.peers for p in wire.router.pinholes] == [("203.0.113.2",)]


def test_a_cookie_that_recurs_in_an_offer_or_with_somebody_else_admits_everybody() -> None:
    """The first cookie of every libpurple process is the same, on both sides and for every peer."""
    for name, stage in ((b"bob1", b""), (b"bob1", tlv(10, b"\0\1")), (b"amy1", SECOND)):
        wire = wire_of()
        wire.server(
            proposal(addressed(2, 3, address=packed("192.168.7.5")) + tlv(4, packed("203.0.113.2")), 7)
        )
        wire.client(proposal(BASIC + stage).replace(b"bob1", name))
        assert [p.peers for p in wire.router.pinholes] == [()], (name, stage)


def test_the_name_of_the_peer_counts_without_case_and_spaces() -> None:
    wire = wire_of()
    wire.server(proposal(addressed(2, 3, address=packed("192.168.7.5")) + tlv(4, packed("203.0.113.2")), 7))
    wire.client(proposal(BASIC + SECOND).replace(b"bob1", b"BoB1"))
    assert [p.peers for p in wire.router.pinholes] == [("203.0.113.2",)]


@pytest.mark.parametrize("seen", ["10.0.0.9", "100.64.1.1", OUTSIDE])
def test_a_peer_seen_at_a_private_address_or_at_our_own_does_not_narrow_anything(seen: str) -> None:
    wire = wire_of()
    wire.server(proposal(tlv(4, packed(seen)) + tlv(5, b"\x12\x34"), subtype=7))
    wire.client(proposal(BASIC + SECOND))
    assert [p.peers for p in wire.router.pinholes] == [()]


def undeliverable(request: int) -> bytes:
    return snac_frame(ICBM_FAILED, b"\0\4", request=request)


@pytest.mark.parametrize(
    ("way", "message", "reason"),
    [
        (0, proposal(b"", kind=1), "cancelled"),
        (1, proposal(b"", kind=1, subtype=7), "declined"),
        (0, declined(), "declined"),
        (1, declined(), "declined"),
        (1, undeliverable(0x77), "the server could not deliver the proposal"),
        (0, GOLDEN["signoff"].data, "signed off"),
        (1, GOLDEN["signoff"].data, "signed off"),
    ],
)
def test_what_ends_an_agreement_closes_its_pinhole(way: int, message: bytes, reason: str) -> None:
    for cuts in ((), range(1, len(message))):
        wire = wire_of()
        wire.client(proposal(BASIC))
        assert len(wire.router.firewall.pinholes) == 1
        wire.send(way, message, cuts)
        assert not wire.router.firewall.pinholes
        assert [why for _, why in wire.router.watcher.closes] == [reason]


def test_what_was_accepted_is_not_declined_any_more() -> None:
    wire = wire_of()
    wire.client(proposal(BASIC))
    wire.server(proposal(b"", kind=2, subtype=7))
    wire.server(proposal(b"", kind=1, subtype=7))
    assert [why for _, why in wire.router.watcher.closes] == ["cancelled by the peer"]


@pytest.mark.parametrize(
    ("way", "message"),
    [
        (0, proposal(b"", kind=1, cookie=b"COOKIE8\0")),
        (1, declined(cookie=b"COOKIE8\0")),
        (1, declined(channel=1)),
        (1, undeliverable(0x78)),
        (0, undeliverable(0x77)),
        (0, GOLDEN["text-message"].data),
        (0, GOLDEN["keepalive"].data),
    ],
)
def test_what_concerns_another_agreement_closes_nothing(way: int, message: bytes) -> None:
    wire = wire_of()
    wire.client(proposal(BASIC))
    wire.send(way, message)
    assert len(wire.router.firewall.pinholes) == 1


def eve(message: bytes) -> bytes:
    """The same message, with a stranger as its sender or recipient."""
    assert b"\4bob1" in message
    return message.replace(b"\4bob1", b"\4eve1")


@pytest.mark.parametrize("offer", [proposal(BASIC), proposal(BASIC + SECOND)], ids=["offer", "counter-offer"])
@pytest.mark.parametrize("strangers", [1, 40])
@pytest.mark.parametrize(
    ("way", "message"),
    [
        *((way, proposal(b"", kind=kind, subtype=6 + way)) for way in (0, 1) for kind in (1, 2)),
        (0, declined()),
        (1, declined()),
        (1, proposal(addressed(2, 3, address=packed("192.0.2.9")), 7)),
        (1, proposal(addressed(2, 3, address=packed("192.0.2.9")) + SECOND, 7)),
        (1, proposal(addressed(2, 3, address=packed("192.0.2.9")) + tlv(10, b"\0\3"), 7)),
    ],
)
def test_a_stranger_with_the_same_cookie_changes_nothing(
    way: int, message: bytes, strangers: int, offer: bytes
) -> None:
    wire = wire_of()
    wire.client(offer)
    before = list(wire.router.firewall.pinholes)
    for _ in range(strangers):
        wire.send(way, eve(message))
    assert wire.router.firewall.pinholes == before
    wire.router.wait(599.0)
    assert wire.router.firewall.pinholes == before
    wire.send(1, proposal(b"", kind=1, subtype=7))
    assert not wire.router.firewall.pinholes


def test_an_offer_with_the_same_cookie_to_somebody_else_replaces_nothing() -> None:
    wire = wire_of()
    wire.client(proposal(BASIC))
    wire.client(eve(proposal(addressed(2, 3, port=5191))))
    assert [pinhole.inside.port for pinhole in wire.router.firewall.pinholes] == [5190, 5191]
    wire.client(eve(proposal(b"", kind=1)))
    assert [pinhole.inside.port for pinhole in wire.router.firewall.pinholes] == [5190]


@pytest.mark.parametrize("later", [proposal(b"", kind=1), proposal(b"", kind=2), declined()])
def test_an_error_about_a_later_message_with_the_same_number_closes_nothing(later: bytes) -> None:
    """Some clients give all their requests one number, and a stranger can make a client answer him."""
    wire = wire_of()
    wire.client(proposal(BASIC))
    wire.client(eve(later))
    wire.server(undeliverable(0x77))
    assert len(wire.router.firewall.pinholes) == 1


def test_what_an_earlier_version_named_by_the_cookie_alone_ends_with_its_session() -> None:
    for message, left in ((proposal(b"", kind=1), 1), (GOLDEN["signoff"].data, 0)):
        wire = wire_of()
        pinholes = wire.router.pinholes
        wire.router.firewall.pinholes = [
            Pinhole(
                Endpoint("10.0.0.5", 5190), Endpoint(OUTSIDE, 5190), wire.flow_id, COOKIE, "send-file", 600.0
            )
        ]
        pinholes.adopt(lambda flow: True, 0.0)
        wire.client(message)
        assert len(pinholes) == left
        wire.router.wait(600.0)
        assert not wire.router.firewall.pinholes


@pytest.mark.parametrize("way", [0, 1])
def test_an_accept_leaves_a_minute(way: int) -> None:
    wire = wire_of()
    wire.client(proposal(BASIC))
    wire.send(way, proposal(b"", kind=2, subtype=6 + way))
    wire.router.wait(59.0)
    assert len(wire.router.firewall.pinholes) == 1
    wire.router.wait(1.0)
    assert not wire.router.firewall.pinholes
