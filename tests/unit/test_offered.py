"""What was offered in messages that are left alone: who may come to a shared port, and who has it alone."""

from __future__ import annotations

import pytest

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.greeting import Greeting, match
from nfreaim.core.helper import ANY_PORT, Expectation
from tests.golden import packets
from tests.oscar.messages import BASIC, OWN, proposal
from tests.oscar.peer_headers import ACK, CONFIRM, odc_frame, oft_header
from tests.tcp.packets import packed
from tests.unit.oscar_fixtures import Wire
from tests.unit.oscar_wires import wire_of
from tests.unit.pinhole_table import ALICE, AMY, ODC, OFT, SERVER, A, B, Table

BOB, CAROL, EVE = "198.51.100.2", "198.51.100.3", "198.51.100.66"
DOOR = Endpoint("10.0.0.5", 5190)


def left(
    table: Table,
    cookie: bytes = B,
    port: int = 5190,
    flow: FlowId = ALICE,
    greetings: tuple[Greeting, ...] = ODC,
    service: str = "direct-im",
    now: float = 0.0,
) -> None:
    """A message that offers this leaves as it came."""
    inside = Endpoint(flow.client.address, port)
    table.offered(flow, Expectation(cookie, service, inside, greetings=greetings), now)


@pytest.mark.parametrize("first", ["the pinhole", "the offer"])
def test_the_gate_of_a_shared_port_lets_in_who_says_what_was_offered_there(first: str) -> None:
    table = Table()
    if first == "the offer":
        left(table)
    table.ask()
    if first == "the pinhole":
        left(table)
    assert match(b"ODC2", table.expected(DOOR))
    assert match(b"OFT2", table.expected(DOOR))
    assert match(b"GET ", table.expected(DOOR)) is False


def test_an_offer_alone_opens_nothing() -> None:
    table = Table()
    left(table)
    assert table.expected(DOOR) == []
    assert not table.leads_to(DOOR)


@pytest.mark.parametrize("end", ["cancelled", "flow", "time", "gets a pinhole"])
def test_an_offer_that_is_over_lets_in_nobody(end: str) -> None:
    table = Table()
    table.ask(flow=FlowId(Endpoint("10.0.0.5", 40999), SERVER), now=500.0)
    left(table)
    if end == "cancelled":
        table.close(ALICE, B, "cancelled")
    elif end == "flow":
        table.close_flow(ALICE, "control connection closed", 1.0)
    elif end == "time":
        table.expire(600.0)
    else:
        table.ask(B, 5200, now=501.0)
    assert match(b"ODC2", table.expected(DOOR)) is False


@pytest.mark.parametrize(("flow", "port"), [(AMY, 5190), (ALICE, 5191)], ids=["another host", "another port"])
def test_an_offer_elsewhere_says_nothing_about_a_port(flow: FlowId, port: int) -> None:
    table = Table()
    table.ask()
    left(table, flow=flow, port=port)
    assert match(b"ODC2", table.expected(DOOR)) is False


def test_an_offer_whose_port_could_not_be_read_may_be_at_any() -> None:
    table = Table()
    table.ask()
    left(table, port=ANY_PORT)
    assert match(b"ODC2", table.expected(DOOR))


@pytest.mark.parametrize("policy", [{"deny_services": frozenset({"direct-im"})}, {"verify_peers": False}])
def test_what_is_switched_off_is_let_in_by_nothing(policy: dict[str, object]) -> None:
    table = Table(**policy)
    table.ask()
    left(table)
    assert match(b"ODC2", table.expected(DOOR)) is False


def test_a_service_without_known_bytes_does_not_switch_off_the_gate() -> None:
    table = Table()
    outside = table.ask().outside
    left(table, greetings=(), service="talk")
    assert match(b"whatever", table.expected(DOOR)) is False
    table.claimed(outside, BOB, 1.0)
    assert [one.peers for one in table.firewall.pinholes] == [(BOB,)]


def test_who_came_for_what_was_left_alone_does_not_shut_out_the_peer_of_the_pinhole() -> None:
    table = Table()
    outside = table.ask().outside
    left(table)
    table.claimed(outside, BOB, 1.0)
    assert [(one.peers, one.deadline) for one in table.firewall.pinholes] == [((), 600.0)]
    table.claimed(outside, CAROL, 2.0)
    assert [(one.peers, one.deadline) for one in table.firewall.pinholes] == [((BOB, CAROL), 12.0)]


def test_offers_are_few_of_one_host_and_cost_no_other_its_own() -> None:
    table = Table()
    left(table, flow=AMY)
    for number in range(10000):
        left(table, b"%08d" % number)
    table.ask(flow=AMY)
    assert match(b"ODC2", table.expected(Endpoint("10.0.0.6", 5190)))
    assert sum(len(each) for each in table._offered._of.values()) <= 33
    for number in range(5000):
        left(table, flow=FlowId(Endpoint(f"10.{number // 250}.{number % 250}.9", 4000), SERVER))
    assert len(table._offered._of) <= 1024


# --- strangers ----------------------------------------------------------------------------------------------


def test_a_stranger_does_not_shut_out_the_peer_where_first_bytes_are_not_known() -> None:
    table = Table()
    outside = table.ask(greetings=(), service="talk").outside
    table.claimed(outside, EVE, 1.0)
    table.claimed(outside, BOB, 300.0)
    table.consistent()
    assert [(one.peers, one.deadline) for one in table.firewall.pinholes] == [((), 600.0)]
    table.close(ALICE, A, "cancelled")
    assert not table.firewall.pinholes


def test_strangers_are_bounded() -> None:
    table = Table()
    outside = table.ask(greetings=(), service="talk").outside
    for number in range(1, 17):
        assert table.firewall.pinholes[0].peers == ()
        table.claimed(outside, f"198.51.100.{number}", 1.0)
    assert len(table.firewall.pinholes[0].peers) == 16
    assert table.firewall.pinholes[0].deadline == 11.0


def test_a_peer_whose_address_is_known_has_it_for_the_grace() -> None:
    table = Table()
    outside = table.ask(greetings=(), service="talk", peer=BOB).outside
    table.claimed(outside, BOB, 1.0)
    assert [(one.peers, one.deadline) for one in table.firewall.pinholes] == [((BOB,), 11.0)]


# --- messages of OSCAR --------------------------------------------------------------------------------------


FILE, IM = (packets()[name] for name in ("send-file-proposal", "direct-im-proposal"))


def odc() -> bytes:
    """The first bytes of the direct IM's peer."""
    return odc_frame(IM[16:24], "bob1", flags=CONFIRM)


def cut(wire: Wire, frame: bytes) -> None:
    """The client sends *frame* so late in two parts that its addresses have left alone."""
    wire.client(frame[:-4])
    wire.router.wait(1.0)
    wire.client(frame[-4:])
    assert wire.router.watcher.reports[-1].reason == "its addresses had left before its end came"


@pytest.mark.parametrize("order", ["file, im", "im, file"])
@pytest.mark.parametrize("which", ["first cut", "second cut", "both whole"])
def test_files_and_direct_ims_of_one_port(order: str, which: str) -> None:
    first, second = (FILE, IM) if order == "file, im" else (IM, FILE)
    wire = wire_of()
    (cut if which == "first cut" else Wire.client)(wire, first)
    (cut if which == "second cut" else Wire.client)(wire, second)
    expected = wire.router.pinholes.expected(DOOR)
    assert match(oft_header(ACK, bytes(8), 1, 1, "x"), expected)
    assert match(odc(), expected)
    assert match(odc_frame(b"another\0", "bob1", flags=CONFIRM), expected) is False


@pytest.mark.parametrize("limit", [{"per_flow": 1}, {"rate_per_host": 1, "per_flow": 1}])
def test_a_direct_im_over_a_limit(limit: dict[str, object]) -> None:
    wire = wire_of("", (), **limit)
    wire.client(FILE)
    assert wire.client(IM) == IM
    assert match(odc(), wire.router.pinholes.expected(DOOR))


def test_a_direct_im_that_announces_what_nobody_reaches() -> None:
    wire = wire_of()
    wire.client(FILE)
    frame = IM.replace(OWN, packed("127.0.1.1"))
    assert wire.client(frame) == frame
    assert match(odc(), wire.router.pinholes.expected(DOOR))


def test_a_message_that_cannot_be_read_may_have_offered_any_service() -> None:
    wire = wire_of()
    wire.client(FILE)
    before = wire.router.pinholes.expected(DOOR)
    wire.client(proposal(BASIC + b"\0\1\0\xff"))
    assert len(wire.router.pinholes.expected(DOOR)) > len(before)


def test_after_a_restart_the_gate_lets_in_whatever_its_host_may_have_offered() -> None:
    table = Table(known=frozenset({"send-file", "direct-im", "icq-direct"}))
    table.ask(now=0.0)
    later = Table(known=table.policy.known)
    later.firewall.pinholes = table.firewall.pinholes
    later.adopt(lambda flow: True, 1.0, lambda _, service: ODC if service == "direct-im" else OFT)
    assert match(b"ODC2", later.expected(DOOR))
    (pinhole,) = later.firewall.pinholes
    later.claimed(pinhole.outside, BOB, 2.0)
    assert later.firewall.pinholes[0].peers == (BOB,)
