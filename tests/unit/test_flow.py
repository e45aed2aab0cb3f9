"""The table of flows: keys, the handshake, bounds and expiry."""

from __future__ import annotations

import pytest

from nfreaim.core.flow import Endpoint, Flow, FlowLimits, FlowTable, HalfOpen, Owner, owner_of, reverse
from nfreaim.helpers.oscar import OscarHelper

LIMITS = FlowLimits(flows=32, half_open=4, idle=100.0, linger=10.0)


def key(number: int) -> bytes:
    return bytes([10, 0, number >> 8, number & 255, 203, 0, 113, 9]) + b"\x9c\x40\x14\x46"


def flow(number: int, now: float = 0.0) -> Flow:
    return Flow(key(number), 1, 2, OscarHelper(False), now)


def test_a_key_names_the_inside_and_the_outside_end() -> None:
    assert owner_of(key(5)) == Owner(Endpoint("10.0.0.5", 40000), Endpoint("203.0.113.9", 5190))
    assert str(owner_of(key(5))) == "10.0.0.5:40000 > 203.0.113.9:5190"


def test_the_reverse_key_is_that_of_the_answers() -> None:
    assert reverse(key(5)) == bytes([203, 0, 113, 9, 10, 0, 0, 5]) + b"\x14\x46\x9c\x40"
    assert reverse(reverse(key(5))) == key(5)


def test_both_directions_lead_to_the_same_flow() -> None:
    table, added = FlowTable(LIMITS), flow(1)
    assert table.add(added) == []
    assert table.streams[key(1)] is added.streams[0]
    assert table.streams[reverse(key(1))] is added.streams[1]
    assert len(table) == 1
    assert list(table) == [added]


def test_an_answer_counts_once_and_only_with_the_right_number() -> None:
    table = FlowTable(LIMITS)
    assert table.answered(key(1), 1, False) is None
    table.announce(key(1), HalfOpen(2**32 - 1, True, 0.0))
    assert table.answered(key(1), 1, False) is None
    assert table.answered(key(2), 0, False) is None
    assert table.answered(key(1), 0, False) == HalfOpen(2**32 - 1, True, 0.0)  # the number wraps
    assert table.answered(key(1), 0, False) is None


@pytest.mark.parametrize("client_inside", [True, False])
def test_an_answer_comes_from_the_other_side(client_inside: bool) -> None:
    table = FlowTable(LIMITS)
    table.announce(key(1), HalfOpen(7, client_inside, 0.0))
    assert table.answered(key(1), 8, client_inside) is None
    assert table.answered(key(1), 8, not client_inside) == HalfOpen(7, client_inside, 0.0)


def test_a_second_attempt_with_other_numbers_replaces_the_first() -> None:
    table = FlowTable(LIMITS)
    table.announce(key(1), HalfOpen(100, True, 0.0))
    table.announce(key(1), HalfOpen(200, True, 0.0))
    assert table.answered(key(1), 101, False) is None
    assert table.answered(key(1), 201, False) is not None


def test_a_flood_of_half_open_connections_pushes_out_the_oldest_only() -> None:
    table = FlowTable(LIMITS)
    for number in range(1000):
        table.announce(key(number), HalfOpen(number, True, 0.0))
    assert len(table._half_open) == 4
    assert table.answered(key(995), 996, False) is None
    assert table.answered(key(996), 997, False) is not None


def test_a_full_table_gives_up_the_longest_idle() -> None:
    table = FlowTable(LIMITS)
    for number in range(32):
        table.add(flow(number, now=float(number)))
    next(iter(table)).seen = 99.0  # the first one is busy
    evicted = table.add(flow(100))
    assert [old.key for old in evicted] == [key(1), key(2)]
    assert len(table) == 31
    assert key(0) in table.streams


def test_a_table_of_one_flow_makes_room_for_the_next() -> None:
    table = FlowTable(FlowLimits(flows=1))
    table.add(flow(1))
    assert [old.key for old in table.add(flow(2))] == [key(1)]
    assert len(table) == 1


def test_removing_an_old_flow_does_not_remove_the_new_one_of_the_same_key() -> None:
    table, old, new = FlowTable(LIMITS), flow(1), flow(1)
    table.add(old)
    table.remove(old)
    table.add(new)
    table.remove(old)
    assert list(table) == [new]


def test_idle_and_closed_flows_expire_each_at_their_own_time() -> None:
    table, idle, closed, busy = FlowTable(LIMITS), flow(1), flow(2, 95.0), flow(3, 95.0)
    for each in (idle, closed, busy):
        table.add(each)
    closed.closed = 95.0
    assert table.expire(99.0) == []
    assert table.expire(100.0) == [idle]
    assert table.expire(105.0) == [closed]
    assert list(table) == [busy]


def test_a_skewed_flow_is_neither_evicted_nor_forgotten_while_idle() -> None:
    table, skewed = FlowTable(LIMITS), flow(0)
    skewed.skewed = True
    table.skewed[skewed.owner] = skewed
    table.add(skewed)
    for number in range(1, 33):
        table.add(flow(number, now=float(number)))
    assert key(0) in table.streams
    assert skewed not in table.expire(1e6)
    assert list(table) == [skewed]
    skewed.closed = skewed.seen = 1e6
    assert table.expire(1e6 + 9) == []
    skewed.seen = 1e6 + 5  # its last bytes come again
    assert table.expire(1e6 + 14) == []
    assert table.expire(1e6 + 15) == [skewed]
    assert not table.skewed
