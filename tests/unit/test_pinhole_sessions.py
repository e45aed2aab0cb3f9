"""Pinholes that stay for a whole session, and ports that a forward of the configuration has."""

from __future__ import annotations

import math

import pytest

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.firewall.pinhole import Origin, Pinhole
from nfreaim.core.firewall.policy import Forward
from nfreaim.core.helper import Expectation, Refused
from tests.unit.fakes import OUTSIDE
from tests.unit.pinhole_table import ALICE, AMY, OFT, SERVER, A, Table, capped

AGAIN = FlowId(Endpoint("10.0.0.5", 40999), SERVER)


def publish(table: Table, port: int = 4001, flow: FlowId = ALICE, now: float = 0.0) -> Pinhole:
    inside = Endpoint(flow.client.address, port)
    expectation = Expectation(b"", "icq-direct", inside, standing=True, greetings=OFT)
    pinhole = table.open(flow, expectation, Origin("oscar", flow.client.address, OUTSIDE), now)
    table.consistent()
    return pinhole


def kinds(table: Table) -> list[tuple[int, bool]]:
    """Inside port of each pinhole in the kernel, and whether it stays for a session."""
    return [(pinhole.inside.port, pinhole.standing) for pinhole in table.firewall.pinholes]


def test_neither_time_nor_peers_nor_an_accept_end_it() -> None:
    table = Table()
    pinhole = publish(table)
    table.accepted(ALICE, b"", 1.0)
    for number in range(5):
        table.claimed(pinhole.outside, f"203.0.113.{30 + number}", 2.0)
    table.expire(1e9)
    assert kinds(table) == [(4001, True)]
    assert len(table.watcher.claims) == 5
    table.close_flow(ALICE, "signed off")
    assert not table.firewall.pinholes
    assert not table.has_standing()


def test_forged_peers_fill_neither_memory_nor_log() -> None:
    table = Table()
    pinhole = publish(table)
    for number in range(1000):
        table.claimed(pinhole.outside, f"198.51.{number // 250}.{number % 250}", 1.0)
    assert len(table.watcher.claims) == 256


def test_a_renewal_changes_nothing_and_another_port_takes_its_place() -> None:
    table = Table(caps=capped(1))
    first = publish(table)
    assert publish(table, now=100.0) == first
    assert first.since == 0.0
    assert table.firewall.changes == 1
    publish(table, 4002, now=200.0)
    assert kinds(table) == [(4002, True)]


def test_the_cap_for_one_host_leaves_the_others_alone() -> None:
    table = Table(caps=capped(1))
    publish(table)
    with pytest.raises(Refused, match=r"1 session-long pinholes to one host \(icq_per_host\)"):
        publish(table, 4002, flow=AGAIN)
    publish(table, flow=AMY)
    table.ask()
    assert len(table) == 3
    table.close(ALICE, b"", "no longer published")
    publish(table, 4002, flow=AGAIN)


def test_a_proposal_on_the_published_port_shares_it_and_leaves_the_rule_alone() -> None:
    table = Table()
    pinhole = publish(table)
    assert table.ask(port=4001, peer="203.0.113.20", now=10.0) == pinhole
    assert table.firewall.changes == 1
    table.claimed(pinhole.outside, "203.0.113.20", 20.0)
    table.claimed(pinhole.outside, "203.0.113.21", 20.0)
    table.expire(100.0)
    table.consistent()
    table.close(ALICE, A, "cancelled")
    assert kinds(table) == [(4001, True)]


def test_both_agreements_of_a_flow_end_with_it_although_the_kernel_gives_their_pinhole_no_deadline() -> None:
    table = Table()
    publish(table)
    table.ask(port=4001, now=10.0)
    table.firewall.refuse_add = True
    table.close_flow(ALICE, "control connection closed")
    table.consistent()
    assert not table.firewall.pinholes


def test_a_session_that_is_over_leaves_a_rule_with_a_deadline_to_the_proposal_that_shares_it() -> None:
    table = Table()
    publish(table)
    table.ask(port=4001, now=10.0)
    table.close(ALICE, b"", "no longer published")
    table.consistent()
    (pinhole,) = table.firewall.pinholes
    assert (pinhole.deadline, pinhole.agreement) == (610.0, A)
    assert not table.has_standing()
    table.expire(610.0)
    assert not table.firewall.pinholes


def test_a_rule_that_cannot_be_given_its_deadline_back_is_closed() -> None:
    table = Table()
    publish(table)
    table.ask(port=4001, now=10.0)
    table.firewall.refuse_add = True
    table.close(ALICE, b"", "no longer published")
    table.consistent()
    assert not table.firewall.pinholes


def test_a_proposal_s_pinhole_becomes_the_session_s() -> None:
    table = Table()
    table.ask(port=4001, peer="203.0.113.20")
    publish(table, now=5.0)
    (pinhole,) = table.firewall.pinholes
    assert (pinhole.standing, pinhole.agreement, pinhole.peers, pinhole.since) == (True, b"", (), 0.0)
    table.expire(1000.0)
    assert kinds(table) == [(4001, True)]


def test_two_connections_of_one_host_publish_the_same_port() -> None:
    """A client that signs on again before its old connection was found dead."""
    table = Table()
    publish(table)
    publish(table, flow=AGAIN)
    table.close_flow(ALICE, "control connection lost")
    table.consistent()
    assert [pinhole.flow for pinhole in table.firewall.pinholes] == [AGAIN]
    table.close_flow(AGAIN, "signed off")
    assert not table.firewall.pinholes


# --- what a crash leaves -----------------------------------------------------------------------------------


def left(flow: FlowId = ALICE, port: int = 4001, service: str = "icq-direct") -> Pinhole:
    inside = Endpoint(flow.client.address, port)
    return Pinhole(inside, Endpoint(OUTSIDE, port), flow, b"", service, math.inf, since=7.0)


def test_a_session_survives_a_crash_for_as_long_as_its_connection_lives() -> None:
    table = Table()
    kept, dead = left(), left(AMY, 4002)
    table.firewall.pinholes = [kept, dead]
    table.adopt(lambda flow: flow == ALICE, 1e6)
    table.consistent()
    assert list(table) == [kept]
    assert table.ends == ["control connection lost while no daemon ran"]
    assert table.has_standing()
    assert table.inside_of(kept.outside) == kept.inside
    table.expire(2e6)
    table.close_flow(ALICE, "control connection lost")
    assert not table.firewall.pinholes


@pytest.mark.parametrize("hosts", [frozenset(), frozenset({"10.0.0.6"})])
def test_what_was_switched_off_meanwhile_does_not_survive(hosts: frozenset[str]) -> None:
    table = Table(only_for={"icq-direct": hosts})
    table.firewall.pinholes = [left()]
    table.adopt(lambda flow: True, 10.0)
    assert not table.firewall.pinholes
    assert table.ends == ["switched off while no daemon ran"]


def test_a_forward_takes_its_ports_from_what_a_crash_left_to_others() -> None:
    table = Table(forwards=(Forward("10.0.0.5", range(4001, 4003)),))
    own, other = left(), left(AMY, 4002)
    table.firewall.pinholes = [own, other]
    table.adopt(lambda flow: True, 10.0)
    assert list(table) == [own]
    assert table.ends == ["a forward in the configuration has its port"]


# --- forwards -----------------------------------------------------------------------------------------------


def test_nobody_but_its_host_gets_a_port_of_a_forward() -> None:
    table = Table(forwards=(Forward("10.0.0.5", range(20000, 20002)),), ports=range(20000, 20004))
    assert table.ask(port=20001, flow=AMY).outside.port == 20002
    assert table.ask(port=5190, flow=AMY, cookie=b"B").outside.port == 5190
    assert table.ask(port=20001).outside.port == 20001
    table.firewall.taken = {Endpoint(OUTSIDE, 7777)}
    assert table.ask(port=7777, cookie=b"C").outside.port == 20003
