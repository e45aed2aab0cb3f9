"""What an earlier life left in the kernel: what is taken over, and what is removed."""

from __future__ import annotations

import math

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.firewall.pinhole import Pinhole
from tests.unit.fakes import OUTSIDE
from tests.unit.pinhole_table import ALICE, AMY, SERVER, A, B, C, Table

AGAIN = FlowId(Endpoint("10.0.0.5", 40999), SERVER)


def test_survivors_are_kept_and_strays_removed() -> None:
    table = Table()
    place = Endpoint("10.0.0.5", 5190), Endpoint(OUTSIDE, 5190)
    kept = Pinhole(*place, ALICE, A, "send-file", 100.0, verify=True)
    dead = Pinhole(Endpoint("10.0.0.6", 5190), Endpoint(OUTSIDE, 4001), AMY, A, "talk", 100.0)
    late = Pinhole(Endpoint("10.0.0.5", 5191), Endpoint(OUTSIDE, 4002), ALICE, B, "talk", 50.0)
    never = Pinhole(Endpoint("10.0.0.5", 5192), Endpoint(OUTSIDE, 4003), ALICE, C, "talk", 9999.0)
    twice = Pinhole(Endpoint("10.0.0.5", 5190), Endpoint(OUTSIDE, 4004), ALICE, C, "talk", 100.0, verify=True)
    table.firewall.pinholes = [kept, dead, late, never, twice]
    table.adopt(lambda flow: flow != AMY, 50.0)
    table.consistent()
    assert (list(table), table.watcher.opens) == ([kept], [kept])
    assert [p for p, _ in table.watcher.closes] == [dead, late, never, twice]
    assert table.flows() == {ALICE}
    assert table.ask(now=60.0).outside == kept.outside
    table.close(ALICE, A, "cancelled")
    assert not table.firewall.pinholes


def test_strays_that_cannot_be_removed_are_tried_again() -> None:
    table = Table()
    late = Pinhole(Endpoint("10.0.0.5", 5191), Endpoint(OUTSIDE, 5190), ALICE, B, "talk", 50.0)
    table.firewall.pinholes = [late]
    table.firewall.refuse_remove = True
    table.adopt(lambda flow: True, 60.0)
    assert table.ask(now=60.0).outside.port == 40000
    table.firewall.refuse_remove = False
    table.expire(61.0)
    table.consistent()


def test_what_is_shared_survives_a_crash_after_the_agreement_that_it_was_opened_for_has_ended() -> None:
    """Of several agreements the kernel knows one: it has to be one that lives."""
    for end in ("closed", "its flow is over", "expired", "moved"):
        table = Table()
        table.ask(A, flow=ALICE, service="send-file", now=20.0)
        table.ask(B, flow=AGAIN, service="direct-im")
        if end == "closed":
            table.close(AGAIN, B, "cancelled")
        elif end == "its flow is over":
            table.close_flow(AGAIN, "control connection closed")
        elif end == "expired":
            table.expire(610.0)
        else:
            table.ask(B, 4443, flow=AGAIN, service="direct-im", now=30.0)
        table.consistent()
        left = next(pinhole for pinhole in table.firewall.pinholes if pinhole.inside.port == 5190)
        assert (left.flow, left.agreement, left.service, left.deadline) == (ALICE, A, "send-file", 620.0), end
        later = Table()
        later.firewall.pinholes = [left]
        later.adopt(lambda flow: flow == ALICE, 40.0)
        assert list(later) == [left]


def test_a_kernel_that_refuses_to_hand_a_shared_pinhole_on_is_asked_again() -> None:
    table = Table()
    table.ask(A, flow=ALICE)
    table.ask(B, flow=AGAIN)
    table.firewall.refuse_add = True
    table.close_flow(AGAIN, "control connection closed")
    assert len(table) == 1, "it is still wanted, and has a deadline"
    table.firewall.refuse_add = False
    table.expire(1.0)
    assert [pinhole.flow for pinhole in table.firewall.pinholes] == [ALICE]


def test_a_claimed_pinhole_is_taken_over_as_the_peer_s_own() -> None:
    table = Table()
    left = Pinhole(
        Endpoint("10.0.0.5", 5190), Endpoint(OUTSIDE, 5190), ALICE, A, "send-file", 60.0, ("198.51.100.2",)
    )
    table.firewall.pinholes = [left]
    table.adopt(lambda flow: True, 55.0)
    table.consistent()
    assert list(table) == [left]
    table.claimed(left.outside, "198.51.100.2", 56.0)
    table.expire(60.0)
    assert not table.firewall.pinholes


def test_of_several_with_one_name_only_the_latest_is_taken_over() -> None:
    """Others could not be closed when it replaced them; one that nobody closes would be open for good."""
    table = Table()
    left = [
        Pinhole(
            Endpoint("10.0.0.5", inside),
            Endpoint(OUTSIDE, port),
            ALICE,
            b"",
            "icq-direct",
            math.inf,
            since=since,
        )
        for inside, port, since in ((4001, 40000, 1.0), (4003, 40002, 3.0), (4002, 40001, 2.0))
    ]
    table.firewall.pinholes = list(left)
    table.adopt(lambda flow: True, 10.0)
    table.consistent()
    assert list(table) == table.firewall.pinholes == [left[1]]
    table.close_flow(ALICE, "signed off")
    assert not table.firewall.pinholes
