"""Holding: who is due when, and that counting stays right."""

from __future__ import annotations

from dataclasses import replace

from nfreaim.core.address import End
from nfreaim.core.counters import Counters
from nfreaim.core.flow import Flow
from nfreaim.core.output import Holding
from nfreaim.core.tcp.segment import Segment
from nfreaim.core.tcp.stream import Held, Stream
from tests.tcp.packets import PSH_ACK, packet
from tests.unit.fakes import CLIENT, HOLD, SERVER, WITHOUT_CUSTODY


def holding(bound: int = 4096) -> Holding:
    return Holding(replace(WITHOUT_CUSTODY, hold_packets=bound), Counters())


def stream(number: int) -> Stream[Flow]:
    return Flow(number.to_bytes(12, "big"), (1, 2), End.CLIENT, 0.0).streams[0]


def held(since: float, at: int = 0) -> Held:
    segment = Segment.parse(packet(CLIENT, SERVER, 1, 1, PSH_ACK, b"x"))
    assert segment is not None
    return Held(None, segment, at, at, since)


def test_each_stream_is_due_in_its_time_and_nobody_is_woken_for_nothing() -> None:
    table, first, second = holding(), stream(1), stream(2)
    assert table.wakeup() is None
    table.keep(first, held(10.0), 0)
    table.keep(second, held(10.0 + HOLD / 2), 0)
    assert table.wakeup() == 10.0 + HOLD
    assert table.due(10.0) == []
    assert table.due(10.0 + HOLD) == [first]
    table.release(first)
    assert table.wakeup() == 10.0 + HOLD / 2 + HOLD
    table.release(second)
    assert table.wakeup() is None


def test_a_stream_that_let_go_early_wakes_once_at_most() -> None:
    table, early, late = holding(), stream(1), stream(2)
    table.keep(early, held(10.0), 0)
    table.release(early)
    table.keep(late, held(10.0 + HOLD / 2), 0)
    wakes = 0
    now = 10.0
    while not table.due(now):
        wakeup = table.wakeup()
        assert wakeup is not None
        now = max(now, wakeup)
        wakes += 1
    assert now == 10.0 + HOLD / 2 + HOLD
    assert wakes <= 2


def test_the_second_packet_of_a_stream_counts_from_its_own_time_once_the_first_has_left() -> None:
    table, one = holding(), stream(1)
    table.keep(one, held(10.0, at=0), 0)
    table.keep(one, held(10.0 + HOLD / 2, at=1), 0)
    assert len(table.release(one, below=1)) == 1
    assert table.due(10.0 + HOLD) == []
    assert table.due(10.0 + HOLD / 2 + HOLD) == [one]


def test_there_is_room_again_for_each_packet_that_left() -> None:
    table, one, other = holding(2), stream(1), stream(2)
    for at in (0, 1):
        assert table.may(one, at, at, 1)
        table.keep(one, held(10.0, at), 0)
    assert not table.may(other, 0, 0, 1)
    table.release(one, below=1)
    assert table.may(other, 0, 0, 1)


def test_one_client_leaves_room_to_the_others() -> None:
    table, mine, other = holding(1000), stream(0), stream(1 << 64)
    assert mine.flow.key[:4] != other.flow.key[:4]
    for at in range(250):
        assert table.may(mine, at, at, 1)
        table.keep(mine, held(10.0, at), 0)
    assert not table.may(mine, 250, 250, 1)
    assert table.may(other, 0, 0, 1)
    table.release(mine, below=1)
    assert table.may(mine, 250, 250, 1)


def test_a_thousand_streams_are_looked_at_in_the_order_of_their_times() -> None:
    table = holding()
    streams = [stream(number) for number in range(1000)]
    for number, one in enumerate(streams):
        table.keep(one, held(10.0 + number % 10), 0)
    assert table.due(10.0 + HOLD) == streams[::10]
    assert table.wakeup() == 11.0 + HOLD
