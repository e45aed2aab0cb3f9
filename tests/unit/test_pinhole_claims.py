"""Who has a pinhole once its peer has come, and how fast pinholes may be opened."""

from __future__ import annotations

import pytest

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.firewall.pinhole import Origin, Pinhole
from nfreaim.core.firewall.policy import RateLimit
from nfreaim.core.greeting import Field, match
from nfreaim.core.helper import Expectation, Refused
from tests.unit.fakes import CLIENT, OUTSIDE, Wire
from tests.unit.offers import PROPOSAL
from tests.unit.pinhole_table import ALICE, AMY, SERVER, A, B, C, Table

BOB, CAROL, EVE = "198.51.100.2", "198.51.100.3", "198.51.100.66"


def test_the_one_who_came_keeps_it_for_the_grace_and_nobody_else_gets_in() -> None:
    table = Table()
    outside = table.ask().outside
    table.claimed(outside, BOB, 100.0)
    table.consistent()
    (pinhole,) = table.firewall.pinholes
    assert (pinhole.peers, pinhole.deadline) == ((BOB,), 110.0)


def test_two_agreements_need_two_peers_and_then_admit_both() -> None:
    table = Table()
    outside = table.ask(A, 4443).outside
    table.ask(B, 4443)
    table.claimed(outside, BOB, 100.0)
    assert [pinhole.peers for pinhole in table.firewall.pinholes] == [()]
    table.claimed(outside, BOB, 101.0)
    assert [pinhole.peers for pinhole in table.firewall.pinholes] == [()]
    table.claimed(outside, CAROL, 102.0)
    table.consistent()
    assert [pinhole.peers for pinhole in table.firewall.pinholes] == [(BOB, CAROL)]


def test_a_new_proposal_opens_a_claimed_pinhole_for_its_own_peer() -> None:
    table = Table()
    outside = table.ask().outside
    table.claimed(outside, BOB, 1.0)
    assert table.ask(B, now=2.0).peers == ()
    table.claimed(outside, CAROL, 3.0)
    table.consistent()
    assert table.firewall.pinholes[0].deadline == 602.0
    table.expire(11.0)  # the first agreement's grace
    assert len(table) == 1


def test_one_that_is_over_does_not_keep_the_next_one_of_its_port_open_for_everybody() -> None:
    """The kernel closes to the millisecond, the table once a second: in between comes the next proposal."""
    table = Table()
    outside = table.ask(A).outside
    table.claimed(outside, BOB, 100.0)
    assert table.ask(B, now=110.5).outside == outside
    assert table.ends == ["done"]
    table.claimed(outside, CAROL, 111.0)
    table.consistent()
    assert [(it.peers, it.deadline) for it in table.firewall.pinholes] == [((CAROL,), 121.0)]


def test_who_came_keeps_it_alone_once_the_agreement_nobody_came_for_is_over() -> None:
    table = Table()
    outside = table.ask(A, now=0.0).outside
    table.ask(B, now=300.0)
    table.claimed(outside, CAROL, 301.0)
    assert table.firewall.pinholes[0].peers == ()
    table.expire(600.0)
    table.consistent()
    assert [(it.peers, it.deadline) for it in table.firewall.pinholes] == [((CAROL,), 610.0)]


def test_an_accept_is_known_to_the_kernel_too() -> None:
    """It closes the pinhole by itself if there is no daemon any more."""
    table = Table()
    table.ask()
    table.accepted(ALICE, A, 10.0)
    assert [pinhole.deadline for pinhole in table.firewall.pinholes] == [70.0]


def test_a_kernel_that_cannot_be_told_of_a_claim_loses_the_pinhole_in_time() -> None:
    table = Table()
    outside = table.ask().outside
    table.firewall.refuse_add = True
    table.claimed(outside, BOB, 100.0)
    assert table.firewall.pinholes == list(table)
    table.expire(110.0)
    assert not table.firewall.pinholes


# --- verified services --------------------------------------------------------------------------------------


def verified(table: Table, cookie: bytes = A, verify: bool = True) -> Pinhole:
    greetings = ((Field(0, frozenset({b"OFT2"})),),) if verify else ()
    expectation = Expectation(cookie, "send-file", Endpoint("10.0.0.5", 4443), greetings=greetings)
    return table.open(ALICE, expectation, Origin("oscar", "10.0.0.5", OUTSIDE), 0.0)


def test_what_is_verified_shares_no_pinhole_with_what_is_not() -> None:
    table = Table()
    file = verified(table)
    assert verified(table, B).outside == file.outside
    talk = verified(table, C, verify=False)
    table.consistent()
    assert (file.verify, talk.verify) == (True, False)
    assert (talk.inside, talk.outside.port) == (file.inside, 40000)
    table.claimed(talk.outside, EVE, 1.0)
    assert match(b"GET ", table.expected(file.inside)) is False
    table.close(ALICE, C, "cancelled")
    assert [one.outside for one in table.firewall.pinholes] == [file.outside]


def test_an_endpoint_is_nobodys_who_alone_announced_it() -> None:
    table = Table()
    outside = table.ask(A).outside
    assert table.inside_of(outside, ALICE) is None
    assert table.inside_of(outside, AMY) == table.inside_of(outside) == Endpoint("10.0.0.5", 5190)
    again = FlowId(Endpoint("10.0.0.5", 40999), SERVER)  # another client of the same host
    assert table.inside_of(outside, again) == Endpoint("10.0.0.5", 5190)
    table.ask(B, flow=again)
    assert table.inside_of(outside, ALICE) == Endpoint("10.0.0.5", 5190)


# --- rate ---------------------------------------------------------------------------------------------------


def many(table: Table, flow: FlowId, number: int, now: float) -> int:
    """So many of *number* proposals, each withdrawn at once, get a pinhole."""
    opened = 0
    for port in range(6000, 6000 + number):
        try:
            table.ask(A, port, flow=flow, now=now)
        except Refused:
            continue
        else:
            opened += 1
            table.close(flow, A, "cancelled")
    return opened


def test_a_host_that_opens_and_closes_without_end_is_slowed_down_and_no_other() -> None:
    table = Table(rate_per_host=12)
    assert many(table, ALICE, 100, now=0.0) == 12
    with pytest.raises(Refused, match=r"12 pinholes a minute to one host \(rate_per_host\)"):
        table.ask(now=4.9)
    assert many(table, AMY, 100, now=0.0) == 12
    assert many(table, ALICE, 100, now=5.0) == 1
    assert many(table, ALICE, 100, now=35.0) == 6
    assert many(table, ALICE, 100, now=1e6) == 12


def test_many_hosts_together_have_a_limit_too() -> None:
    table = Table(rate_total=5)
    hosts = [FlowId(Endpoint(f"10.0.0.{number}", 40123), SERVER) for number in range(10, 20)]
    assert sum(many(table, flow, 1, now=0.0) for flow in hosts) == 5
    with pytest.raises(Refused, match=r"5 pinholes a minute in all \(rate_total\)"):
        table.ask()


def test_what_is_there_already_is_prolonged_and_shared_at_any_rate() -> None:
    table = Table(rate_per_host=1)
    table.ask(A)
    for cookie in (A, B, C):
        assert table.ask(cookie, now=1.0)


def test_buckets_of_hosts_that_rest_are_not_kept_for_ever() -> None:
    limit = RateLimit(2)
    for number in range(5000):
        limit.take(str(number), number * 60.0)
    assert len(limit._buckets) <= 1024


# --- who may have one ---------------------------------------------------------------------------------------


def test_a_client_that_is_in_none_of_the_inside_networks_gets_nothing() -> None:
    wire = Wire().sign_on()
    wire.router.kernel.networks = []
    message = PROPOSAL
    assert wire.client(message) == message
    assert "10.0.0.5 is not a host of the inside networks" in wire.router.watcher.reports[-1].reason


def test_a_host_is_prepared_for_at_sign_on_and_not_before() -> None:
    wire = Wire().sign_on()
    assert wire.router.firewall.prepared == [CLIENT.address]
    wire.client(PROPOSAL)
    assert wire.router.firewall.prepared == [CLIENT.address]
