"""The pinhole table: what may be opened, where it is opened, and when it is closed again."""

from __future__ import annotations

import pytest

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.firewall.pinhole import Origin
from nfreaim.core.firewall.policy import PinholePolicy
from nfreaim.core.helper import Expectation, Refused
from tests.unit.fakes import OUTSIDE, Router, Wire
from tests.unit.offers import EDITED, PROPOSAL
from tests.unit.pinhole_table import ALICE, AMY, SERVER, A, B, C, Table

# --- where ------------------------------------------------------------------------------------------------


def test_the_announced_port_is_taken_where_it_is_free() -> None:
    table = Table()
    pinhole = table.ask()
    assert (pinhole.inside, pinhole.outside) == (Endpoint("10.0.0.5", 5190), Endpoint(OUTSIDE, 5190))
    assert table.firewall.pinholes == table.watcher.opens == [pinhole]
    assert table.flows() == {ALICE}


def test_another_port_is_taken_where_a_pinhole_or_a_service_of_the_router_has_it() -> None:
    table = Table(ports=range(40000, 40004))
    table.firewall.taken = {Endpoint(OUTSIDE, 40001)}
    assert table.ask().outside.port == 5190
    assert table.ask(flow=AMY).outside.port == 40000
    table.firewall.taken.add(Endpoint(OUTSIDE, 4443))
    assert table.ask(B, 4443).outside.port == 40002
    assert table.ask(B, 4443, flow=AMY).outside.port == 40003
    with pytest.raises(Refused, match="no free outside port in 40000-40003"):
        table.ask(C, 4443, flow=FlowId(Endpoint("10.0.0.7", 1), SERVER))
    table.close(AMY, A, "cancelled")
    with pytest.raises(Refused, match="no free outside port"):  # the message that names it is on its way
        table.ask(C, 4443, flow=FlowId(Endpoint("10.0.0.7", 1), SERVER), now=59.0)
    assert table.ask(C, 4443, flow=FlowId(Endpoint("10.0.0.7", 1), SERVER), now=60.0).outside.port == 40000


def test_the_same_port_at_another_outside_address_is_free() -> None:
    table = Table()
    table.ask()
    assert table.ask(flow=AMY, address="203.0.113.3").outside == Endpoint("203.0.113.3", 5190)


def test_one_announced_address_for_several_needs_a_port_of_its_own_for_each_pinhole() -> None:
    table = Table(announce="198.51.100.1", ports=range(40000, 40001))
    table.ask()
    assert table.ask(flow=AMY, address="203.0.113.3").outside == Endpoint("203.0.113.3", 40000)
    assert table.inside_of(Endpoint("198.51.100.1", 40000)) == Endpoint("10.0.0.6", 5190)
    assert table.inside_of(Endpoint("198.51.100.1", 5190)) == Endpoint("10.0.0.5", 5190)
    assert table.inside_of(Endpoint("198.51.100.1", 1)) is None


def test_what_could_not_be_closed_is_closed_when_the_daemon_stops() -> None:
    """Nobody would try again: what has no deadline would stay open for ever."""
    table = Table()
    table.ask()
    table.firewall.refuse_remove = True
    table.close(ALICE, A, "cancelled")
    assert table.firewall.pinholes
    table.firewall.refuse_remove = False
    table.close_all("the daemon stops")
    assert not table.firewall.pinholes


# --- what is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("port", [0, 1, 22, 1023, 65536, 3389, 5900])
def test_ports_that_nobody_should_open(port: int) -> None:
    with pytest.raises(Refused, match=f"port {port} is not one to open"):
        Table().ask(port=port)


@pytest.mark.parametrize("port", [1024, 65535])
def test_the_lowest_and_the_highest_port(port: int) -> None:
    assert Table().ask(port=port).outside.port == port


def test_a_host_cannot_open_a_pinhole_to_another() -> None:
    table = Table()
    expectation = Expectation(A, "talk", Endpoint("10.0.0.6", 5190))
    with pytest.raises(Refused, match=r"10\.0\.0\.6 is not the address of the host"):
        table.open(ALICE, expectation, Origin("oscar", ALICE.client.address, OUTSIDE), 0.0)
    assert not table.firewall.changes


@pytest.mark.parametrize(
    ("policy", "served"),
    [
        ({}, True),
        ({"allow_services": frozenset({"send-file"})}, True),
        ({"allow_services": frozenset({"talk"})}, False),
        ({"allow_services": frozenset()}, False),
        ({"deny_services": frozenset({"send-file"})}, False),
        ({"allow_services": frozenset({"send-file"}), "deny_services": frozenset({"send-file"})}, False),
    ],
)
def test_services_are_allowed_and_denied(policy: dict[str, object], served: bool) -> None:
    if served:
        assert Table(**policy).ask()
    else:
        with pytest.raises(Refused, match="send-file is switched off"):
            Table(**policy).ask()


@pytest.mark.parametrize("cap", ["per_flow", "per_host", "total"])
def test_each_cap_refuses_what_is_one_too_many_and_gives_room_again(cap: str) -> None:
    table = Table(**{cap: 2})
    table.ask(A, 4001)
    table.ask(B, 4002)
    with pytest.raises(Refused, match=cap):
        table.ask(C, 4003)
    assert table.ask(B, 4002, now=1.0).deadline == 601.0  # known agreements are prolonged all the same
    assert table.ask(B, 4004).inside.port == 4004  # and may move
    table.close(ALICE, A, "cancelled")
    assert table.ask(C, 4003)


def test_agreements_that_share_a_port_do_not_get_round_the_caps_by_moving_apart() -> None:
    table = Table(per_host=2)
    for cookie in (A, B, C):
        table.ask(cookie, 4443)
    table.ask(A, 4001)
    with pytest.raises(Refused, match="per_host"):
        table.ask(B, 4002)
    assert len(table) == 2


def test_a_full_host_may_still_share_what_it_has() -> None:
    table = Table(per_host=1)
    table.ask(A, 4443)
    assert table.ask(B, 4443).outside.port == 4443


# --- the same again -----------------------------------------------------------------------------------------


def test_the_same_proposal_again_prolongs_its_pinhole() -> None:
    table = Table()
    table.ask(now=0.0)
    assert table.ask(now=300.0).deadline == 900.0
    table.expire(600.0)
    assert len(table) == 1
    table.expire(900.0)
    assert (len(table), table.ends) == (0, ["deadline"])


def test_the_same_proposal_at_the_same_moment_changes_nothing_in_the_kernel() -> None:
    table = Table()
    assert table.ask() == table.ask()
    assert table.firewall.changes == 1


def test_the_same_agreement_on_another_port_moves_its_pinhole() -> None:
    table = Table()
    table.ask(A, 4001)
    table.ask(A, 4002)
    assert [p.inside.port for p in table.firewall.pinholes] == [4002]
    assert table.ends == ["replaced by a new proposal"]


def test_an_agreement_that_moves_keeps_its_old_pinhole_where_the_new_one_is_refused() -> None:
    table = Table()
    table.ask(A, 4001)
    table.firewall.refuse_add = True
    with pytest.raises(Refused):
        table.ask(A, 4002)
    assert [p.inside.port for p in table] == [4001]


def test_a_cookie_means_something_else_in_another_flow() -> None:
    table = Table()
    table.ask(A, 4001, flow=ALICE)
    table.ask(A, 4001, flow=AMY)
    table.close(AMY, A, "cancelled")
    assert [p.flow for p in table] == [ALICE]


def test_a_pinhole_lasts_as_long_as_one_of_those_who_share_it() -> None:
    table = Table()
    other = FlowId(Endpoint("10.0.0.5", 40999), SERVER)
    table.ask(A, 4443)
    table.ask(B, 4443)
    table.ask(A, 4443, flow=other)
    assert len(table) == 1
    table.close(ALICE, A, "cancelled")
    table.close_flow(other, "signed off")
    assert len(table.firewall.pinholes) == 1
    table.close(ALICE, B, "declined")
    assert (table.firewall.pinholes, table.ends) == ([], ["declined"])


def test_a_shared_pinhole_admits_everybody_its_agreements_admit() -> None:
    table = Table()
    assert table.ask(A, 4443, peer="198.51.100.2").peers == ("198.51.100.2",)
    assert table.ask(B, 4443, peer="198.51.100.2").peers == ("198.51.100.2",)
    assert table.ask(C, 4443, peer="198.51.100.3").peers == ("198.51.100.2", "198.51.100.3")
    assert table.ask(A, 4443).peers == ()
    assert table.ask(B, 4443, peer="198.51.100.2").peers == ()


# --- the end ------------------------------------------------------------------------------------------------


def test_a_claimed_pinhole_stays_for_its_grace_only() -> None:
    table = Table()
    outside = table.ask().outside
    table.claimed(outside, "198.51.100.2", 100.0)
    table.claimed(outside, "198.51.100.2", 109.0)  # the second of two parallel connections
    table.expire(109.9)
    assert len(table) == 1
    table.expire(110.0)
    assert (table.ends, len(table.watcher.claims)) == (["done"], 1)


def test_a_second_proposal_of_a_claimed_agreement_waits_for_its_own_connection() -> None:
    table = Table()
    outside = table.ask().outside
    table.claimed(outside, "198.51.100.2", 10.0)
    table.ask(now=12.0)
    table.expire(30.0)
    assert len(table) == 1
    table.claimed(outside, "198.51.100.2", 40.0)
    table.expire(50.0)
    assert table.ends == ["done"]


def test_the_first_peer_of_two_does_not_close_the_pinhole_for_the_second() -> None:
    table = Table()
    outside = table.ask(A, 4443).outside
    table.ask(B, 4443)
    table.claimed(outside, "198.51.100.2", 100.0)
    table.expire(200.0)
    assert len(table) == 1
    table.claimed(outside, "198.51.100.3", 200.0)
    table.expire(210.0)
    assert table.ends == ["done"]


def test_a_claim_or_an_accept_never_prolongs() -> None:
    table = Table()
    outside = table.ask().outside
    table.accepted(ALICE, A, 595.0)
    table.claimed(outside, "198.51.100.2", 595.0)
    table.expire(600.0)
    assert len(table) == 0


def test_an_accept_of_one_agreement_leaves_the_other_its_time() -> None:
    table = Table()
    table.ask(A, 4443)
    table.ask(B, 4443)
    table.accepted(ALICE, A, 0.0)
    table.accepted(ALICE, C, 0.0)  # nothing is known of this one
    table.expire(60.0)
    table.consistent()
    assert (len(table), list(table._index.by_agreement)) == (1, [(ALICE, B)])


def test_claims_and_ends_of_what_is_not_there_are_no_error() -> None:
    table = Table()
    table.claimed(Endpoint(OUTSIDE, 1), "198.51.100.2", 0.0)
    table.close(ALICE, A, "")
    table.close_flow(ALICE, "")
    table.close_all("")
    table.expire(0.0)
    assert not table.firewall.changes


def test_one_that_cannot_be_closed_does_not_keep_the_others_open() -> None:
    table = Table()
    for port in range(4001, 4006):
        table.ask(port.to_bytes(8, "big"), port)
    table.firewall.refuse_remove = lambda pinhole: pinhole.outside.port == 4003
    table.close_all("the daemon stops")
    assert [pinhole.outside.port for pinhole in table.firewall.pinholes] == [4003]
    assert sum("still in the kernel" in reason for reason in table.ends) == 1
    table.ask(A, 4006)
    table.firewall.refuse_remove = False
    table.expire(1.0)
    table.consistent()
    assert len(table.firewall.pinholes) == 1


# --- a firewall that refuses --------------------------------------------------------------------------------


def test_what_cannot_be_opened_leaves_the_message_alone() -> None:
    wire = Wire().sign_on()
    wire.router.firewall.refuse_add = True
    assert wire.client(PROPOSAL) == PROPOSAL
    assert wire.router.watcher.reports[-1].reason == "the firewall refused: resource temporarily unavailable"
    assert not list(wire.router.pinholes)
    wire.router.firewall.refuse_add = False
    assert wire.client(PROPOSAL) == EDITED


def test_what_cannot_be_closed_is_tried_again_and_its_port_not_given_away() -> None:
    table = Table(ports=range(40000, 40001), total=2)
    table.ask()
    table.firewall.refuse_remove = True
    table.close(ALICE, A, "cancelled")
    assert table.ends[0].startswith("cancelled; still in the kernel")
    assert table.inside_of(Endpoint(OUTSIDE, 5190)) is None
    assert table.ask(B).outside.port == 40000
    with pytest.raises(Refused, match="total"):
        table.ask(C, 4001)
    table.expire(1.0)
    table.firewall.refuse_remove = False
    table.expire(2.0)
    assert [p.outside.port for p in table.firewall.pinholes] == [40000]
    assert table.ask(C).outside.port == 40000  # shared
    assert len(table.ends) == 1


def test_a_private_outside_address_is_not_announced_unless_the_operator_names_a_public_one() -> None:
    wire = Wire().sign_on()
    wire.router.kernel.outside = "100.64.7.7"
    assert wire.client(PROPOSAL) == PROPOSAL
    reason = wire.router.watcher.reports[-1].reason
    assert reason.startswith("peers cannot reach outside address 100.64.7.7 (carrier-grade NAT); remedy: ")
    router = Router(policy=PinholePolicy(announce=OUTSIDE))
    router.kernel.outside = "100.64.7.7"
    assert Wire(router).sign_on().client(PROPOSAL) == EDITED
    assert [p.outside.address for p in router.pinholes] == ["100.64.7.7"]


def test_an_unknown_outside_address_leaves_the_message_alone() -> None:
    wire = Wire().sign_on()
    wire.router.kernel.broken = True
    assert wire.client(PROPOSAL) == PROPOSAL
    assert wire.router.watcher.reports[-1].reason == "netlink is gone"


def test_who_comes_to_an_endpoint_that_a_pinhole_leads_to_is_a_peer() -> None:
    table = Table(ports=range(40000, 40001))
    table.firewall.taken = {Endpoint(OUTSIDE, 5190)}
    inside = table.ask().inside
    assert table.leads_to(inside)
    assert not table.leads_to(inside._replace(port=40000))
    table.close(ALICE, A, "cancelled")
    assert not table.leads_to(inside)
