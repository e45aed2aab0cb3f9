"""Outside ports that messages on their way may name are kept from other hosts."""

from __future__ import annotations

from nfreaim.core.address import Endpoint
from nfreaim.core.firewall.policy import PinholePolicy
from nfreaim.core.firewall.reserved import RESERVED_S, Reserved
from nfreaim.core.helper import ANY_PORT, Expectation
from tests.unit.fakes import OUTSIDE
from tests.unit.pinhole_table import ALICE, AMY, OFT, A, Table

HERE = Endpoint("10.0.0.5", 5190)
AT = Endpoint(OUTSIDE, 5190)


def left(table: Table, now: float = 0.0) -> None:
    """Alice's offer of port 5190 leaves as it came."""
    table.offered(ALICE, Expectation(A, "send-file", HERE, greetings=OFT), now)


def test_port_of_a_message_that_left_as_it_came_is_no_other_hosts_for_a_minute() -> None:
    table = Table()
    left(table)
    assert table.ask(flow=AMY, now=1.0).outside.port == 40000
    table.close(AMY, A, "cancelled")
    table.expire(RESERVED_S)
    assert table.ask(flow=AMY, now=RESERVED_S).outside.port == 5190


def test_its_own_host_gets_it() -> None:
    table = Table()
    left(table)
    assert table.ask(now=1.0).outside.port == 5190


def test_port_of_a_pinhole_that_was_closed_early_is_no_other_hosts_for_a_minute() -> None:
    table = Table()
    table.ask()
    table.close(ALICE, A, "cancelled")
    assert table.ask(flow=AMY, now=59.0).outside.port == 40000
    table.close(AMY, A, "cancelled")
    assert table.ask(flow=AMY, now=61.0).outside.port == 5190


def test_one_host_keeps_no_more_ports_than_it_may_have_pinholes() -> None:
    reserved = Reserved(PinholePolicy(per_host=3))
    for port in range(2000, 2010):
        reserved.announced("10.0.0.5", Endpoint(OUTSIDE, port), 0.0)
    free = [reserved.free_for(Endpoint(OUTSIDE, port), "10.0.0.6", 1.0) for port in range(2000, 2010)]
    assert free == [True] * 7 + [False] * 3


def test_so_many_hosts_and_no_more_are_remembered_and_nothing_is_left_over() -> None:
    reserved = Reserved(PinholePolicy())
    for number in range(1100):
        reserved.announced(f"10.0.{number >> 8}.{number & 255}", AT, 0.0)
    assert len(reserved._of) == len(reserved._holders[AT]) == 1024
    reserved.expire(RESERVED_S)
    assert not reserved._of
    assert not reserved._holders


def test_an_offer_of_any_port_keeps_none() -> None:
    reserved = Reserved(PinholePolicy())
    reserved.announced("10.0.0.5", Endpoint("10.0.0.5", ANY_PORT), 0.0)
    assert not reserved._of
