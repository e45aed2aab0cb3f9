"""Pinholes that outlive their flow only while their host is signed on; announcements of forwarded ports."""

from __future__ import annotations

import pytest

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.firewall.pinhole import Origin, Pinhole
from nfreaim.core.helper import UNFIT, Expectation, Refused
from tests.unit.fakes import OUTSIDE
from tests.unit.pinhole_table import ALICE, AMY, A, B, Table

HOST = ALICE.client.address
SESSION = FlowId(Endpoint(HOST, 40999), Endpoint("203.0.113.9", 1863))
OTHER = FlowId(Endpoint(HOST, 41000), SESSION.server)


def expected(table: Table, name: bytes = A, port: int = 7777, flow: FlowId = ALICE) -> Pinhole:
    host = flow.client.address
    wanted = Expectation(name, "file", Endpoint(host, port), after_flow=60.0, needs_session=True)
    opened = table.open(flow, wanted, Origin("one", host, OUTSIDE), 0.0)
    table.consistent()
    return opened


def test_it_outlives_its_flow_while_its_host_is_signed_on() -> None:
    table = Table()
    table.signed_on(SESSION, "one", HOST)
    expected(table)
    assert SESSION not in table.tended(), "nothing depends on it yet"
    table.close_flow(ALICE, "closed", 100.0)
    assert len(table) == 1
    assert SESSION in table.tended(), "its end has to be found out"
    table.expire(159.0)
    assert len(table) == 1
    table.expire(160.0)
    assert len(table) == 0
    assert SESSION not in table.tended()


def test_it_ends_with_the_last_session_of_its_host() -> None:
    table = Table()
    for flow in (SESSION, OTHER):
        table.signed_on(flow, "one", HOST)
    expected(table)
    table.close_flow(ALICE, "closed", 100.0)
    table.close_flow(SESSION, "closed", 101.0)
    assert len(table) == 1
    table.close_flow(OTHER, "lost", 102.0)
    assert len(table) == 0
    table.consistent()


@pytest.mark.parametrize(
    ("flow", "protocol", "host"), [(SESSION, "two", HOST), (SESSION, "one", "10.0.0.6"), (None, "", "")]
)
def test_it_ends_with_its_flow_if_its_host_is_not_signed_on(
    flow: FlowId | None, protocol: str, host: str
) -> None:
    table = Table()
    if flow is not None:
        table.signed_on(flow, protocol, host)
    expected(table)
    table.close_flow(ALICE, "closed", 100.0)
    assert len(table) == 0


def test_a_session_s_end_changes_nothing_for_pinholes_whose_flow_lives() -> None:
    table = Table()
    table.signed_on(SESSION, "one", HOST)
    expected(table)
    expected(table, B, 7778, AMY)
    table.close_flow(SESSION, "closed", 100.0)
    assert len(table) == 2


@pytest.mark.parametrize(
    ("widths", "fits"), [(None, True), ((11, 4), True), ((11, 5), False), ((8, 4), False)]
)
@pytest.mark.parametrize("known", [False, True])
def test_nothing_is_opened_whose_outside_endpoint_has_another_length(
    widths: tuple[int, int] | None, fits: bool, known: bool
) -> None:
    table = Table()
    if known:
        expected(table, B)
    wanted = Expectation(A, "file", Endpoint(HOST, 7777), after_flow=60.0, widths=widths)
    origin = Origin("one", HOST, OUTSIDE)
    if fits:
        assert table.open(ALICE, wanted, origin, 0.0).outside == Endpoint(OUTSIDE, 7777)
    else:
        with pytest.raises(Refused, match=UNFIT):
            table.open(ALICE, wanted, origin, 0.0)
        assert len(table) == known
        assert table.firewall.changes == known
    table.consistent()


def test_what_is_forwarded_by_somebody_else_and_announced_so_is_left_to_them() -> None:
    table = Table()
    outside = Endpoint(OUTSIDE, 7777)
    table.firewall.foreign.add(outside)
    for announced, refused in ((outside, True), (Endpoint(OUTSIDE, 7778), False), (None, False)):
        wanted = Expectation(A, "file", Endpoint(HOST, 7777), announced=announced)
        if refused:
            with pytest.raises(Refused, match=r"forwards .* already"):
                table.open(ALICE, wanted, Origin("one", HOST, OUTSIDE), 0.0)
        else:
            table.open(ALICE, wanted, Origin("one", HOST, OUTSIDE), 0.0)
