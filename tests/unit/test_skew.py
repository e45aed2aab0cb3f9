"""Skewed flows: what is kept of them, what is refused, and what may never happen to them."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from nfreaim.core import records
from nfreaim.core.address import End
from nfreaim.core.helper import Scan
from nfreaim.core.settings import EngineSettings
from nfreaim.core.tcp.offsets import Edit
from nfreaim.core.tcp.segment import ACK, FIN, RST, SYN, Segment
from tests.playbook.notation import KEY, Stage, perform
from tests.tcp.packets import Packet, checked, near, packet
from tests.unit.fakes import CLIENT, SERVER, Router, Wire

GROWING = ['edit server 0:2 "WIDER"', 'server 0:4 "abcd" ack 0', '-> 0:7 "WIDERcd" may fragment']


def stage(*edits: tuple[int, Edit]) -> Stage:
    made = Stage()
    for way, edit in edits:
        made.plan.edits[way].append(edit)
    return made


def skewed() -> Stage:
    """A flow whose server has sent four bytes, of which the first two became five."""
    made = stage((1, Edit(0, 2, b"WIDER")))
    assert list(made.line('server 0:4 "abcd" ack 0') or ()) == ['0:7 "WIDERcd" may fragment']
    return made


# --- what is written down -----------------------------------------------------------------------------------


def test_a_record_survives_json_and_gives_the_same_flow() -> None:
    made = skewed()
    kept = json.loads(json.dumps(made.router.kernel.protected[KEY]))
    flow, again = next(iter(made.router.engine.flows)), records.flow_of(kept, 5.0)
    assert (again.key, again.inside, again.skewed, again.reading.reads) == (KEY, End.SERVER, True, False)
    for one, two in zip(flow.streams, again.streams, strict=True):
        assert (one.base, one.next, one.expected, one.from_inside) == (
            two.base,
            two.next,
            two.expected,
            two.from_inside,
        )
        assert (one.map.edits, one.map.before, one.map.skewed) == (
            two.map.edits,
            two.map.before,
            two.map.skewed,
        )
    assert records.record(again) == kept


def test_the_record_is_written_before_the_verdict_and_with_every_edit() -> None:
    made = stage((1, Edit(0, 2, b"WIDER")), (1, Edit(4, 6, b"--")), (0, Edit(0, 1, b"")))
    written: list[int] = []
    protect = made.router.kernel.protect

    def watched(key: bytes, record: dict[str, Any]) -> None:
        assert made.token in made.waiting
        written.append(sum(len(stream["edits"]) for stream in record["streams"]))
        protect(key, record)

    made.router.kernel.protect = watched  # type: ignore[method-assign]
    for line in ('server 0:4 "abcd" ack 0', 'server 4:8 "efgh" ack 0', 'client 0:2 "hi" ack 11'):
        assert len(list(made.line(line) or ())) == 1
    assert written == [1, 2, 3]


def test_a_same_length_edit_alone_is_not_written_down() -> None:
    made = stage((1, Edit(0, 2, b"AB")))
    assert list(made.line('server 0:2 "ab" ack 0') or ()) == ['0:2 "AB"']
    assert not made.router.kernel.protected
    assert not made.router.engine.flows.skewed


def test_an_edit_that_cannot_be_protected_is_not_made() -> None:
    made = stage((1, Edit(0, 2, b"WIDER")), (1, Edit(4, 5, b"")))
    list(made.line("client 0 ack 0") or ())
    made.router.kernel.broken = True
    assert list(made.line('server 0:4 "abcd" ack 0') or ()) == ["same"]
    assert not next(iter(made.router.engine.flows)).skewed
    made.router.kernel.broken = False
    assert list(made.line('server 4:6 "ef" ack 0') or ()) == ['4:5 "f"']
    assert KEY in made.router.kernel.protected


def damaged(kept: Any, rng: random.Random) -> Any:
    """*kept* with something in it replaced or missing."""
    if isinstance(kept, (dict, list)) and kept and rng.random() < 0.85:
        copy = kept.copy()
        where = rng.choice(list(copy) if isinstance(copy, dict) else range(len(copy)))
        if rng.random() < 0.2:
            del copy[where]
        else:
            copy[where] = damaged(copy[where], rng)
        return copy
    return rng.choice([None, "", "zz", "00", 1.5, -1, [], {}, [1], True, 2**70, "x" * 24])


def test_a_damaged_record_is_refused_or_harmless() -> None:
    made = skewed()
    kept = made.router.kernel.protected[KEY]
    rng = random.Random(1)
    refused = 0
    for _ in range(3000):
        router = Router()
        try:
            router.engine.restore(damaged(kept, rng), 0.0)
        except (ValueError, KeyError, TypeError):
            refused += 1
            assert len(router.engine.flows) == 0
            continue
        for way, flags in ((0, ACK), (1, ACK), (1, ACK | FIN), (0, RST)):
            raw = Wire(router, isn=(1000, 5000)).raw(way, 3, b"xyz" if flags == ACK else b"", flags)
            ((_, verdict),) = router.engine.process(raw, 0, way == 1, 0.0, True)
            if verdict.payload is not None:
                Packet(verdict.payload).judged()
    assert refused > 1000


def test_a_record_of_a_long_flow_knows_the_shift_of_edits_it_has_forgotten() -> None:
    flow = records.flow_of(skewed().router.kernel.protected[KEY], 0.0)
    for at in range(10, 5000, 3):
        flow.streams[1].edit([Edit(at, at + 1, b"xx")])
    again = records.flow_of(records.record(flow), 0.0).streams[1].map
    assert again.before > 0
    assert [again.fwd(x) for x in range(4000, 6000)] == [
        flow.streams[1].map.fwd(x) for x in range(4000, 6000)
    ]


# --- what is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "edits",
    [
        (Edit(0, 9, b"x"),),
        (Edit(0, 2, b"WIDER"), Edit(3, 5, b"")),
        (Edit(2, 3, b"xx"), Edit(0, 1, b"")),
        (Edit(1, 1, b"x"),),
    ],
    ids=["more than has come", "the second more than has come", "descending", "nothing replaced"],
)
def test_a_helper_that_asks_for_the_impossible_is_no_longer_asked(edits: tuple[Edit, ...]) -> None:
    made = Stage()
    list(made.line("client 0 ack 0") or ())
    made.plan.scan = lambda *_: Scan(edits)  # type: ignore[method-assign]
    assert list(made.line('server 0:4 "abcd" ack 0') or ()) == ["same"]
    assert made.router.engine.counters.failed_flows == 1
    assert not made.router.kernel.protected
    assert list(made.line('server 4:8 "efgh" ack 0') or ()) == ["same"]


# --- how long it lasts --------------------------------------------------------------------------------------


def test_an_idle_skewed_flow_stays_as_long_as_connection_tracking_has_it() -> None:
    made = skewed()
    router = made.router
    router.wait(5 * 3600.0)
    assert KEY in router.kernel.protected
    router.kernel.dead.add(next(iter(router.engine.flows)).id)
    router.wait(2.0)
    assert KEY not in router.kernel.protected
    assert len(router.engine.flows) == 0
    assert not router.engine.flows.skewed


def test_what_comes_late_keeps_a_closed_flow_translated() -> None:
    made = skewed()
    for line in ("server 4 FIN ack 0", "client 0 FIN ack 7"):
        list(made.line(line) or ())
    for _ in range(5):  # the last ACK is lost again and again
        made.router.wait(50.0)
        assert list(made.line("server 4 FIN ack 1") or ()) == ["7"]
    made.router.wait(61.0)
    assert KEY not in made.router.kernel.protected


@pytest.mark.parametrize("ends", [("server 4 FIN ack 0",), ("server 4 FIN ack 0", "client 0 FIN ack 7")])
def test_an_end_that_was_seen_is_known_after_a_crash(ends: tuple[str, ...]) -> None:
    """Connection tracking may have been flushed meanwhile: then nobody else could tell any more."""
    made = skewed()
    for line in ends:
        list(made.line(line) or ())
    again = Router()
    again.kernel.protected = made.router.kernel.protected
    again.engine.restore(json.loads(json.dumps(again.kernel.protected[KEY])), again.now)
    again.kernel.flushed.add(next(iter(again.engine.flows)).id)
    again.wait(2.0)
    again.wait(65.0)
    assert KEY not in again.kernel.protected
    assert len(again.engine.flows) == 0


def test_a_full_table_gives_up_others() -> None:
    made = skewed()
    made.router.engine.flows.limits = EngineSettings().limits.__class__(flows=4)
    for port in range(1, 20):
        Wire(made.router, client=CLIENT._replace(port=port)).handshake()
    assert KEY in made.router.engine.flows.streams


def test_a_flow_to_a_server_that_was_followed_is_reset_when_its_state_is_lost() -> None:
    router = Router()
    other = SERVER._replace(port=4443)
    raw = packet(other, CLIENT, 1, 1, ACK, b"data")
    assert [v.accept for _, v in router.engine.process(raw, 1, False, 0.0, True)] == [False]
    assert [segment.raw for segment in router.kernel.resets] == [raw]
    assert [v.accept for _, v in router.engine.process(raw, 1, False, 0.0, False)] == [True]


def test_a_new_connection_is_not_reset_for_an_old_one_to_a_server_that_was_followed() -> None:
    router = Router()
    other = SERVER._replace(port=4443)
    wire = Wire(router, server=other)
    router.kernel.protected[wire.raw(0, 0)[12:24]] = {}
    handshake = (0, -1, SYN), (1, -1, SYN | ACK), (0, 0, ACK)
    for way, raw in ((way, wire.raw(way, at, flags=flags)) for way, at, flags in handshake):
        ((_, verdict),) = router.engine.process(raw, 0, way == 0, 0.0, True)
        assert (verdict.accept, verdict.payload) == (True, None)
    assert not router.kernel.protected
    ((_, verdict),) = router.engine.process(wire.raw(0, 0, b"hello"), 0, True, 0.0, True)
    assert (verdict.accept, verdict.payload) == (True, None)
    assert not router.kernel.resets


# --- numbers ------------------------------------------------------------------------------------------------


def test_gigabytes_behind_an_edit_everything_is_still_translated() -> None:
    made = skewed()
    engine, at = made.router.engine, 4
    made.plan.scan = lambda *_: Scan()  # type: ignore[method-assign]
    flow = next(iter(engine.flows))
    for _ in range(20):
        at += 2**30
        flow.streams[1].advance(at)
        list(made.line(f"client 0 ack {near(at + 3, 0)}") or ())
        assert list(made.line(f'server {near(at, 0)}:{near(at, 0) + 2} "xy" ack 0') or ()) == [
            f'{near(at + 3, 0)}:{near(at + 3, 0) + 2} "xy"'
        ]
        assert list(made.line(f"client 0 ack {near(at + 5, 0)}") or ()) == [f"0 ack {near(at + 2, 0)}"]


def test_an_unchanged_segment_of_a_skewed_flow_is_not_written_back() -> None:
    perform([*GROWING, 'client 0:4 "hihi" ack 0', "-> same", "server -1 ack 0", "-> same"])


def test_a_segment_is_rebuilt_as_one_that_was_built_that_way() -> None:
    rng = random.Random(2)
    for _ in range(2000):
        ip, tcp = b"\x01" * 4 * rng.randint(0, 10), b"\x01" * 4 * rng.randint(0, 10)
        old, new = (rng.randbytes(rng.choice((0, 1, 2, 7, 40))) for _ in range(2))
        numbers = [rng.choice((0, 1, 2**32 - 1, rng.randrange(2**32))) for _ in range(4)]
        segment = Segment.parse(
            packet(CLIENT, SERVER, numbers[0], numbers[1], ACK, old, ip_options=ip, tcp_options=tcp)
        )
        assert segment is not None
        built = packet(CLIENT, SERVER, numbers[2], numbers[3], ACK, new, ip_options=ip, tcp_options=tcp)
        rebuilt = segment.rebuilt(numbers[2] + 2**32, numbers[3] - 2**32, new, None)
        expected = bytearray(built)
        if len(new) > len(old):  # DF is cleared
            expected[6] = 0
        assert rebuilt.raw == checked(bytes(expected))
        assert (rebuilt.seq, rebuilt.ack, rebuilt.start) == (numbers[2], numbers[3], segment.start)


@pytest.mark.parametrize("options", [b"\5\x0a" + bytes(6), b"\5", b"\5\1", b"\0" * 8, b"\xfe\x04x"])
def test_malformed_options_are_left_as_they_are(options: bytes) -> None:
    options = options.rjust(8, b"\1")
    raw = packet(CLIENT, SERVER, 1, 2, ACK, b"x", tcp_options=options)
    segment = Segment.parse(raw)
    assert segment is not None
    calls: list[tuple[int, int]] = []
    rebuilt = segment.rebuilt(1, 2, b"x", lambda left, right: calls.append((left, right)))
    assert rebuilt.raw == raw
