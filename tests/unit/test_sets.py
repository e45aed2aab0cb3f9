"""QueueSets: what is let out of the queue, and which servers are followed for how long."""

from __future__ import annotations

import pytest

from nfreaim.core.address import End, Endpoint, flow_id
from nfreaim.core.flow import Flow
from nfreaim.core.flow_table import FlowLimits, FlowTable
from nfreaim.core.helper import HelperSpec
from nfreaim.core.noise import SessionReader
from nfreaim.core.queue_sets import QueueSets
from nfreaim.core.settings import EngineSettings
from nfreaim.core.tcp.segment import ACK, SYN
from nfreaim.core.verdict import ACCEPT
from tests.script_helper import TEXT, script
from tests.tcp.packets import packed
from tests.unit.fakes import SERVER, FakeKernel, Router, Wire

OTHER = Endpoint("198.51.100.7", 4443)
SPEC = script()


def protocol_of(sets: QueueSets, key: bytes) -> HelperSpec | None:
    found = sets.protocol_of(key)
    return None if found is None else found.spec


def key(server: Endpoint, port: int = 40123) -> bytes:
    return (
        packed("10.0.0.5") + packed(server.address) + port.to_bytes(2, "big") + server.port.to_bytes(2, "big")
    )


def sets_of(kernel: FakeKernel, bound: int = 16) -> QueueSets:
    return QueueSets({SERVER.port: SPEC}, kernel, bound)


def flow(server: Endpoint, protocol: str = SPEC.name) -> Flow:
    made = Flow(key(server), (1, 2), End.CLIENT, 0.0)
    made.protocol = protocol
    return made


def test_a_server_on_a_port_that_is_read_needs_no_following() -> None:
    kernel = FakeKernel()
    sets = sets_of(kernel)
    sets.follow(Endpoint(OTHER.address, SERVER.port), flow(SERVER), set(), 0.0)
    assert kernel.diverted == []


def test_a_followed_server_is_read_and_no_other_on_its_port() -> None:
    kernel = FakeKernel()
    sets = sets_of(kernel)
    assert sets.protocol_of(key(OTHER)) is None
    sets.follow(OTHER, flow(SERVER), set(), 0.0)
    assert kernel.diverted == [OTHER]
    assert protocol_of(sets, key(OTHER)) is SPEC
    assert sets.protocol_of(key(Endpoint(OTHER.address, 4444))) is None
    assert sets.protocol_of(key(Endpoint("198.51.100.8", OTHER.port))) is None


def test_a_redirect_from_a_flow_that_is_not_read_leads_nowhere() -> None:
    kernel = FakeKernel()
    sets = sets_of(kernel)
    sets.follow(OTHER, flow(Endpoint("192.0.2.1", 80), protocol=""), set(), 0.0)
    assert kernel.diverted == []
    assert sets.protocol_of(key(OTHER)) is None


def test_the_same_redirect_again_bothers_the_kernel_only_now_and_then() -> None:
    kernel = FakeKernel()
    sets = sets_of(kernel)
    for second in range(0, 130, 10):
        sets.follow(OTHER, flow(SERVER), set(), float(second))
    assert kernel.diverted == [OTHER] * 3


def test_a_living_flow_keeps_its_server_followed_for_days() -> None:
    kernel = FakeKernel()
    sets = sets_of(kernel)
    sets.follow(OTHER, flow(SERVER), set(), 0.0)
    alive = [flow(OTHER)]
    for second in range(0, 86400, 60):
        before = len(kernel.diverted)
        sets.expire(float(second), alive)
        assert len(kernel.diverted) <= before + 1
    assert len(kernel.diverted) == 86400 // 60
    sets.expire(86340.0 + 169, [flow(SERVER)])
    assert sets.protocol_of(key(OTHER)) is not None
    assert kernel.server_set
    sets.expire(86340.0 + 170, [flow(SERVER)])
    assert sets.protocol_of(key(OTHER)) is None
    assert not kernel.server_set


def test_the_number_of_followed_servers_is_bounded() -> None:
    kernel = FakeKernel()
    sets = sets_of(kernel)
    for number in range(2000):
        sets.follow(Endpoint(f"198.51.{number >> 8}.{number & 255}", 4443), flow(SERVER), set(), 0.0)
    assert len(sets.followed) == len(kernel.server_set) == 16
    assert sets.protocol_of(key(Endpoint("198.51.0.0", 4443))) is None
    assert sets.protocol_of(key(Endpoint("198.51.7.207", 4443))) is not None


def test_who_is_let_out_of_the_queue_beyond_the_bound_brings_the_oldest_back() -> None:
    """The kernel would go on letting its ends pass, and a new connection of them would not be seen."""
    kernel, flows = FakeKernel(), FlowTable(FlowLimits())
    sets = sets_of(kernel, bound=4)
    for port in range(10):
        sets.offload(key(SERVER, 1 + port), flows)
        assert len(sets._offloaded) == len(kernel.offloaded) <= 4
    assert [each.client.port for each in kernel.offloaded] == [7, 8, 9, 10]


def test_junk_costs_the_kernel_so_many_calls_in_a_time_and_no_more() -> None:
    kernel, flows = FakeKernel(), FlowTable(FlowLimits())
    sets = sets_of(kernel, bound=65536)
    for port in range(5000):
        sets.offload(key(SERVER, 1 + port), flows)
    assert len(kernel.offloaded) == 1024
    sets.expire(2.0, [])
    sets.offload(key(SERVER, 6000), flows)
    assert len(kernel.offloaded) == 1025


def test_a_kernel_that_refuses_is_reported_once() -> None:
    kernel = FakeKernel()
    kernel.broken = True
    sets = sets_of(kernel)
    for number in range(3):
        sets.follow(Endpoint("198.51.100.7", 4443 + number), flow(SERVER), set(), 0.0)
        sets.offload(key(SERVER, number + 1), FlowTable(FlowLimits()))
    assert sets._warned == {"a redirect is not followed", "a flow stays in the queue"}
    assert sets.protocol_of(key(OTHER)) is None  # the set and the table have the same entries
    kernel.broken = False
    sets.undo_offload(key(SERVER, 9))
    assert kernel.offloaded == []


def test_what_is_forgotten_for_want_of_room_is_queued_again() -> None:
    kernel, flows = FakeKernel(), FlowTable(FlowLimits())
    sets = sets_of(kernel, bound=3)
    keys = [key(SERVER, port) for port in range(1024, 1034)]
    for one in keys:
        sets.offload(one, flows)
    assert kernel.offloaded == [flow_id(one) for one in keys[-3:]]
    for one in keys:  # whatever the kernel still has can be taken back
        sets.undo_offload(one)
    assert kernel.offloaded == []


def test_flow_to_another_port_of_the_same_server_stays_in_the_queue() -> None:
    kernel, flows = FakeKernel(), FlowTable(FlowLimits())
    sets = QueueSets({5190: SPEC, 443: SPEC}, kernel, 16)
    flows.add(flow(Endpoint(SERVER.address, 5190)))
    sets.offload(key(Endpoint(SERVER.address, 443)), flows)
    assert kernel.offloaded == []
    sets.offload(key(Endpoint(SERVER.address, 443), 40124), flows)
    sets.offload(key(Endpoint("198.51.100.8", 443)), flows)
    assert len(kernel.offloaded) == 2


def test_flow_to_a_followed_server_stays_in_the_queue() -> None:
    kernel, flows = FakeKernel(), FlowTable(FlowLimits())
    sets = sets_of(kernel)
    sets.follow(OTHER, flow(SERVER), set(), 0.0)
    flows.add(flow(OTHER))
    sets.offload(key(Endpoint(OTHER.address, SERVER.port)), flows)
    assert kernel.offloaded == []


def test_a_flow_goes_with_the_sessions_from_its_servers_answer_on_and_until_it_is_forgotten() -> None:
    """Before that answer has left, no other packet of the flow can be on its way."""
    router = Router(EngineSettings(limits=FlowLimits(flows=4)))
    wire = Wire(router)
    wire.inject(0, -1, flags=SYN)
    assert not router.kernel.known
    wire.inject(1, -1, flags=SYN | ACK)
    assert list(router.kernel.known) == [wire.flow_id]
    wire.inject(0, 0)
    for port in range(2, 12):
        Wire(router, client=Endpoint("10.0.0.6", port)).handshake()
    router.wait(3.0)
    assert set(router.kernel.known) == {flow.id for flow in router.engine.flows}


def test_a_handshake_that_nobody_completes_is_forgotten() -> None:
    router = Router()
    wire = Wire(router)
    wire.inject(0, -1, flags=SYN)
    wire.inject(1, -1, flags=SYN | ACK)
    assert router.kernel.known
    for _ in range(3):
        router.wait(61.0)
    assert not router.kernel.known


def test_a_new_connection_of_the_same_ends_stays_known() -> None:
    router = Router()
    old = Wire(router).sign_on()
    new = Wire(router, isn=(77, 99)).sign_on()
    router.wait(3.0)
    assert list(router.kernel.known) == [new.flow_id] == [old.flow_id]


def test_a_flow_that_the_kernel_forgot_is_told_again_once_no_newcomer_waits() -> None:
    router = Router()
    wire = Wire(router).sign_on()
    router.kernel.known.clear()
    engine = router.engine
    strange = Wire(router, client=Endpoint("10.0.0.6", 9))
    for one in (strange, wire):
        raw = one.raw(0, len(one.sent[0]), b"")
        assert engine.newcomer(raw, 1, True, router.now, False) == [(1, ACCEPT)]
    assert not router.kernel.known, "packets behind this one are still in the other queue"
    assert engine.gather(router.now)
    assert list(router.kernel.known) == [wire.flow_id]
    assert not engine.gather(router.now)


def test_entries_are_renewed_before_they_end_a_few_at_a_time() -> None:
    kernel = FakeKernel()
    sets = sets_of(kernel)
    table = FlowTable(FlowLimits())
    for port in range(1000):
        sets.know(key(SERVER, port + 1), 0.0)
    sets.expire(1000.0, table)
    assert set(kernel.known.values()) == {1}
    sets.expire(2000.0, table)
    assert 0 < sum(count > 1 for count in kernel.known.values()) < 1000
    for second in range(10):
        sets.expire(2002.0 + second, table)
    assert set(kernel.known.values()) == {2}


def test_a_kernel_that_refuses_costs_speed_and_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    router = Router()
    router.kernel.broken = True
    wires = [Wire(router, client=Endpoint("10.0.0.5", port)).sign_on() for port in (1, 2, 3)]
    assert all(wire.read for wire in wires)
    said = [record for record in caplog.records if "waits with the newcomers" in record.getMessage()]
    assert len(said) == 1


def test_a_flow_that_fills_the_sessions_queue_waits_with_the_newcomers_for_a_while() -> None:
    router = Router()
    noisy = Wire(router).sign_on()
    quiet = Wire(router, client=Endpoint("10.0.0.6", 9)).sign_on()
    reader = SessionReader(router.engine)
    strange = noisy.raw(0, 3_000_000_000, b"junk")
    for _ in range(7000):
        assert not reader.passes(strange, True, router.now)
        ((_, verdict),) = reader.process_slow(strange, 1, True, router.now, False)
        assert verdict.payload is None
    assert list(router.kernel.known) == [quiet.flow_id]
    assert noisy.client(TEXT) == TEXT, "it is read as before"
    router.engine.newcomer(noisy.raw(0, len(noisy.sent[0])), 1, True, router.now, False)
    assert not router.engine.gather(router.now)
    router.engine.newcomer(noisy.raw(0, len(noisy.sent[0])), 1, True, router.now + 11, False)
    assert router.engine.gather(router.now + 11)
    assert len(router.kernel.known) == 2
