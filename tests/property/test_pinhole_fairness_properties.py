"""Whoever asks in whatever order: the limits hold, and nobody loses one to a machine that has as many."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.helper import Refused
from tests.unit.pinhole_table import SERVER, Table

TOTAL = 12
# Three addresses are one machine's, the others are a machine each.
HOSTS = ("10.0.1.1", "10.0.1.2", "10.0.1.3", "10.0.0.5", "10.0.0.6", "10.0.0.7")


def machine(address: str) -> str:
    return "one machine" if address.startswith("10.0.1.") else address


steps = st.tuples(st.sampled_from(HOSTS), st.integers(0, 11), st.sampled_from(("open", "close", "claim")))


@settings(max_examples=200, deadline=None)
@given(st.lists(steps, max_size=120))
def test_the_limits_hold_and_who_has_least_is_served(asked: list[tuple[str, int, str]]) -> None:
    table = Table(machine=machine, total=TOTAL, per_flow=100, rate_per_host=10**5, rate_total=10**6)

    def held() -> Counter[str]:
        return Counter(machine(pinhole.inside.address) for pinhole in table)

    for now, (host, number, what) in enumerate(asked):
        flow, agreement = FlowId(Endpoint(host, 40000), SERVER), b"%d" % number
        if what == "close":
            table.close(flow, agreement, "cancelled")
            continue
        if what == "claim":
            for pinhole in table:
                if pinhole.inside == Endpoint(host, 4000 + number):
                    table.claimed(pinhole.outside, "203.0.113.20", now / 1000)
            continue
        before, gave_way = held(), table.gave_way
        try:
            table.ask(agreement, 4000 + number, flow, now / 1000)
        except Refused:
            assert before.total() == TOTAL
            assert before.most_common(1)[0][1] - before[machine(host)] < 2, "refused though another has more"
            continue
        assert len(table) <= TOTAL
        if table.gave_way > gave_way:
            (loser,) = before - held()
            assert before[loser] == before.most_common(1)[0][1]
            assert held()[loser] >= held()[machine(host)]
