"""Pinholes behind another router: opened at our own address, announced where that router maps the port."""

from __future__ import annotations

import pytest

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.announced import own
from nfreaim.core.firewall.pinhole import Origin, Pinhole
from nfreaim.core.firewall.policy import PinholePolicy
from nfreaim.core.firewall.reserved import RESERVED_S
from nfreaim.core.helper import UNFIT, Expectation, Refused
from nfreaim.core.reach import Reach
from tests.script_helper import HELLO, offer
from tests.unit.fakes import Router, Wire
from tests.unit.offers import PROPOSAL
from tests.unit.pinhole_table import ALICE, AMY, OFT, A, B, Table
from tests.unit.wires import HomeWire

BEHIND, OUTSIDE = "192.168.178.2", "8.8.4.1"
ALICES = Endpoint("10.0.0.5", 5190)
ONE, TWO = Endpoint(BEHIND, 40000), Endpoint(BEHIND, 40001)
TOLD_ONE, TOLD_TWO = Endpoint(OUTSIDE, 41000), Endpoint(OUTSIDE, 41001)


def behind(upstream: str = "auto", mapped: bool = True) -> Router:
    """A router whose outside address is private, with two mappings of the router in front."""
    router = Router(policy=PinholePolicy(upstream=upstream))
    router.kernel.outside = BEHIND
    router.kernel.reached_at = Endpoint(BEHIND, 5190)
    if mapped:
        router.pinholes.mappings.told = {ONE: TOLD_ONE, TWO: TOLD_TWO}
        router.pinholes.reach.in_front = {BEHIND: OUTSIDE}
    return router


def table() -> Table:
    made = Table(upstream="auto")
    made.mappings.told = {ONE: TOLD_ONE, TWO: TOLD_TWO}
    return made


def ask(
    made: Table, name: bytes = A, flow: FlowId = ALICE, port: int = 5190, now: float = 0.0, **more: object
) -> Pinhole:
    host = flow.client.address
    wanted = Expectation(name, "send-file", Endpoint(host, port), None, greetings=OFT, **more)  # type: ignore[arg-type]
    found = made.open(flow, wanted, Origin("oscar", host, BEHIND, mapped=True), now)
    made.consistent()
    return found


def test_an_offer_announces_the_mapped_endpoint_and_opens_our_own() -> None:
    wire = Wire(behind()).sign_on()
    assert wire.client(PROPOSAL) == offer(at=TOLD_ONE)
    assert [(one.outside, one.told) for one in wire.router.pinholes] == [(ONE, TOLD_ONE)]
    assert wire.router.pinholes.inside_of(TOLD_ONE) == ALICES
    assert wire.router.pinholes.inside_of(ONE) == ALICES


@pytest.mark.parametrize("upstream", ["off", "auto"])
def test_without_a_mapping_an_offer_leaves_as_it_came(upstream: str) -> None:
    wire = Wire(behind(upstream, mapped=False)).sign_on()
    assert wire.client(PROPOSAL) == PROPOSAL
    assert not len(wire.router.pinholes)
    reason = wire.router.watcher.reports[-1].reason
    assert ("the router in front has mapped no port" in reason) is (upstream == "auto")
    assert "remedy: " in reason


def test_two_offers_take_two_mappings_and_a_third_one_is_left() -> None:
    made = table()
    assert ask(made, A).told == TOLD_ONE
    assert ask(made, A).told == TOLD_ONE, "the same again"
    assert ask(made, B, port=5191).told == TOLD_TWO
    with pytest.raises(Refused, match=r"mapped 2 ports to .*, and all are in use"):
        ask(made, A, AMY)
    made.close(ALICE, A, "cancelled")
    with pytest.raises(Refused, match="all are in use"):  # whoever was told of it may still come
        ask(made, A, AMY, now=RESERVED_S - 1.0)
    assert ask(made, A, AMY, now=RESERVED_S).told == TOLD_ONE


def test_an_open_pinhole_without_a_mapping_is_not_announced_outside() -> None:
    made = table()
    opened = made.open(
        ALICE, Expectation(A, "x", ALICES, greetings=OFT), Origin("oscar", "10.0.0.5", BEHIND), 0.0
    )
    assert opened.told is None
    assert ask(made, B).told == TOLD_ONE
    assert len(made) == 2


def test_a_mapped_port_that_others_have_is_not_taken() -> None:
    made = table()
    made.firewall.taken.add(ONE)
    assert ask(made).told == TOLD_TWO


def test_where_lengths_may_not_change_only_a_mapping_that_fits_is_announced() -> None:
    made = table()
    assert ask(made, widths=(len(OUTSIDE), 5)).told == TOLD_ONE
    with pytest.raises(Refused, match=UNFIT[:20]):
        ask(made, B, port=5191, widths=(len(OUTSIDE) + 2, 5))
    made.mappings.told[TWO] = Endpoint(OUTSIDE, 9999)
    assert ask(made, B, port=5191, widths=(len(OUTSIDE), 4)).told == Endpoint(OUTSIDE, 9999)


def test_a_mapping_is_kept_while_a_connection_of_its_closed_pinhole_is_open() -> None:
    made = table()
    ask(made)
    made.claimed(ONE, "8.8.4.20", 1.0, 50000)
    made.close(ALICE, A, "done")
    connection = FlowId(Endpoint("8.8.4.20", 50000), ALICES)
    assert made.mappings.carrying(lambda one: one == connection) == {ONE}
    assert ask(made, B).told == TOLD_TWO, "whoever was told of the other one must not reach this host"
    assert made.mappings.carrying(lambda one: False) == set()
    assert [own for own, _ in made.mappings.free(BEHIND)] == [ONE, TWO]


def test_mappings_are_wanted_from_sign_on_to_sign_off() -> None:
    wire = Wire(behind(mapped=False)).handshake()
    mappings = wire.router.pinholes.mappings
    assert mappings.addresses() == set()
    wire.server(HELLO)
    wire.client(HELLO)
    assert mappings.addresses() == {BEHIND}
    assert wire.router.pinholes.tended() == {wire.flow_id}
    wire.fin(0)
    assert mappings.addresses() == set()


def test_mappings_are_wanted_while_one_of_several_is_signed_on() -> None:
    router = behind(mapped=False)
    wires = [Wire(router, Endpoint("10.0.0.5", port)).sign_on() for port in (40123, 40124)]
    wires[0].fin(0)
    assert router.pinholes.mappings.addresses() == {BEHIND}
    router.kernel.dead.add(wires[1].flow_id)  # without a packet
    router.wait(3.0)
    assert router.pinholes.mappings.addresses() == set()


def test_no_mapping_is_wanted_for_an_address_that_peers_reach_or_if_it_is_off() -> None:
    public = behind(mapped=False)
    public.kernel.outside = "198.51.100.7"
    for router in (public, behind("off", mapped=False)):
        Wire(router).sign_on()
        assert router.pinholes.mappings.addresses() == set()


def test_a_server_at_home_relays_the_mapped_endpoint_and_is_told_by_the_address_in_front() -> None:
    wire = HomeWire(behind()).begun()
    assert wire.told(b"server 10.0.0.9:5190\n") == b"server %s:5190\n" % OUTSIDE.encode()
    assert wire.told(PROPOSAL) == offer(at=TOLD_ONE)
    assert wire.router.pinholes.mappings.addresses() == {BEHIND}


def test_a_client_that_announces_the_address_in_front_means_its_own() -> None:
    nat = Wire(behind()).sign_on().stored.nat
    assert nat is not None
    assert own(Endpoint(OUTSIDE, 5190), nat).inside == ALICES


def test_who_is_in_the_network_between_needs_no_mapping() -> None:
    reach = Reach(None, asks=True)
    assert reach.needs_mapping(BEHIND, "8.8.4.20")
    assert not reach.needs_mapping(BEHIND, "192.168.178.20")
    assert not reach.needs_mapping("198.51.100.7")
    assert not Reach(None).needs_mapping(BEHIND)
