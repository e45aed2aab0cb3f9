"""What a server behind the router relays to its clients outside: proposals of our hosts and of others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nfreaim.core.address import Endpoint
from tests.golden import load, packets
from tests.oscar.messages import AIM, OOS, OWN, PORT, answered, checks, declined, relayed
from tests.oscar.tlv import tlv
from tests.oscar.values import complement, ip4
from tests.unit.talk import REACHED, FakeNat, Talk

GOLDEN = packets()
LAN, OUT = OWN, ip4("203.0.113.100")
OTHER, PUBLIC = ip4("10.0.0.6"), ip4("203.0.113.20")
DATA = tlv(0x2711, LAN)  # service data may hold any bytes, also an address


def talk_of(**router: object) -> Talk:
    return Talk(replace(FakeNat(), **router)).online()  # type: ignore[arg-type]


# --- trusted ----------------------------------------------------------------------------------------------


def moved(inner: bytes, port: bytes = b"\x14\x46", host: bytes = LAN) -> bytes:
    """*inner* as an outside client should read it; addresses only where TLVs of addresses stand."""
    for tag in (2, 3, 4):
        inner = inner.replace(tlv(tag, host), tlv(tag, OUT))
    inner = inner.replace(tlv(0x16, complement(host)), tlv(0x16, complement(OUT)))
    return inner.replace(PORT, tlv(5, port)).replace(
        tlv(0x17, complement(b"\x14\x46")), tlv(0x17, complement(port))
    )


@pytest.mark.parametrize("inner", [OOS, AIM], ids=["libpurple through open-oscar-server", "AIM"])
@pytest.mark.parametrize("port", [None, 40001])
def test_a_host_of_ours_is_announced_outside(inner: bytes, port: int | None) -> None:
    wanted = relayed(moved(inner, (port or 5190).to_bytes(2, "big")))
    for cuts in ([], [1, 2, 4, 6], range(1, len(wanted))):
        talk = talk_of(port=port)
        assert talk.send(1, relayed(inner), cuts) == wanted
        (expectation,) = talk.nat.expected.values()
        assert expectation.inside == Endpoint("10.0.0.5", 5190)
        assert (expectation.service, expectation.peer) == ("send-file", None)
        (report,) = talk.nat.reports
        assert (report.direction, report.action, report.agreement) == ("out", "rewritten", b"COOKIE7\0")
        assert (report.before, report.after) == (expectation.inside, Endpoint(REACHED.address, port or 5190))
        assert talk.nat.counters.helpers["rewritten"] == 1


@pytest.mark.parametrize("inner", [OOS, AIM])
def test_a_relayed_proposal_cut_in_two_at_every_offset(inner: bytes) -> None:
    frame = relayed(inner)
    for cut in range(1, len(frame)):
        assert talk_of().send(1, frame, [cut]) == relayed(moved(inner)), cut


def test_a_golden_proposal_as_a_home_server_relays_it() -> None:
    golden = GOLDEN["send-file-proposal-received"]
    frame = golden.replace(b"\xcb\0\x71\1", LAN)
    wanted = golden.replace(b"\xcb\0\x71\1", OUT).replace(tlv(2, LAN), tlv(2, OUT))
    for cut in range(1, len(frame)):
        talk = talk_of()
        assert talk.send(1, frame, [cut]) == wanted
        assert len(talk.nat.expected) == 1


def test_an_address_the_server_did_not_see_stays_beside_the_one_it_saw() -> None:
    for stranger in (OTHER, bytes([192, 168, 56, 1]), PUBLIC):
        inner = tlv(2, stranger) + checks(stranger) + tlv(3, LAN) + PORT + tlv(4, LAN)
        talk = talk_of(port=40001)
        assert talk.send(1, relayed(inner)) == relayed(moved(inner, b"\x9c\x41"))
        assert [e.inside.address for e in talk.nat.expected.values()] == ["10.0.0.5"]


def test_it_is_held_from_the_length_on_until_it_is_a_message_and_then_from_its_first_address() -> None:
    frame = relayed(OOS)
    talk = talk_of()
    talk.send(1, frame, range(1, len(frame)))
    first = frame.index(tlv(2, LAN)) + 4
    named = [None] * 4 + [4] * 3  # "00 04" can be no redirect any more: it takes eight bytes to see that
    assert talk.holds[:7] == named
    assert talk.holds[7 : first - 1] == [None] * (first - 8)
    assert {*talk.holds[first - 1 : -1]} <= {first, None}
    assert talk.holds[-2] == first


def test_addresses_that_have_left_are_left_alone_whole() -> None:
    frame = relayed(OOS)
    first = frame.index(tlv(2, LAN)) + 4
    for cut in range(1, len(frame)):
        talk = Talk(FakeNat()).online()
        talk.late = True
        out = talk.send(1, frame, [cut])
        assert out == (relayed(moved(OOS)) if cut <= first else frame), cut
        assert bool(talk.nat.expected) == (cut <= first)


# --- not trusted ------------------------------------------------------------------------------------------

UNTRUSTED = {
    "only the sender's own word": tlv(2, LAN) + PORT,
    "no word of the server": tlv(2, LAN) + tlv(3, LAN) + PORT,
    "the server's word alone, where it says none": tlv(2, LAN) + PORT + tlv(4, LAN),
    "an outside client names a host of ours": tlv(2, LAN) + tlv(3, PUBLIC) + PORT + tlv(4, PUBLIC),
    "and the server only appends": tlv(2, LAN) + tlv(3, LAN) + PORT + tlv(4, PUBLIC),
    "one host of ours names another": tlv(2, OTHER) + tlv(3, OTHER) + PORT + tlv(4, LAN),
    "the server was told two addresses": tlv(3, LAN) + PORT + tlv(4, LAN) + tlv(4, PUBLIC),
    "two different own addresses": tlv(3, LAN) + tlv(3, OTHER) + PORT + tlv(4, LAN),
    "no port": tlv(3, LAN) + tlv(4, LAN),
    "port 0": tlv(3, LAN) + tlv(5, b"\0\0") + tlv(4, LAN),
    "a relay": OOS + tlv(0x10, b""),
    "a relay, said first": tlv(0x10, b"") + OOS,
    "nowhere": tlv(2, bytes(4)) + tlv(3, bytes(4)) + PORT + tlv(4, bytes(4)),
    "an address of five bytes": tlv(3, LAN + b"\0") + PORT + tlv(4, LAN),
}


@pytest.mark.parametrize("case", UNTRUSTED)
def test_a_proposal_that_is_not_trusted_leaves_as_it_came(case: str) -> None:
    for cuts in ([], [1, 2, 4, 6]):
        talk, frame = talk_of(), relayed(UNTRUSTED[case])
        assert talk.send(1, frame, cuts) == frame
        assert not talk.nat.expected
        assert talk.nat.counters.helpers["left"] == 1
        assert [report.action for report in talk.nat.reports] == ["left"]


def test_between_two_clients_outside_there_is_nothing_to_do_or_to_say() -> None:
    inner = tlv(2, PUBLIC) + tlv(3, PUBLIC) + PORT + tlv(4, PUBLIC)
    talk = talk_of()
    assert talk.send(1, relayed(inner)) == relayed(inner)
    assert not talk.nat.reports
    assert not talk.nat.expected


def test_what_the_router_refuses_leaves_as_it_came_with_its_reason() -> None:
    talk = talk_of(refuse="10.0.0.1 is not a host of the inside networks")
    assert talk.send(1, relayed(OOS)) == relayed(OOS)
    (report,) = talk.nat.reports
    assert (report.direction, report.action, report.reason) == ("out", "left", talk.nat.refuse)


def test_contradictory_messages_leave_as_they_came() -> None:
    for frame in (
        relayed(OOS + b"\0\2\0\xff"),
        relayed(OOS, info=b"\0\3" + tlv(3, LAN)),
        relayed(OOS).replace(b"COOKIE7\0", b"COOKIE8\0", 1),
    ):
        talk = talk_of()
        assert talk.send(1, frame) == frame
        assert not talk.nat.expected


def test_before_the_session_carries_messages_nothing_is_opened() -> None:
    talk = Talk().begun()
    assert talk.send(1, relayed(OOS), [1, 2, 4, 6, 90]) == relayed(OOS)
    assert not talk.nat.expected


def test_other_messages_of_a_home_server_leave_as_they_came() -> None:
    skipped = {"icq-flap-login-reply", "login-reply", "service-redirect", "signoff-without-length"}
    names = {
        name for name, golden in load().items() if (golden.protocol, golden.direction) == ("flap", "S>C")
    }
    for name in names - skipped:
        talk = talk_of()
        assert talk.send(1, GOLDEN[name], [1, 2, 4]) == GOLDEN[name], name
        assert not talk.nat.expected, name


# --- the client outside -----------------------------------------------------------------------------------


def test_the_outside_client_s_own_proposals_are_not_touched_and_open_nothing() -> None:
    for name in ("send-file-proposal", "aim-proposal", "counter-proposal", "relay-proposal"):
        talk = talk_of()
        frame = GOLDEN[name]
        whole: range | list[int] = []
        for cuts in (whole, range(1, len(frame))):
            assert talk.send(0, frame, cuts) == frame
            assert set(talk.holds) == {None}
        assert not talk.nat.expected
        assert not talk.nat.reports


def test_not_even_if_it_names_the_server_s_address_as_its_own() -> None:
    frame = answered(0, inner=tlv(2, bytes([10, 0, 0, 9])) + tlv(3, bytes([10, 0, 0, 9])) + PORT)
    talk = talk_of()
    assert talk.send(0, frame) == frame
    assert not talk.nat.expected


@pytest.mark.parametrize(
    ("way", "message", "reason"),
    [
        (1, relayed(b"", kind=1), "cancelled"),
        (0, answered(1), "declined"),
        (0, answered(1, b"Alice 1"), "declined"),
        (0, declined(b"alice1"), "declined"),
        (0, declined(b"ALICE1"), "declined"),
        (1, declined(b"alice1"), "declined"),
        (0, GOLDEN["signoff"], "signed off"),
        (1, GOLDEN["signoff"], "signed off"),
    ],
)
def test_what_ends_an_agreement(way: int, message: bytes, reason: str) -> None:
    talk = talk_of()
    talk.send(1, relayed(OOS))
    assert talk.send(way, message, [1, 2, 4]) == message
    assert not talk.nat.expected
    assert talk.nat.withdrawn == [reason]


@pytest.mark.parametrize("way", [0, 1])
def test_an_accept_is_told(way: int) -> None:
    talk = talk_of()
    talk.send(1, relayed(OOS))
    talk.send(way, answered(2) if way == 0 else relayed(b"", kind=2))
    assert talk.nat.agreements == list(talk.nat.expected)


def test_two_senders_with_one_cookie_do_not_end_each_other_s_agreement() -> None:
    """The first cookie of every libpurple process is the same, and one flow carries what all send to bob."""
    talk = talk_of()
    talk.send(1, relayed(OOS) + relayed(OOS.replace(LAN, OTHER), who=b"amy1"))
    assert sorted(e.inside.address for e in talk.nat.expected.values()) == ["10.0.0.5", "10.0.0.6"]
    talk.send(0, answered(1, b"amy1"))
    assert [e.inside.address for e in talk.nat.expected.values()] == ["10.0.0.5"]
    talk.send(0, declined(b"carol1"))
    assert len(talk.nat.expected) == 1
    talk.send(1, relayed(OOS.replace(PORT, tlv(5, b"\x20\x20"))))
    assert [e.inside for e in talk.nat.expected.values()] == [Endpoint("10.0.0.5", 0x2020)]


def test_the_names_of_agreements_hold_no_screen_name() -> None:
    talk = talk_of()
    talk.send(1, relayed(OOS))
    (name,) = talk.nat.expected
    assert len(name) == 8
    assert b"alice" not in name
