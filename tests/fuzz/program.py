"""Programs: what a fuzzer's bytes mean. One format serves the engine, the helper and the framer.

    program    settings:1, then steps to the end; any bytes are a program, what is cut short is left out
    step       kind (low 4 bits), slot (2 bits), way (1 bit), flag (1 bit): one byte; then what its kind has

Streams, not packets, are what a program holds: sequence numbers, lengths and checksums are made when it is
played, so that no mutation is lost on them. Integers are big-endian.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final

MAX_STEPS: Final = 600
MAX_BYTES: Final = 1 << 16


class Kind(IntEnum):
    """What a step does; its numbers and data in brackets."""

    SEND = 0  # new bytes of a stream, in pieces [piece:1, data]; with flag they are lost on their way
    AGAIN = 1  # bytes sent before, from so far back on [back:2, size:2, xor:1]
    OPEN = 2  # handshake [1 SYN, 2 SYN/ACK, 4 ACK]; with flag a new connection of the same ends
    BARE = (
        3  # no data [place relative to the end + 32768:2, TCP flags:1, SACK:1]; with flag from the wrong side
    )
    TICK = 4  # time passes [ms:2]; with flag seconds
    RESTART = 5  # the daemon starts again; with flag its records are lost; way 1: it died, places are older
    FAULT = 6  # [1 kernel, 2 firewall refuses to add, 4 firewall refuses to remove]
    LIFE = 7  # connection tracking has the flow as ended, or (way 1) not at all; with flag it has it again
    CLAIM = 8  # [which pinhole:1, which peer:1] a peer connects
    RAW = 9  # [data] a packet as it is; with flag from the inside
    MOVE = 10  # [which:1] the router has another outside address
    PIECE = 11  # [place:2, TCP flags:1, data] any data at any place
    TAKEN = 12  # [port:2] something else answers at that outside port
    LIE = 13  # [number:2] acknowledges what cannot be: odd beyond it, even before; 0 tells the truth again
    WINDOW = 14  # [window:2] what its sender is ready to take from now on


# Sizes of a step's numbers, in bytes; and whether data follow (size:2, data).
FIELDS: Final[dict[Kind, tuple[int, ...]]] = {
    Kind.SEND: (1,),
    Kind.AGAIN: (2, 2, 1),
    Kind.OPEN: (1,),
    Kind.BARE: (2, 1, 1),
    Kind.TICK: (2,),
    Kind.RESTART: (),
    Kind.FAULT: (1,),
    Kind.LIFE: (),
    Kind.CLAIM: (1, 1),
    Kind.RAW: (),
    Kind.MOVE: (1,),
    Kind.PIECE: (2, 1),
    Kind.TAKEN: (2,),
    Kind.LIE: (2,),
    Kind.WINDOW: (2,),
}
WITH_DATA: Final = frozenset({Kind.SEND, Kind.RAW, Kind.PIECE})


@dataclass(frozen=True, slots=True)
class Step:
    """One step; see Kind."""

    kind: Kind
    slot: int = 0
    way: int = 0
    flag: bool = False
    numbers: tuple[int, ...] = ()
    data: bytes = b""

    def encode(self) -> bytes:
        head = self.kind | (self.slot & 3) << 4 | (self.way & 1) << 6 | bool(self.flag) << 7
        out = bytes([head])
        for size, number in zip(FIELDS[self.kind], self.numbers, strict=True):
            out += (number & (1 << 8 * size) - 1).to_bytes(size, "big")
        if self.kind in WITH_DATA:
            data = self.data[:0xFFFF]
            out += len(data).to_bytes(2, "big") + data
        return out


@dataclass(frozen=True, slots=True)
class Program:
    """*settings*: see tests/fuzz/world.py."""

    settings: int
    steps: tuple[Step, ...]

    @classmethod
    def decode(cls, data: bytes) -> Program:
        data = data[:MAX_BYTES]
        steps: list[Step] = []
        pos = 1
        while pos < len(data) and len(steps) < MAX_STEPS:
            head = data[pos]
            pos += 1
            if head & 15 > Kind.WINDOW:
                continue
            kind = Kind(head & 15)
            numbers = []
            for size in FIELDS[kind]:
                numbers.append(int.from_bytes(data[pos : pos + size], "big"))
                pos += size
            body = b""
            if kind in WITH_DATA:
                size = int.from_bytes(data[pos : pos + 2], "big")
                body = data[pos + 2 : pos + 2 + size]
                pos += 2 + size
            steps.append(Step(kind, head >> 4 & 3, head >> 6 & 1, head >= 128, tuple(numbers), body))
        return cls(data[0] if data else 0, tuple(steps))

    def encode(self) -> bytes:
        return bytes([self.settings]) + b"".join(step.encode() for step in self.steps)

    def stream(self, slot: int, way: int) -> bytes:
        """Everything that is sent one way in one slot."""
        return b"".join(
            step.data
            for step in self.steps
            if step.kind is Kind.SEND and step.slot == slot and step.way == way
        )


def send(slot: int, way: int, data: bytes, piece: int = 0, lost: bool = False) -> Step:
    return Step(Kind.SEND, slot, way, lost, (piece,), data)


def opened(slot: int, new: bool = False) -> Step:
    return Step(Kind.OPEN, slot, 0, new, (7,))


def moved(steps: Iterable[Step], slot: int) -> list[Step]:
    """The same in another slot."""
    return [replace(step, slot=slot) for step in steps]
