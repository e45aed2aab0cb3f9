"""The table of flows: keys, the handshake, bounds and expiry."""

from __future__ import annotations

from nfreaim.core.address import End, Endpoint, FlowId, flow_id, key_of, reverse
from nfreaim.core.flow import Event, Flow, Reading, State
from nfreaim.core.flow_table import FlowLimits, FlowTable
from nfreaim.core.tcp.offsets import Edit
from tests.script_helper import ScriptHelper

LIMITS = FlowLimits(flows=32, half_open=4, idle=100.0, linger=10.0)


def key(number: int) -> bytes:
    return bytes([10, 0, number >> 8, number & 255, 203, 0, 113, 9]) + b"\x9c\x40\x14\x46"


def flow(number: int, now: float = 0.0) -> Flow:
    return read(Flow(key(number), (1, 2), End.CLIENT, now), established=False)


def read(made: Flow, established: bool) -> Flow:
    """*made*, read by a helper."""
    made.reading = Reading(ScriptHelper(established), State.ESTABLISHED if established else State.NEW)
    return made


def test_a_key_names_the_inside_and_the_outside_end() -> None:
    assert flow_id(key(5)) == FlowId(Endpoint("10.0.0.5", 40000), Endpoint("203.0.113.9", 5190))
    assert str(flow_id(key(5))) == "10.0.0.5:40000 > 203.0.113.9:5190"
    assert key_of(flow_id(key(5))) == key(5)


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
    table.skew(skewed)
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


def served(number: int) -> Flow:
    """A flow whose server is inside, of a protocol that changes lengths there."""
    made = Flow(key(number), (1, 2), End.SERVER, 0.0)
    made.resizable = True
    return made


def signed_on(client: int, port: int, now: float) -> Flow:
    ends = bytes([10, 0, 0, client, 203, 0, 113, 9]) + port.to_bytes(2, "big") + b"\x14\x46"
    return read(Flow(ends, (1, 2), End.CLIENT, now), established=True)


def test_a_host_with_thousands_of_busy_flows_pushes_out_nobody_else() -> None:
    """All signed on, at a server that is in the know, and busier than everybody else's."""
    table = FlowTable(FlowLimits(flows=320))
    others = [signed_on(5, port, 0.0) for port in range(60)] + [signed_on(6, 1, 0.0)]
    for other in others:
        assert table.add(other) == []
    for port in range(2000):
        table.add(signed_on(7, port, 10.0 + port))
        assert len(table) <= 320
    assert all(table.streams.get(other.key) for other in others)


def test_many_hosts_with_a_handshake_each_push_out_no_session() -> None:
    table = FlowTable(LIMITS)
    session = signed_on(255, 1, 0.0)
    table.add(session)
    for number in range(1, 2000):
        table.add(flow(number, now=float(number)))
    assert session.key in table.streams


def test_what_is_not_read_goes_before_what_is_busier_and_read() -> None:
    table = FlowTable(LIMITS)
    for number in range(32):
        table.add(flow(number, now=float(number)))
    bypassed, closed = list(table)[30:]
    bypassed.stop_reading(Event.GIVEN_UP)
    closed.closed = 31.0
    assert table.add(flow(100)) == [bypassed, closed]


def test_a_sixteenth_at_a_time_is_looked_at_for_expiry_and_in_the_end_everything() -> None:
    table = FlowTable(FlowLimits(idle=100.0))
    for number in range(10_000):
        table.add(flow(number))
    calls = [len(table.expire(1000.0)) for _ in range(4)]
    assert sum(calls) == 10_000
    assert max(calls) <= 4096
    assert not len(table)


def test_the_number_of_flows_that_are_never_evicted_is_bounded() -> None:
    table = FlowTable(FlowLimits(flows=32, skewed=3))
    for number in range(3):
        assert not table.may_skew(flow(number)), "its client is inside, and its protocol does not ask for it"
        skewed = served(number)
        assert table.may_skew(skewed)
        table.skew(skewed)
    more = served(3)
    assert not table.may_skew(more)
    assert table.may_skew(skewed), "it is one of them"


def test_of_too_many_edits_those_made_longest_ago_are_forgotten_and_their_shifts_are_not() -> None:
    table = FlowTable(FlowLimits(edits=5))
    flows = [flow(number) for number in range(3)]
    for number, each in enumerate(flows):
        table.add(each)
        each.streams[0].edit([Edit(10, 12, b"abcd"), Edit(20, 21, b"x")])
        assert table.edited(each) == (number == 2)
    assert flows[0].streams[0].map.edits == []
    assert flows[0].streams[0].map.fwd(100) == 102
    assert len(flows[1].streams[0].map.edits) == 2
    table.remove(flows[1])
    table.add(flow(9))
    assert table.edited(flow(9)) == 0
