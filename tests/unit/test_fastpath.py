"""The fast path answers as the engine would without it, for packets that are fine and for all others."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from nfreaim.core.address import End
from nfreaim.core.engine import Engine
from nfreaim.core.tcp.segment import ACK, FIN, PSH, RST, SYN, URG
from tests.script_helper import TEXT, ScriptHelper, script
from tests.tcp.packets import packet
from tests.unit.fakes import Router, Wire
from tests.unit.offers import PROPOSAL

_FIXED: frozenset[End] = frozenset()


def altered(random_: random.Random, data: bytes) -> bytes:
    """*data* with some bytes near its beginning changed, or cut, or with more behind it; or as it is."""
    made = bytearray(data)
    match random_.randrange(8):
        case 0 | 1:
            for _ in range(random_.randint(1, 3)):
                made[random_.randrange(min(len(made), 40))] = random_.choice(b"\0\x0a @t\x80\xff")
        case 2:
            del made[random_.randrange(1, len(made)) :]
        case 3:
            made += random_.choice((b"t", TEXT, b"\n", PROPOSAL))
    return bytes(made)


def signed_on(resizes: frozenset[End] = _FIXED) -> tuple[Wire, Engine]:
    wire = Wire(Router(spec=script(resizes=resizes))).sign_on()
    for stream in wire.stored.streams:
        stream.scale = 2
    return wire, wire.router.engine


def without_fast_path(resizes: frozenset[End] = _FIXED) -> tuple[Wire, Engine]:
    wire, engine = signed_on(resizes)
    engine.passes = lambda raw, from_inside, now: False
    return wire, engine


def state(engine: Engine) -> object:
    counters = replace(engine.counters)
    flows: list[object] = [
        (s.next, s.expected, s.gap, len(s.held), s.flow.seen, s.flow.life, s.acked, s.edge)
        for s in engine.flows.streams.values()
    ]
    flows += [flow.reading.reads for flow in engine.flows]
    helpers = [flow.reading.helper for flow in engine.flows]
    positions = [helper.positions() for helper in helpers if isinstance(helper, ScriptHelper)]
    return counters, flows, positions, list(engine._kept.moved)


FLAGS = (ACK, ACK | PSH, ACK | PSH, ACK | FIN, RST, ACK | RST, SYN, ACK | URG, 0, ACK | 0x40)


@pytest.mark.parametrize("resizes", [_FIXED, frozenset(End)], ids=["fixed", "may-grow"])
@pytest.mark.parametrize("seed", range(10))
def test_an_engine_with_the_fast_path_answers_as_one_without(seed: int, resizes: frozenset[End]) -> None:
    random_ = random.Random(seed)
    (wire, fast), (_, slow) = signed_on(resizes), without_fast_path(resizes)
    for token in range(400):
        if not fast.flows.streams or random_.random() < 0.01:
            (wire, fast), (_, slow) = signed_on(resizes), without_fast_path(resizes)
        way = random_.randrange(2)
        stream = next(iter(fast.flows)).streams[way] if len(fast.flows) else None
        if stream is None or not stream.flow.reading.reads:
            (wire, fast), (_, slow) = signed_on(resizes), without_fast_path(resizes)
            continue
        plain = random_.random() < 0.7
        data = random_.choice((b"", TEXT, TEXT, PROPOSAL))
        raw = packet(
            wire.ends[way],
            wire.ends[1 - way],
            (stream.expected + (0 if plain else random_.choice((0, 0, -1, 1, -90, 5000)))) & 0xFFFFFFFF,
            (stream.flow.streams[1 - way].expected + (0 if plain else random_.choice((0, -1, 1))))
            & 0xFFFFFFFF,
            ACK | PSH if plain else random_.choice(FLAGS),
            data if plain or not data else altered(random_, data),
            tcp_options=random_.choice((b"", bytes(12))),
            ip_options=random_.choice((b"", b"", b"", bytes(4))),
        )
        if not plain and random_.random() < 0.3:
            raw = altered(random_, raw)
        from_inside = (way == 0) is (random_.random() < 0.97)
        now = 1000.0 + token
        assert fast.process(raw, token, from_inside, now) == slow.process(raw, token, from_inside, now)
        assert state(fast) == state(slow)


def test_data_that_nobody_wants_takes_the_fast_path_and_nothing_that_could_be_edited() -> None:
    wire, engine = signed_on()
    at = len(wire.sent[0])
    for data, expected in (
        (TEXT, True),
        (PROPOSAL, False),
        (TEXT[:10], False),
    ):
        raw = wire.raw(0, at, data)
        assert engine.passes(raw, True, 1000.0) is expected
        at += len(data) if expected else 0
    assert not engine.passes(wire.raw(0, at, b"", ACK), False, 1000.0), "from the wrong side"
