"""A mutator that knows the format: what it makes gets past the framing, and mostly past every length.

Deterministic: the same input and random numbers give the same output. Lengths and counts follow what was
changed in them, unless breaking one is what is tried.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from tests.fuzz import frames
from tests.fuzz.corpus import GOLDEN, OWN
from tests.fuzz.program import FIELDS, MAX_BYTES, WITH_DATA, Kind, Program, Step, moved, opened, send
from tests.fuzz.world import SEGMENT
from tests.oscar.signon import SIGNON

# How often a step of each kind is made from nothing.
WEIGHTS: Final[dict[Kind, int]] = {
    Kind.SEND: 12,
    Kind.AGAIN: 8,
    Kind.OPEN: 3,
    Kind.BARE: 5,
    Kind.TICK: 4,
    Kind.RESTART: 2,
    Kind.FAULT: 3,
    Kind.LIFE: 2,
    Kind.CLAIM: 2,
    Kind.RAW: 1,
    Kind.MOVE: 1,
    Kind.PIECE: 3,
    Kind.TAKEN: 2,
    Kind.LIE: 2,
    Kind.WINDOW: 2,
}
PIECES: Final = (0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 10, 17, 30, 47, 64, 100, 150, 255)
NUMBERS: Final = (
    0,
    1,
    2,
    3,
    4,
    6,
    10,
    29,
    30,
    31,
    40,
    100,
    600,
    1024,
    32767,
    32768,
    32769,
    32800,
    40000,
    65535,
)
FLAGS: Final = (0x10, 0x11, 0x14, 0x04, 0x18, 0x19, 0x01, 0x30, 0x00)


def program(data: bytes, limit: int, rng: random.Random) -> bytes:
    """*data*, a program, mutated; at most *limit* bytes."""
    found = Program.decode(data)
    steps = list(found.steps)
    settings = found.settings
    for _ in range(rng.choice((1, 1, 1, 2, 3, 5))):
        if rng.random() < 0.04:
            settings ^= 1 << rng.choice((1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6, 7))
        steps = rng.choice(_CHANGES)(steps, rng)
    out = Program(settings, tuple(steps)).encode()
    while len(out) > min(limit, MAX_BYTES) and steps:
        del steps[rng.randrange(len(steps))]
        out = Program(settings, tuple(steps)).encode()
    return out


def crossed(one: bytes, other: bytes, limit: int, rng: random.Random) -> bytes:
    """The beginning of one program and the end of another."""
    first, second = Program.decode(one), Program.decode(other)
    head = first.steps[: rng.randint(0, len(first.steps))]
    tail = second.steps[rng.randint(0, len(second.steps)) :]
    slot = rng.randrange(4)
    whole = Program(first.settings, (*head, *(moved(tail, slot) if rng.random() < 0.3 else tail)))
    return whole.encode()[:limit]


def _place(steps: list[Step], rng: random.Random, kinds: frozenset[Kind] | None = None) -> int | None:
    places = [at for at, step in enumerate(steps) if kinds is None or step.kind in kinds]
    return rng.choice(places) if places else None


def _frames(steps: list[Step], rng: random.Random) -> list[Step]:
    """Change one FLAP frame within what is sent."""
    at = _place(steps, rng, frozenset({Kind.SEND}))
    if at is None:
        return _insert(steps, rng)
    step = steps[at]
    return [*steps[:at], replace(step, data=frames.mutated(step.data, rng)), *steps[at + 1 :]]


def _insert(steps: list[Step], rng: random.Random) -> list[Step]:
    at = rng.randint(0, len(steps))
    return [*steps[:at], made(rng), *steps[at:]]


def _delete(steps: list[Step], rng: random.Random) -> list[Step]:
    at = _place(steps, rng)
    if at is None:
        return steps
    return steps[:at] + steps[at + rng.choice((1, 1, 1, 2, 8)) :]


def _repeat(steps: list[Step], rng: random.Random) -> list[Step]:
    at = _place(steps, rng)
    if at is None:
        return _insert(steps, rng)
    part = steps[at : at + rng.choice((1, 1, 2, 4))]
    if rng.random() < 0.3:
        part = moved(part, rng.randrange(4))
    to = rng.randint(0, len(steps))
    return [*steps[:to], *part, *steps[to:]]


def _swap(steps: list[Step], rng: random.Random) -> list[Step]:
    if len(steps) < 2:
        return _insert(steps, rng)
    at = rng.randrange(len(steps) - 1)
    return [*steps[:at], steps[at + 1], steps[at], *steps[at + 2 :]]


def _number(steps: list[Step], rng: random.Random) -> list[Step]:
    at = _place(steps, rng)
    if at is None:
        return _insert(steps, rng)
    step = steps[at]
    what = rng.randrange(4)
    if what == 0 and step.kind is not Kind.SEND:
        step = replace(step, flag=not step.flag)
    elif what == 1:
        step = replace(step, slot=rng.randrange(4))
    elif what == 2 and rng.random() < 0.3:
        step = replace(step, way=1 - step.way)
    elif step.kind is Kind.SEND:
        step = replace(step, numbers=(rng.choice(PIECES),), flag=rng.random() < 0.1)
    elif step.numbers:
        numbers = list(step.numbers)
        numbers[rng.randrange(len(numbers))] = _any_number(rng)
        step = replace(step, numbers=tuple(numbers))
    return [*steps[:at], step, *steps[at + 1 :]]


def _split(steps: list[Step], rng: random.Random) -> list[Step]:
    """Cut what is sent in one step into two, with anything between them."""
    at = _place(steps, rng, frozenset({Kind.SEND}))
    if at is None or len(steps[at].data) < 2:
        return _insert(steps, rng)
    step = steps[at]
    cut = rng.randrange(1, len(step.data))
    between = [made(rng)] if rng.random() < 0.6 else []
    parts = [
        replace(step, data=step.data[:cut], flag=rng.random() < 0.2),
        *between,
        replace(step, data=step.data[cut:]),
    ]
    return [*steps[:at], *parts, *steps[at + 1 :]]


def _bytes(steps: list[Step], rng: random.Random) -> list[Step]:
    at = _place(steps, rng, WITH_DATA)
    if at is None:
        return _insert(steps, rng)
    step = steps[at]
    return [*steps[:at], replace(step, data=frames.flipped(step.data, rng)), *steps[at + 1 :]]


def _session(steps: list[Step], rng: random.Random) -> list[Step]:
    """Another session, signed on, before or behind everything."""
    slot = rng.randrange(4)
    names = rng.choices(list(GOLDEN), k=rng.randint(1, 4))
    news = [opened(slot, new=rng.random() < 0.8)]
    news += [send(slot, 1, SIGNON), send(slot, 0, GOLDEN["signon-with-cookie"])]
    news += [send(slot, 1, GOLDEN["host-online"])]
    news += [
        send(slot, rng.randrange(2), frames.mutated(GOLDEN[name], rng), rng.choice(PIECES)) for name in names
    ]
    return [*steps, *news] if rng.random() < 0.5 else [*news, *steps]


_CHANGES: Final[tuple[Callable[[list[Step], random.Random], list[Step]], ...]] = (
    _frames,
    _frames,
    _frames,
    _frames,
    _insert,
    _insert,
    _delete,
    _repeat,
    _swap,
    _number,
    _number,
    _split,
    _bytes,
    _session,
)


def _any_number(rng: random.Random) -> int:
    return rng.choice(NUMBERS) if rng.random() < 0.7 else rng.randrange(1 << rng.choice((3, 8, 16)))


def made(rng: random.Random) -> Step:
    """A step from nothing."""
    kind = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    numbers = [_any_number(rng) for _ in FIELDS[kind]]
    data = b""
    if kind is Kind.SEND:
        numbers = [rng.choice(PIECES)]
        data = GOLDEN[rng.choice(list(GOLDEN))]
        if rng.random() < 0.6:
            data = frames.mutated(data, rng)
    elif kind is Kind.OPEN:
        numbers = [rng.choice((7, 7, 7, 1, 2, 3, 4))]
    elif kind in (Kind.BARE, Kind.PIECE):
        numbers[0] = 32768 + rng.choice((0, 0, -1, 1, -2, 5, -40, 300, -500, rng.randint(-2000, 2000)))
        numbers[1] = rng.choice(FLAGS) if rng.random() < 0.9 else rng.randrange(256)
        if kind is Kind.PIECE:
            data = (
                rng.randbytes(rng.randint(1, 60)) if rng.random() < 0.5 else GOLDEN[rng.choice(list(GOLDEN))]
            )
    elif kind is Kind.RAW:
        data = packet(rng.randbytes(60), SEGMENT, rng)
    elif kind is Kind.TAKEN:
        numbers = [rng.choice((5190, 4000, 4001, 40000, 40001))]
    elif kind is Kind.LIE:
        numbers = [rng.choice((0, 0, 1, 2, 3, 4001))]
    elif kind is Kind.WINDOW:
        numbers = [rng.choice((0, 1, 20, 100, 1000, 64240, 64240))]
    return Step(kind, rng.randrange(4), rng.randrange(2), rng.random() < 0.2, tuple(numbers), data)


def packet(data: bytes, limit: int, rng: random.Random) -> bytes:
    """A packet (with seven bytes before it for the segment target) mutated, its total length right mostly."""
    raw = bytearray(frames.flipped(data, rng) if rng.random() < 0.8 else data)
    if len(raw) < 47:
        raw += bytes(47 - len(raw))
    if rng.random() < 0.3:
        cut = rng.randrange(47, len(raw) + 1)
        raw[cut:] = rng.randbytes(rng.choice((0, 1, 2, 7, 100)))
    if rng.random() < 0.4:
        raw[7] = rng.choice((0x45, 0x45, 0x46, 0x4F, 0x44, 0x65, 0x40))
    if rng.random() < 0.8:
        raw[16], raw[13] = 6, raw[13] & 0xC0
        raw[14] = 0
    tcp = 7 + (raw[7] & 15) * 4
    if rng.random() < 0.5 and tcp + 13 < len(raw):
        raw[tcp + 12] = rng.choice((0x50, 0x60, 0x80, 0xA0, 0xF0, 0x40, 0))
        options = rng.choice(
            (b"\1\1\5\12", b"\5\22", b"\5\2", b"\5\0", b"\2\4\5\xb4", b"\0\0\0\0", b"\5\377")
        )
        raw[tcp + 20 : tcp + 20 + len(options)] = options
    if rng.random() < 0.9:
        raw[9:11] = (len(raw[:limit]) - 7).to_bytes(2, "big")
    return bytes(raw[:limit])


def mutated(target: str, data: bytes, limit: int, seed: int) -> bytes:
    """The input of *target*, mutated."""
    rng = random.Random(seed)
    if target in OWN:
        made: bytes = OWN[target].mutated(data, limit, rng)
        return made
    return packet(data, limit, rng) if target == "segment" else program(data, limit, rng)
