"""Numbers: the sequence numbers of FLAP frames, written into what is sent so that they run on.

A mutation that inserts or removes a frame would else end the reading at the next one, and nothing behind it
would be tried. Wrong numbers are to be had: where a frame's own number has WRONG as its high byte, the low
byte says, signed, by how much its number is off from then on; and settings bit 128 leaves all as they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from tests.fuzz.program import Kind, Step

WRONG: Final = 0xEE
AS_THEY_ARE: Final = 128
RENEWALS: Final = 6
"""New connections of the same ends in one program; more, and their sequence numbers would meet."""


class Numbering:
    """One direction of a connection, cut anywhere. What does not begin as a frame is left alone for good."""

    def __init__(self) -> None:
        self._header = bytearray()
        self._skip = 0
        self._number: int | None = None
        self._lost = False

    def stamped(self, data: bytes) -> bytes:
        """*data*, the next bytes sent."""
        out = bytearray(data)
        pos = 0
        while pos < len(out) and not self._lost:
            if self._skip:
                step = min(self._skip, len(out) - pos)
                self._skip -= step
                pos += step
                continue
            place = len(self._header)
            if place == 2:
                self._decide(int.from_bytes(out[pos : pos + 2].ljust(2, b"\0"), "big"))
            if place in (2, 3):
                out[pos] = ((self._number or 0) >> (8 if place == 2 else 0)) & 0xFF
            self._header.append(out[pos])
            pos += 1
            self._lost = self._header[0] != 0x2A or (place == 1 and not 1 <= self._header[1] <= 5)
            if place == 5:
                self._skip = int.from_bytes(self._header[4:], "big")
                self._header.clear()
        return bytes(out)

    def _decide(self, own: int) -> None:
        """The number of the frame that begins, whose *own* one is that."""
        if self._number is None:
            self._number = own
            return
        off = (own & 0xFF) - 256 * (own >> 7 & 1) if own >> 8 == WRONG else 0
        self._number = (self._number + 1 + off) & 0xFFFF


class Numbers:
    """The frame numbers of a whole program. *settings*: its own."""

    def __init__(self, settings: int) -> None:
        self._as_they_are = bool(settings & AS_THEY_ARE)
        self._streams: dict[tuple[int, int], Numbering] = {}
        self._renewed = [0] * 4

    def of(self, step: Step) -> Step:
        """*step*, the next one, with numbers that run on in each direction of each slot."""
        slot = step.slot
        if self._as_they_are:
            return step
        if step.kind is Kind.OPEN and step.flag and self._renewed[slot] < RENEWALS:
            self._renewed[slot] += 1
            self._streams.pop((slot, 0), None)
            self._streams.pop((slot, 1), None)
        elif step.kind is Kind.SEND:
            stream = self._streams.setdefault((slot, step.way), Numbering())
            return replace(step, data=stream.stamped(step.data))
        return step


def numbered(steps: Iterable[Step], settings: int) -> list[Step]:
    """*steps* with frame numbers that run on."""
    numbers = Numbers(settings)
    return [numbers.of(step) for step in steps]
