"""Pinholes that may outlive their flow, that agreements of two protocols share, or whose port is taken."""

from __future__ import annotations

import pytest

from nfreaim.core.address import Endpoint
from nfreaim.core.firewall.pinhole import Origin, Pinhole
from nfreaim.core.helper import Expectation
from tests.unit.fakes import OUTSIDE
from tests.unit.pinhole_table import ALICE, A, B, Table

HOST = ALICE.client.address


def expected(table: Table, name: bytes = A, protocol: str = "one", after_flow: float = 0.0) -> Pinhole:
    wanted = Expectation(name, "file", Endpoint(HOST, 7777), after_flow=after_flow)
    opened = table.open(ALICE, wanted, Origin(protocol, HOST, OUTSIDE), 0.0)
    table.consistent()
    return opened


def test_it_stays_for_its_time_and_for_no_longer() -> None:
    table = Table()
    expected(table, after_flow=30.0)
    table.close_flow(ALICE, "control connection closed", 100.0)
    assert len(table) == 1
    assert not table.flows(), "nothing is left to look up"
    assert [pinhole.deadline for pinhole in table.firewall.pinholes] == [130.0]
    table.close_flow(ALICE, "control connection lost", 110.0)
    table.expire(129.0)
    assert len(table) == 1
    table.expire(130.0)
    assert len(table) == 0
    assert table.ends == ["deadline"]


def test_it_never_stays_longer_than_it_would_have() -> None:
    table = Table(lifetime=100.0)
    expected(table, after_flow=1000.0)
    table.close_flow(ALICE, "control connection closed", 90.0)
    table.expire(100.0)
    assert len(table) == 0


@pytest.mark.parametrize(("after_flow", "now"), [(0.0, 100.0), (30.0, None)])
def test_without_leave_or_when_its_helper_says_so_it_ends_at_once(
    after_flow: float, now: float | None
) -> None:
    table = Table()
    expected(table, after_flow=after_flow)
    table.close_flow(ALICE, "signed off", now)
    assert len(table) == 0
    assert not table.firewall.pinholes


def test_of_two_agreements_the_one_that_may_stay_keeps_the_pinhole_and_names_it() -> None:
    table = Table()
    expected(table, A, after_flow=30.0)
    expected(table, B)
    table.close_flow(ALICE, "control connection closed", 100.0)
    (pinhole,) = table.firewall.pinholes
    assert (pinhole.agreement, pinhole.deadline) == (A, 130.0)
    table.expire(130.0)
    assert len(table) == 0


def test_the_kernel_is_told_the_protocol_of_the_agreement_that_it_is_told() -> None:
    table = Table()
    assert expected(table, A, "one").protocol == "one"
    assert expected(table, B, "two").protocol == "two"
    table.close(ALICE, B, "cancelled")
    assert [(each.agreement, each.protocol) for each in table.firewall.pinholes] == [(A, "one")]


def test_one_whose_port_somebody_else_forwards_is_closed_and_no_other() -> None:
    table = Table()
    taken, kept = table.ask(A, port=5200), table.ask(B, port=5201)
    table.close_taken(lambda outside: outside == taken.outside, "another program has its port")
    table.consistent()
    assert [*table] == [kept]
    assert table.ends == ["another program has its port"]
    table.close_taken(lambda outside: False, "another program has its port")
    assert len(table) == 1
