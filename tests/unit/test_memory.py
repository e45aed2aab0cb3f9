"""What the worst flows keep: a full table of them has to fit into the unit's MemoryMax; see stress.memory."""

from __future__ import annotations

import gc
import tracemalloc

from nfreaim.core.address import Direction, Endpoint
from nfreaim.core.flow_table import FlowLimits
from nfreaim.helpers.irc import _answer, _packed
from stress.memory import fill, most_memory
from tests.unit.oscar_fixtures import Router

SAMPLE = 48
SPARED = 0.6  # of MemoryMax; the rest is for what is bounded in all, see docs/failure.md


def test_a_full_table_of_sessions_that_keep_all_they_can_fits() -> None:
    router, sizes = Router(), []
    fill(router, 0)
    tracemalloc.start()
    try:
        for half in (range(1, SAMPLE), range(SAMPLE, 2 * SAMPLE)):
            before = tracemalloc.get_traced_memory()[0]
            for number in half:
                fill(router, number)
            gc.collect()
            sizes.append((tracemalloc.get_traced_memory()[0] - before) / len(half))
    finally:
        tracemalloc.stop()
    assert sizes[1] < sizes[0] * 1.3 + 500, "what a flow costs does not depend on how many there are"
    assert max(sizes) * FlowLimits().flows < most_memory() * SPARED, f"{max(sizes) / 1024:.1f} KiB a flow"


def test_what_is_remembered_of_a_party_does_not_grow_with_its_name() -> None:
    assert len(_answer(Direction.ORIGINAL, b"ACCEPT", b"n" * 500, 5000)) <= 20
    assert len(_packed(Endpoint("10.0.0.5", 5000), Endpoint("203.0.113.1", 40001))) == 12
