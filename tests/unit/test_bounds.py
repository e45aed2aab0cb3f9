"""What an engine remembers is bounded, and who gives way is whoever matters least."""

from __future__ import annotations

import pytest

from nfreaim.core.address import Endpoint
from nfreaim.core.flow_table import FlowLimits, Quota
from nfreaim.core.settings import EngineSettings
from nfreaim.core.tcp.segment import SYN
from tests.unit.fakes import Router, Wire
from tests.unit.offers import EDITED, PROPOSAL, SECOND, of


def another(router: Router, host: int, port: int) -> Wire:
    router.now += 0.001
    return Wire(router, client=Endpoint(f"10.0.0.{host}", port))


def test_a_full_table_gives_up_idle_flows_and_releases_what_they_hold() -> None:
    router = Router(EngineSettings(limits=FlowLimits(flows=16)))
    another(router, 5, 1).sign_on().client(SECOND[:150])
    assert router.open_tokens
    for port in range(2, 18):
        another(router, 5, port).sign_on()
        assert len(router.engine.flows) <= 16
    assert not router.open_tokens
    assert router.engine.counters.evicted_flows == 1


def test_a_flow_with_a_pinhole_gives_way_last_and_takes_it_along() -> None:
    router = Router(EngineSettings(limits=FlowLimits(flows=2)))
    another(router, 5, 1).sign_on().client(PROPOSAL)
    for port in range(2, 20):
        another(router, 6, port).sign_on()
    assert len(router.pinholes) == 1
    flows = router.engine.flows
    flows.remove(next(flow for flow in flows if flow.id.client.port == 19))
    flows.limits = FlowLimits(flows=1)
    another(router, 6, 20).handshake()
    assert not len(router.pinholes)
    assert router.watcher.closes[-1][1] == "too many control connections"


def test_a_flood_of_half_open_connections_stays_bounded() -> None:
    router = Router(EngineSettings(limits=FlowLimits(flows=16, half_open=100)))
    for port in range(1, 2000):
        another(router, 99, port).inject(0, -1, flags=SYN)
    assert 50 <= len(router.engine.flows.half_open) <= 100
    assert router.engine.counters.evicted_half_open >= 1899
    assert len(router.engine.flows) == 0
    for port in range(1, 200):
        another(router, 99, port).client(b"no beginning")
    assert len(router.engine._sets._offloaded) == 16
    assert Wire(router).sign_on().client(PROPOSAL) == EDITED


def test_a_handshake_amid_a_flood_is_recognised() -> None:
    router = Router(EngineSettings(limits=FlowLimits(half_open=1000)))
    wire = another(router, 5, 40123)
    wire.inject(0, -1, flags=SYN)
    for port in range(1, 500):
        another(router, 99, port).inject(0, -1, flags=SYN)
    wire.inject(1, -1, flags=SYN | 0x10)
    wire.inject(0, 0, flags=0x10)
    assert router.engine.counters.flows == 1


def test_lines_that_never_end_are_given_up_for_all_together_longest_idle_first() -> None:
    """Each flow may keep 8 KiB for itself, but not all of them at once."""
    router = Router(EngineSettings(limits=FlowLimits(half_read=20_000)))
    hostile = [another(router, 6, port).sign_on() for port in range(1, 11)]
    for wire in hostile:
        wire.client(b"text " + bytes(4000))
    one = another(router, 5, 1).sign_on()
    one.client(PROPOSAL[:60])
    router.wait(1.0)
    flows = router.engine.flows
    reading = [
        flow.id.client.port for flow in flows if flow.reading.reads and flow.id.client.address != "10.0.0.5"
    ]
    assert reading == [7, 8, 9, 10]
    assert router.engine.counters.evicted_half_read == 6
    assert flows.half_read.total == sum(
        router.kept_bytes(flow.reading.helper, way) for flow in flows for way in (0, 1) if flow.reading.reads
    )
    one.client(PROPOSAL[60:])
    assert [pinhole.inside.address for pinhole in router.pinholes] == ["10.0.0.5"]
    for wire in hostile[6:]:
        wire.client(b"\n")
    assert flows.half_read.total == 0


def test_edits_are_remembered_up_to_a_sum_and_sessions_go_on() -> None:
    router = Router(EngineSettings(limits=FlowLimits(edits=4)))
    first, second = (another(router, host, 40123).sign_on() for host in (5, 6))
    own = of("10.0.0.6")
    assert first.client(PROPOSAL) == EDITED
    for _ in range(6):
        assert second.client(own) != own
    assert router.engine.counters.evicted_edits
    assert not any(stream.map.edits for stream in next(iter(router.engine.flows)).streams)
    assert first.client(PROPOSAL) == EDITED


def test_ledger_gives_up_the_share_that_was_unchanged_longest() -> None:
    ledger: Quota[str] = Quota(10)
    for holder, share in (("a", 4), ("b", 4), ("c", 2), ("a", 5)):
        ledger.set(holder, share)
    assert ledger.total == 11
    assert ledger.surplus() == ["b"]
    assert (ledger.total, ledger.surplus()) == (7, [])
    ledger.set("a", 0)
    ledger.set("b", 0)  # it is unknown
    assert ledger.total == 2
    ledger.set("d", 20)
    assert ledger.surplus() == ["c"]


@pytest.mark.parametrize("engines", [1, 2, 3, 16])
def test_several_engines_remember_no_more_together_than_one(engines: int) -> None:
    whole, part = EngineSettings(), EngineSettings().share(engines)
    assert part.hold_packets * engines <= whole.hold_packets
    for name in ("flows", "skewed", "half_open", "half_read", "edits"):
        assert 0 < getattr(part.limits, name) * engines <= getattr(whole.limits, name), name
    assert part.limits.skewed_per_host <= part.limits.skewed
    assert (part == whole) is (engines == 1)
