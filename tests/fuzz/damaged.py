"""Damaged: records of an earlier daemon's life with anything in them, and what comes of a flow made of them.

An input: which record (1 byte), then damages of four bytes (where:1, what:1, which value:2) up to 0xFF, the
place that was noted with its size before it (1), and packets of six bytes for the flow that is made of it.
"""

from __future__ import annotations

import json
import random
from typing import Any, Final

from nfreaim.core.address import Endpoint
from nfreaim.core.engine import Engine
from nfreaim.core.firewall.policy import PinholePolicy
from nfreaim.core.flow_table import FlowLimits
from nfreaim.core.settings import EngineSettings
from nfreaim.core.tcp.segment import ACK, FIN, RST
from nfreaim.helpers.oscar import OSCAR
from tests.tcp.packets import PSH_ACK, packed, packet
from tests.unit.fake_firewall import FakeFirewall
from tests.unit.fake_watcher import FakeWatcher
from tests.unit.fakes import FakeKernel, guarded_table

CLIENT, SERVER = Endpoint("203.0.113.20", 51000), Endpoint("10.0.0.9", 5190)
KEY: Final = packed(CLIENT.address) + packed(SERVER.address) + bytes.fromhex("c7381446")
BASES: Final = (5000, 90000)


def _skewed(base: int, edits: list[list[Any]], before: int = 0) -> dict[str, Any]:
    return {"base": base, "next": 300, "scale": 0, "before": before, "edits": edits}


RECORDS: Final[tuple[dict[str, Any], ...]] = (
    {"key": KEY.hex(), "server_inside": True, "followed": False},
    {"key": KEY.hex(), "server_inside": False, "followed": True},
    {
        "key": KEY.hex(),
        "server_inside": True,
        "streams": [
            _skewed(5000, []),
            _skewed(90000, [[10, 20, "616263"], [40, 41, ""], [41, 50, "00" * 30]], 7),
        ],
    },
    {
        "key": (KEY[:10] + b"\x1f\x90").hex(),
        "server_inside": True,
        "followed": True,
        "streams": [_skewed(5000, [], 2), _skewed(90000, [[250, 300, "aa"]], -3)],
    },
)
VALUES: Final[tuple[Any, ...]] = (
    None,
    True,
    0,
    -1,
    1,
    3.5,
    2**32,
    2**70,
    -(2**70),
    1e308,
    "",
    "zz",
    "00" * 12,
    "0" * 25,
    KEY.hex(),
    "é",
    [],
    {},
    [[]],
    [1, 2],
    [[1, 2, "00"]],
    [[5, 2, "00"]],
    [[1, 2, "00"], [1, 2, "00"]],
    [{}, {}],
    [[0, 2**40, "00" * 4]],
    [_skewed(1, []), _skewed(2, [])],
    {"base": 1},
    14,
    2**31,
)
PLACE: Final = 8


def play(data: bytes) -> None:
    """Restore a damaged record; nothing but what is declared may be raised, and nothing half done remain."""
    record = json.loads(json.dumps(RECORDS[data[0] % len(RECORDS)])) if data else {}
    rest = data[1:]
    while len(rest) >= 4 and rest[0] != 0xFF:
        record = damage(record, rest[0], rest[1], int.from_bytes(rest[2:4], "big"))
        rest = rest[4:]
    rest = rest[1:]
    if rest and rest[0]:
        record = {**record, "place": rest[1 : 1 + rest[0]]} if isinstance(record, dict) else record
    rest = rest[1 + rest[0] :] if rest else b""
    kernel, watcher = FakeKernel(), FakeWatcher()
    table = guarded_table(PinholePolicy(), FakeFirewall(), watcher)
    limits = FlowLimits(flows=2, half_open=2)
    engine = Engine({SERVER.port: OSCAR}, table, kernel.backend, watcher, EngineSettings(limits=limits))
    try:
        engine.restore(record, 1000.0)
    except (ValueError, KeyError, TypeError):
        assert not engine.flows.streams, "a damaged record left half a flow"
        assert not engine.flows.skewed
        assert not kernel.offloaded
        return
    _go_on(engine, kernel, rest)


def _go_on(engine: Engine, kernel: FakeKernel, rest: bytes) -> None:
    """Packets of the flow get their verdicts, whatever it is made of, and it comes to its end."""
    waiting, now = set[int](), 1000.0
    for number, at in enumerate(range(0, len(rest) - 5, 6)):
        how, high, low, back, size, most = rest[at : at + 6]
        ends = (CLIENT, SERVER) if how & 1 else (SERVER, CLIENT)
        bases = BASES if how & 1 else BASES[::-1]
        flags = (PSH_ACK, ACK, FIN | ACK, RST)[how >> 1 & 3]
        body = (b"\x2a\2" + bytes([0, number & 255, 0, size]) + bytes(size))[:most]
        raw = packet(*ends, bases[0] + (high << 8 | low), bases[1] + 300 - back, flags, body)
        waiting.add(number)
        verdicts = engine.process(raw, number, not how & 1, now, bool(how & 8))
        if how & 16:
            now += size / 10
            verdicts += engine.tick(now)
            engine.save()
        for token, verdict in verdicts:
            waiting.remove(token)
            assert verdict.payload is None or 40 <= len(verdict.payload) <= 0xFFFF
    kernel.dead = {flow.id for flow in engine.flows}
    for token, _ in engine.tick(now + 1e6) + engine.tick(now + 2e6) + engine.shutdown("the daemon stops"):
        waiting.remove(token)
    assert not waiting, "packets without a verdict"
    assert not engine.flows.streams, "a flow outlived its connection"
    assert not kernel.kept
    assert not kernel.noted


def damage(record: Any, where: int, what: int, which: int) -> Any:
    """*record* with one of its values, the *where*-th as they are met, replaced or removed."""
    paths: list[tuple[Any, Any]] = []

    def visit(node: Any) -> None:
        keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
        for key in keys:
            paths.append((node, key))
            visit(node[key])

    visit(record)
    if not paths or where == 0xFE:
        return VALUES[which % len(VALUES)]
    node, key = paths[where % len(paths)]
    if what % 4 == 0:
        del node[key]
    elif what % 4 == 1 and isinstance(node[key], int):
        node[key] += which - 32768
    else:
        node[key] = json.loads(json.dumps(VALUES[which % len(VALUES)]))
    return record


def seeds() -> list[bytes]:
    """Each record whole, and with each of its values gone; behind it some packets."""
    packets = b"".join(bytes([how, 1, 44 - how, 3, 20, 26]) for how in range(32))
    place = bytes([PLACE]) + (5300).to_bytes(4, "big") + (90300).to_bytes(4, "big")
    longer = place[1:] + 2 * (bytes.fromhex("00000005000000000000000000")[:14].ljust(14, b"\0"))
    found = []
    for number in range(len(RECORDS)):
        found += [bytes([number]) + b"\xff\0" + packets, bytes([number]) + b"\xff" + place + packets]
        found.append(bytes([number]) + b"\xff" + bytes([len(longer)]) + longer + packets)
        found += [bytes([number, where, 0, 0, 0, 0xFF, 0]) + packets for where in range(12)]
        found += [bytes([number, where, 2, 0, 7, 0xFF, 0]) + packets for where in range(12)]
    return found


def mutated(data: bytes, limit: int, rng: random.Random) -> bytes:
    """*data* with another damage, or bytes changed."""
    if rng.random() < 0.5 and data:
        hurt = bytes([rng.randrange(40), rng.randrange(4)]) + rng.randrange(len(VALUES)).to_bytes(2, "big")
        return (data[:1] + hurt + data[1:])[:limit]
    out = bytearray(data or b"\0")
    for _ in range(rng.choice((1, 2, 4))):
        at = rng.randrange(len(out))
        out[at] = rng.choice((out[at] ^ 1, 0, 0xFF, rng.randrange(256)))
    return bytes(out[:limit])
