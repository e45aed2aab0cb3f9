"""FollowedServers: who is followed for how long, who gives way, and that the kernel's set is the same."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest

from nfreaim.core.address import End, Endpoint
from nfreaim.core.backend import Followed
from nfreaim.core.flow import Flow
from nfreaim.core.followed import (
    FOLLOWED_FOR_S,
    FollowedServers,
    FollowLimits,
    adopt_all,
    is_of_another_service,
)
from nfreaim.core.helper import Refused
from nfreaim.core.queue_sets import QueueSets
from nfreaim.core.tcp.segment import ACK
from nfreaim.errors import BackendError
from tests.script_helper import script
from tests.tcp.packets import packed, packet
from tests.unit.fakes import FakeKernel, Wire
from tests.unit.oscar_fixtures import Router

ALICE, AMY = "10.0.0.5", "10.0.0.6"


def one(number: int, client: str = ALICE, protocol: str = "script") -> Followed:
    return Followed(Endpoint("198.51.100.7", 20000 + number), client, protocol)


def table_of(limits: FollowLimits | None = None) -> tuple[FollowedServers, FakeKernel]:
    kernel = FakeKernel()
    return FollowedServers(kernel, limits), kernel


def flow() -> Flow:
    """Alice's, to the server at 203.0.113.9:5190."""
    made = Flow(packed(ALICE) + packed("203.0.113.9") + b"\x9c\xbb\x14\x46", (1, 2), End.CLIENT, 0.0)
    made.protocol = script().name
    return made


def same(table: FollowedServers, kernel: FakeKernel) -> None:
    assert set(table.all()) == kernel.server_set
    assert len(table) == len(kernel.server_set)


def test_who_is_redirected_without_end_has_the_latest_only() -> None:
    table, kernel = table_of()
    for number in range(100):
        table.follow(one(number), 0.0)
        same(table, kernel)
    assert sorted(each.server.port for each in table.all()) == [*range(20084, 20100)]


def test_a_server_that_its_client_connected_to_gives_way_to_none() -> None:
    table, kernel = table_of()
    for number in range(16):
        table.follow(one(number), 0.0)
        table.used(one(number).server, ALICE, 0.0)
    with pytest.raises(Refused, match="16 servers that this client is connected to"):
        table.follow(one(99), 0.0)
    table.follow(one(99, AMY), 0.0)
    assert len(table) == 17
    same(table, kernel)


def test_when_there_is_room_for_no_more_who_has_most_gives_way() -> None:
    table, kernel = table_of(FollowLimits(16, 20))
    table.follow(one(0, AMY), 0.0)
    for client in range(16):
        table.follow(one(client), 0.0)
    for client in range(10):
        table.follow(one(0, f"10.0.1.{client}"), 0.0)
        same(table, kernel)
    assert table.protocol(one(0, AMY).server, AMY) == "script"
    assert len(table) == 20
    for each in table.all():
        table.used(each.server, each.client, 0.0)
    with pytest.raises(Refused, match="20 servers in all"):
        table.follow(one(0, "10.0.2.1"), 0.0)
    same(table, kernel)


def test_what_nobody_connects_to_ends_after_minutes_in_table_and_set_at_once() -> None:
    table, kernel = table_of()
    table.follow(one(0), 0.0)
    table.expire(FOLLOWED_FOR_S - 1)
    assert len(table) == 1
    table.expire(FOLLOWED_FOR_S)
    assert len(table) == 0
    same(table, kernel)


def test_the_same_server_for_another_protocol_is_one_entry() -> None:
    table, kernel = table_of()
    table.follow(one(0, protocol="one"), 0.0)
    kernel.server_set.clear()  # the kernel's entry has one comment at a time
    table.follow(one(0, protocol="two"), 0.0)
    same(table, kernel)
    assert table.protocol(one(0).server, ALICE) == "two"


def test_a_kernel_that_refuses_is_not_believed_to_follow() -> None:
    table, kernel = table_of()
    kernel.broken = True
    with pytest.raises(BackendError):
        table.follow(one(0), 0.0)
    table.adopt(one(1), 100.0, 0.0)
    assert len(table) == 0


def test_an_earlier_daemon_s_entries_are_bounded_the_same_way() -> None:
    table, kernel = table_of(FollowLimits(16, 40))
    found = [(one(number, client), 1.0 + number) for client in (ALICE, AMY) for number in range(100)]
    found += [(one(0, f"10.0.1.{number}"), 7200.0) for number in range(30)]
    kernel.server_set = {each for each, _ in found}
    table.adopt(one(3), 0.0, 0.0)  # a session is there
    random.Random(1).shuffle(found)
    adopt_all(table, found, 0.0)
    same(table, kernel)
    assert len(table) == 40
    assert table.protocol(one(3).server, ALICE) == "script"
    table.expire(FOLLOWED_FOR_S)
    same(table, kernel)
    assert len(table) == 0


def test_any_sequence_leaves_set_and_table_the_same() -> None:
    rng = random.Random(5)
    table, kernel = table_of(FollowLimits(3, 8))
    now = 0.0
    for _ in range(5000):
        now += rng.random() * 20
        what = one(rng.randrange(6), f"10.0.0.{rng.randrange(6)}")
        with suppress(Refused):
            match rng.randrange(4):
                case 0:
                    table.follow(what, now)
                case 1:
                    table.used(what.server, what.client, now)
                case 2:
                    table.adopt(what, 50.0, now)
                case 3:
                    table.expire(now)
        same(table, kernel)
        assert len(table) <= 8


@pytest.mark.parametrize(
    "port", [1, 22, 25, 53, 80, 110, 143, 443, 587, 853, 993, 1023, 1863, 3306, 3389, 8080]
)
def test_no_redirect_leads_to_the_port_of_another_service(port: int) -> None:
    assert is_of_another_service(port)
    kernel = FakeKernel()
    named = Endpoint("203.0.113.9", port)
    with pytest.raises(Refused, match="another service's; if it is not, add it to ports"):
        QueueSets({5190: script()}, kernel, 16).follow(named, flow(), set(), 0.0)
    QueueSets({5190: script(), port: script()}, kernel, 16).follow(named, flow(), set(), 0.0)
    assert not kernel.server_set, "the rules queue it anyway"


def test_no_redirect_leads_to_the_port_of_another_protocol_that_is_read() -> None:
    sets = QueueSets({5190: script(), 20001: script(name="other")}, FakeKernel(), 16)
    with pytest.raises(Refused, match="port 20001 is read for other"):
        sets.follow(one(1).server, flow(), set(), 0.0)


def test_the_servers_that_one_connection_names_are_bounded_and_one_again_is_none_more() -> None:
    wire = Wire().sign_on()
    for number in [*range(100), 0, 1]:
        wire.server(b"server 203.0.113.9:%d\n" % (20000 + number))
    assert [each.server.port for each in wire.router.kernel.followed] == [*range(20000, 20008)]
    assert len(wire.router.engine.flows) == 1
    for number in range(100):
        wire.server(b"server 203.0.113.%d:5190\n" % number)
    wire.server(b"server 203.0.113.9:20001\n")
    other = Wire(wire.router, client=Endpoint(ALICE, 40999)).sign_on()
    other.server(b"server 203.0.113.9:20050\n")
    assert len(wire.router.kernel.followed) == 9


@pytest.mark.parametrize("from_inside", [True, False])
def test_what_is_queued_and_read_by_nobody_leaves_the_queue(from_inside: bool) -> None:
    """An entry that the daemon does not know, whoever made it: 100 MiB must not come packet by packet."""
    router = Router()
    for client in range(40000, 40010):
        ours, theirs = Endpoint(ALICE, client), Endpoint("198.51.100.7", 8000)
        ends = (ours, theirs) if from_inside else (theirs, ours)
        raw = packet(*ends, 1, 1, ACK, b"data")
        ((_, verdict),) = router.engine.process(raw, 1, from_inside, 0.0)
        assert (verdict.accept, verdict.payload) == (True, None)
    assert [(flow.client, flow.server) for flow in router.kernel.offloaded] == [
        (Endpoint(ALICE, client), Endpoint("198.51.100.7", 8000)) for client in range(40000, 40010)
    ]
    router.engine.process(raw, 1, from_inside, 0.0)
    assert [flow.client for flow in router.kernel.offloaded[-2:]] == [
        Endpoint(ALICE, 40009),  # the entry ended, or
        Endpoint("198.51.100.7", 8000),  # the server is inside
    ]
