"""What is told of flows: the newest, those that are not over, and few enough that no packet waits for it."""

from __future__ import annotations

from nfreaim.core.address import Direction, End, Endpoint, FlowId, key_of
from nfreaim.core.flow import Flow
from nfreaim.core.flow_table import MOST_TOLD, FlowLimits, FlowTable

SERVER = Endpoint("203.0.113.9", 5190)


def added(table: FlowTable, number: int, inside: End = End.CLIENT) -> Flow:
    flow = Flow(key_of(FlowId(Endpoint("10.0.0.5", number), SERVER)), (0, 0), inside, float(number))
    flow.protocol = "one"
    table.add(flow)
    return flow


def test_a_flow_is_told_with_protocol_inside_end_state_and_beginning() -> None:
    table = FlowTable(FlowLimits())
    flow = added(table, 40, End.SERVER)
    flow.seen = 90.0
    (told,) = table.stats({"packets": 1}).newest
    assert told == (flow.id, "one", End.SERVER, "bypassed", 40.0)


def test_flows_that_are_over_are_known_and_not_told() -> None:
    table = FlowTable(FlowLimits())
    over, _ = added(table, 40), added(table, 41)
    for direction in Direction:
        over.end(direction, 50.0)
    stats = table.stats({})
    assert stats.flows == 2
    assert [one.since for one in stats.newest] == [41.0]


def test_of_many_the_newest_are_told() -> None:
    table = FlowTable(FlowLimits())
    for number in range(1, 3 * MOST_TOLD):
        added(table, number)
    told = [one.since for one in table.stats({}).newest]
    assert told == [float(number) for number in range(3 * MOST_TOLD - 1, 2 * MOST_TOLD - 1, -1)]
