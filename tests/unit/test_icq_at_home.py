"""What a server inside tells its clients outside of ICQ users inside: what is opened, to whom, how long."""

from __future__ import annotations

import pytest

from nfreaim.core.address import Endpoint
from nfreaim.core.firewall.policy import PinholePolicy
from tests.oscar import rendezvous as rdv
from tests.oscar.icbm import RENDEZVOUS, client_error, icbm_to_client
from tests.oscar.icq import UIN, call_back, chat_request, direct, set_status, user
from tests.oscar.messages import COOKIE, answered, declined
from tests.oscar.snac import (
    BUDDY_ARRIVED,
    BUDDY_DEPARTED,
    CLIENT_ERROR,
    SELF_INFO,
    SET_STATUS,
    TO_CLIENT,
    USER_INFO,
    snac_frame,
)
from tests.oscar.tlv import tlv
from tests.oscar.values import ip4
from tests.unit.fakes import OUTSIDE
from tests.unit.oscar_fixtures import CAPS, Router
from tests.unit.oscar_wires import HomeWire, ends, reasons

ALICE, OUT, ELSEWHERE = ip4("10.0.0.5"), ip4(OUTSIDE), ip4("198.51.100.7")
BOB, CAROL = Endpoint("203.0.113.20", 51000), Endpoint("203.0.113.2", 51001)
TIMES = tlv(3, ALICE) + tlv(5, ALICE)  # of sign-on and of joining: no addresses


def of(info: bytes, seen: bytes = b"", name: bytes = UIN) -> bytes:
    """User info as open-oscar-server writes it; with *seen*, as AOL's servers did."""
    return user(TIMES[:8], tlv(0xC, info), *([tlv(0xA, seen)] if seen else []), TIMES[8:], name=name)


def arrived(*infos: bytes) -> bytes:
    return snac_frame(BUDDY_ARRIVED, b"".join(infos))


def gone(name: bytes = UIN) -> bytes:
    return snac_frame(BUDDY_DEPARTED, user(tlv(1, b"\0\0"), name=name))


def told_of(*ends_of_flows: Endpoint, **policy: object) -> list[HomeWire]:
    """The connections of these clients outside, who have been told of nobody."""
    router = Router(policy=PinholePolicy(caps=CAPS, **policy))  # type: ignore[arg-type]
    return [HomeWire(router, client).online() for client in ends_of_flows]


def holes(wire: HomeWire) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(str(it.inside), str(it.outside), it.peers) for it in wire.router.firewall.pinholes]


def relayed(capability: bytes, data: bytes, info: bytes, *more: bytes) -> bytes:
    """A proposal of ICQ's kinds, as the server hands it on."""
    items = [(0xA, b"\0\1"), (rdv.SERVICE_DATA, data)]
    block = rdv.Rendezvous(rdv.PROPOSE, COOKIE, capability, items).encode() + b"".join(more)
    return snac_frame(TO_CLIENT, icbm_to_client(COOKIE, RENDEZVOUS, info, tlv(5, block)))


# --- published endpoints --------------------------------------------------------------------------------


@pytest.mark.parametrize("seen", [b"", ALICE], ids=["open-oscar-server", "AOL"])
def test_an_arrival_wherever_it_is_cut(seen: bytes) -> None:
    frame, wanted = arrived(of(direct(ALICE), seen)), arrived(of(direct(OUT), seen and OUT))
    for cuts in ([], [1, 2, 4, 6], range(1, len(frame)), *([cut] for cut in range(1, len(frame)))):
        (wire,) = told_of(BOB)
        assert wire.told(frame, cuts) == wanted, cuts
        assert holes(wire) == [("10.0.0.5:4001", f"{OUTSIDE}:4001", (BOB.address,))]
        assert wire.router.firewall.pinholes[0].standing
        assert wire.router.firewall.pinholes[0].verify
        assert not wire.stored.skewed


def test_a_port_that_is_taken_outside_is_another_one() -> None:
    (wire,) = told_of(BOB)
    wire.router.firewall.taken = {Endpoint(OUTSIDE, 4001)}
    assert wire.told(arrived(of(direct(ALICE)))) == arrived(of(direct(OUT, 40000)))


@pytest.mark.parametrize("channel", [1, 4])
def test_the_sender_of_a_message_and_a_user_that_was_asked_for(channel: int) -> None:
    def message(address: bytes) -> bytes:
        return snac_frame(TO_CLIENT, icbm_to_client(COOKIE, channel, of(direct(address)), tlv(2, ALICE)))

    (wire,) = told_of(BOB)
    for cut in range(1, len(message(ALICE))):
        assert wire.told(message(ALICE), [cut]) == message(OUT), cut
    behind = tlv(1, b"text/plain") + tlv(0xC, direct(ALICE))
    asked = snac_frame(USER_INFO, of(direct(ALICE)) + behind)
    assert wire.told(asked) == snac_frame(USER_INFO, of(direct(OUT)) + behind)
    assert len(holes(wire)) == 1


def test_an_address_that_has_left_before_its_end_came_stays_and_what_stands_stands_on() -> None:
    (wire,) = told_of(BOB)
    frame = arrived(of(direct(ALICE)))
    wire.told(frame)
    before = len(wire.s2c)
    wire.send(1, frame[:60])
    wire.router.wait(1.0)
    wire.send(1, frame[60:])
    assert wire.s2c[before:].endswith(frame)
    assert reasons(wire)[-1] == "its address had left before its end came"
    assert len(holes(wire)) == 1


def test_several_users_in_one_notice_each_for_itself() -> None:
    amy, stranger = of(direct(ip4("10.0.0.6")), name=b"6"), of(direct(ELSEWHERE), name=b"7")
    (wire,) = told_of(BOB)
    frame = arrived(of(direct(ALICE)), amy, stranger)
    assert wire.told(frame) == arrived(of(direct(OUT)), of(direct(OUT, 40000), name=b"6"), stranger)
    assert [inside for inside, *_ in holes(wire)] == ["10.0.0.5:4001", "10.0.0.6:4001"]


@pytest.mark.parametrize(
    "frame",
    [
        snac_frame(SELF_INFO, of(direct(ALICE))),
        arrived(of(direct(ELSEWHERE))),
        arrived(of(direct(bytes(4), 0, 0))),
        arrived(of(direct(ALICE, 0))),
        arrived(of(direct(ALICE, kind=0))),
        arrived(of(direct(ALICE, kind=6))),
        arrived(of(direct(ALICE)))[:-1] + b"",
        arrived(user(tlv(0xC, direct(ALICE)[:36]))),
        arrived(user(tlv(0xA, ALICE))),
    ],
)
def test_what_names_nobody_inside_or_is_unsound_leaves_as_it_came(frame: bytes) -> None:
    frame = frame[:4] + (len(frame) - 6).to_bytes(2, "big") + frame[6:]
    (wire,) = told_of(BOB)
    assert wire.told(frame) == frame
    assert not wire.router.firewall.changes
    assert not wire.router.watcher.reports


# --- whom the server speaks for -------------------------------------------------------------------------


def test_a_server_that_nobody_vouches_for_and_an_address_of_no_inside_network() -> None:
    (wire,) = told_of(BOB)
    wire.router.kernel.distrusted = {"10.0.0.5": "may not speak for 10.0.0.5"}
    for address, reason in (
        ("10.0.0.5", "may not speak for 10.0.0.5"),
        ("192.168.7.5", "192.168.7.5 is not a host of the inside networks, which --lan names by interface"),
        ("127.0.0.1", "127.0.0.1 is not a host of the inside networks, which --lan names by interface"),
    ):
        frame = arrived(of(direct(ip4(address))))
        assert wire.told(frame) == frame
        assert reasons(wire)[-1] == reason
        elsewhere = reason.endswith("by interface")  # a user behind somebody else's router is no news
        assert wire.router.watcher.reports[-1].routine is elsewhere
    assert not wire.router.firewall.changes


@pytest.mark.parametrize("seen", [ELSEWHERE, ip4("10.0.0.6")])
def test_a_published_address_that_is_not_the_one_the_server_saw(seen: bytes) -> None:
    """An account outside may publish anything: the server says whether it is there."""
    frame = arrived(of(direct(ALICE), seen))
    (wire,) = told_of(BOB)
    assert wire.told(frame) == frame
    assert not wire.router.firewall.changes
    assert reasons(wire) == ["names an inside host, but the server saw its sender at another address"]
    wire.told(frame)
    assert [report.routine for report in wire.router.watcher.reports] == [False, True]


@pytest.mark.parametrize("port", [80, 1023, 3389, 65536])
def test_ports_that_are_not_to_be_opened(port: int) -> None:
    frame = arrived(of(direct(ALICE, port)))
    (wire,) = told_of(BOB)
    assert wire.told(frame) == frame
    assert reasons(wire) == [f"port {port} is not one to open"]


def test_nobody_but_who_was_told_is_let_in() -> None:
    bob, carol = told_of(BOB, CAROL)
    bob.told(arrived(of(direct(ALICE))))
    carol.told(arrived(of(direct(ALICE))))
    assert holes(bob) == [("10.0.0.5:4001", f"{OUTSIDE}:4001", (BOB.address, CAROL.address))]
    bob.send(0, answered(1), [])
    bob.fin(0)
    assert holes(carol) == [("10.0.0.5:4001", f"{OUTSIDE}:4001", (CAROL.address,))]
    carol.fin(0)
    assert holes(carol) == []


def test_so_many_are_let_in_by_one_port() -> None:
    wires = told_of(*[Endpoint(f"203.0.113.{20 + n}", 51000) for n in range(65)])
    told = [wire.told(arrived(of(direct(ALICE)))) for wire in wires]
    assert told[:64] == [arrived(of(direct(OUT)))] * 64
    assert told[64] == arrived(of(direct(ALICE)))
    assert reasons(wires[0])[-1] == "64 addresses that one port is open for"
    assert len(holes(wires[0])[0][2]) == 64


# --- for how long ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "end"),
    [
        (gone(), "signed off"),
        (snac_frame(BUDDY_DEPARTED, user(name=b"7") + user(name=UIN)), "signed off"),
        (arrived(of(direct(bytes(4), 0, 0))), "no longer published"),
        (arrived(of(direct(ELSEWHERE))), "another endpoint was published"),
        (arrived(of(direct(ALICE), ELSEWHERE)), "another endpoint was published"),
        (arrived(of(direct(ALICE, 80))), "another endpoint was published"),
    ],
)
def test_what_ends_it(frame: bytes, end: str) -> None:
    (wire,) = told_of(BOB)
    wire.told(arrived(of(direct(ALICE))))
    assert wire.told(gone(b"100004")) == gone(b"100004")
    assert len(holes(wire)) == 1
    assert wire.told(frame) == frame
    assert holes(wire) == []
    assert ends(wire) == [end]


def test_another_port_moves_it_and_the_same_again_changes_nothing() -> None:
    (wire,) = told_of(BOB)
    wire.told(arrived(of(direct(ALICE))))
    changes = wire.router.firewall.changes
    assert wire.told(arrived(of(direct(ALICE)))) == arrived(of(direct(OUT)))
    assert wire.router.firewall.changes == changes
    assert [report.routine for report in wire.router.watcher.reports] == [False, True]
    assert wire.told(arrived(of(direct(ALICE, 4002)))) == arrived(of(direct(OUT, 4002)))
    assert [inside for inside, *_ in holes(wire)] == ["10.0.0.5:4002"]


def test_the_departure_of_one_flow_s_contact_leaves_what_others_were_told() -> None:
    bob, carol = told_of(BOB, CAROL)
    for wire in (bob, carol):
        wire.told(arrived(of(direct(ALICE))))
    bob.told(gone())
    assert [peers for *_, peers in holes(bob)] == [(CAROL.address,)]
    carol.told(gone())
    assert holes(bob) == []


def test_a_flow_that_is_lost_ends_it_and_hours_do_not() -> None:
    (wire,) = told_of(BOB)
    wire.told(arrived(of(direct(ALICE))))
    for _ in range(30):
        wire.told(wire.keepalive)
        wire.router.wait(3600.0)
    assert len(holes(wire)) == 1
    wire.router.kernel.dead.add(wire.flow_id)
    wire.router.wait(3.0)
    assert holes(wire) == []


def test_four_ports_of_one_host_however_many_are_told() -> None:
    wires = told_of(*[Endpoint(f"203.0.113.{20 + n}", 51000) for n in range(6)])
    for wire in wires:
        for port in range(4001, 4005):
            named = b"10%d" % port
            frame = arrived(of(direct(ALICE, port), name=named))
            assert wire.told(frame) == arrived(of(direct(OUT, port), name=named))
    fifth = arrived(of(direct(ALICE, 4005), name=b"104005"))
    assert wires[0].told(fifth) == fifth
    assert reasons(wires[0])[-1] == "4 session-long pinholes to one host (icq_per_host)"
    for wire in wires:
        wire.told(gone(b"104001"))
    assert wires[0].told(fifth) == arrived(of(direct(OUT, 4005), name=b"104005"))


def test_published_endpoints_take_no_transfer_its_place() -> None:
    (wire,) = told_of(BOB, rate_per_host=1000)
    for n in range(20):
        frame = arrived(of(direct(ip4(f"10.0.0.{50 + n}"), 4100 + n), name=b"20%d" % n))
        assert wire.told(frame) != frame
    data = call_back(100003, ALICE, 4001)
    frame = relayed(rdv.REVERSE, data, of(direct(ALICE)))
    assert wire.told(frame) != frame
    assert wire.router.pinholes.policy.per_flow < len(holes(wire))


@pytest.mark.parametrize("only_for", [frozenset(), frozenset({"10.0.0.6"})])
def test_switched_off(only_for: frozenset[str]) -> None:
    frame = arrived(of(direct(ALICE)))
    (wire,) = told_of(BOB, only_for={"icq-direct": only_for})
    assert wire.told(frame) == frame
    assert not wire.router.firewall.changes


# --- requests to call back, chats -----------------------------------------------------------------------


@pytest.mark.parametrize("seen", [b"", ALICE], ids=["open-oscar-server", "AOL"])
def test_a_request_to_call_back_wherever_it_is_cut(seen: bytes) -> None:
    frame = relayed(rdv.REVERSE, call_back(100003, ALICE, 4001), of(direct(ALICE), seen))
    wanted = relayed(rdv.REVERSE, call_back(100003, OUT, 4001), of(direct(OUT), seen and OUT))
    for cut in range(1, len(frame)):
        (wire,) = told_of(BOB)
        assert wire.told(frame, [cut]) == wanted, cut
        assert holes(wire) == [("10.0.0.5:4001", f"{OUTSIDE}:4001", (BOB.address,))]


def test_a_chat_on_a_port_of_its_own() -> None:
    frame = relayed(rdv.RELAY, chat_request(4500), of(direct(ALICE)), tlv(5, (4001).to_bytes(2, "big")))
    (wire,) = told_of(BOB)
    wire.router.firewall.taken = {Endpoint(OUTSIDE, 4500)}
    wire.told(arrived(of(direct(ALICE))))
    wanted = relayed(rdv.RELAY, chat_request(40000), of(direct(OUT)), tlv(5, (4001).to_bytes(2, "big")))
    assert wire.told(frame) == wanted
    assert [inside for inside, *_ in holes(wire)] == ["10.0.0.5:4001", "10.0.0.5:4500"]
    wire.client(consent())
    assert len(holes(wire)) == 2, "a consent is no refusal"
    wire.client(declined(UIN))
    assert [inside for inside, *_ in holes(wire)] == ["10.0.0.5:4001"]


def consent() -> bytes:
    """SNAC(04,0B) of the client outside, that agrees to a chat."""
    return snac_frame(CLIENT_ERROR, client_error(COOKIE, UIN, chat_request(5000)))


@pytest.mark.parametrize(
    ("data", "info"),
    [
        (call_back(100003, ALICE, 4001), of(direct(ip4("10.0.0.6")))),
        (call_back(100003, ALICE, 4001), user(TIMES[:8])),
        (call_back(100003, ALICE, 4001), of(direct(ALICE), ELSEWHERE)),
        (call_back(100003, ELSEWHERE, 4001), of(direct(ALICE))),
        (call_back(100003, ALICE, 4001, again=4002), of(direct(ALICE))),
    ],
)
def test_a_request_to_call_somebody_else(data: bytes, info: bytes) -> None:
    (wire,) = told_of(BOB)
    frame = relayed(rdv.REVERSE, data, info)
    assert data in wire.told(frame)
    assert all(it.service == "icq-direct" for it in wire.router.firewall.pinholes)


def test_the_client_outside_opens_nothing_by_what_it_publishes_itself() -> None:
    (wire,) = told_of(BOB)
    frame = snac_frame(SET_STATUS, set_status(direct(ALICE)))
    assert wire.client(frame) == frame
    assert wire.client(frame, range(1, len(frame))) == frame
    assert not wire.router.firewall.changes


# --- restarts -------------------------------------------------------------------------------------------


def test_after_a_crash_those_who_were_told_are_let_in_until_the_flow_of_the_latest_ends() -> None:
    bob, carol = told_of(BOB, CAROL)
    for wire in (bob, carol):
        wire.told(arrived(of(direct(ALICE))))
    left = list(bob.router.firewall.pinholes)
    later = Router()
    later.firewall.pinholes = left
    later.pinholes.adopt(lambda flow: True, 0.0)
    assert [it.peers for it in later.pinholes] == [(BOB.address, CAROL.address)]
    later.pinholes.close_flow(left[0].flow, "lost")
    assert not later.firewall.pinholes
