"""Renumbering: the sequence and acknowledgement numbers of a capture after edits have changed lengths.

The receivers in a capture acknowledge bytes of the original streams. The capture that is written shows the
edited streams, so its receivers have to acknowledge bytes of those. The packets that left show the position
of each original byte in the edited stream: every packet with data is a piece, with its beginning and end
before and after the edits. This file depends neither on the engine nor on the format of a capture.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import NamedTuple

from nfreaim.core.address import reverse
from nfreaim.core.tcp.segment import ACK, Segment, distance, wrap


class _Piece(NamedTuple):
    """Data that left: the original bytes [start, end) are [new_start, new_end) of the edited stream.

    tail  number of bytes at the end that no edit changed
    """

    start: int
    end: int
    new_start: int
    new_end: int
    tail: int

    def edited(self, at: int) -> int:
        """Position in the edited stream of original byte *at*; inside an edit, as far from its beginning."""
        if self.end - at <= self.tail:
            return self.new_end - (self.end - at)
        return min(self.new_start + at - self.start, self.new_end - self.tail)


def _common(one: bytes, other: bytes) -> int:
    """The number of equal bytes at the beginning."""
    shorter = min(len(one), len(other))
    return next((at for at in range(shorter) if one[at] != other[at]), shorter)


class Numbers:
    """The sequence numbers of one direction of a connection, original and edited."""

    __slots__ = ("_ends", "_pieces")

    def __init__(self) -> None:
        self._pieces: list[_Piece] = []  # in order, none inside another; their numbers do not wrap
        self._ends: list[int] = []

    def __bool__(self) -> bool:
        """Whether a length has changed."""
        return bool(self._pieces)

    def record(self, before: Segment, after: Segment) -> None:
        """Note that the data of *before* left as those of *after*."""
        if not self._pieces and before.size == after.size and before.seq == after.seq:
            return
        start = self._unwrapped(before.seq)
        if self._pieces and start + before.size <= self._ends[-1]:
            return  # all these data have left before
        old, new = before.raw[before.start :], after.raw[after.start :]
        new_start = self._new_number(start)
        if new:  # a packet whose data were removed has the number of the byte before, so it shows no position
            new_start += distance(wrap(new_start), after.seq)
        tail = _common(old[::-1], new[::-1])
        self._pieces.append(_Piece(start, start + len(old), new_start, new_start + len(new), tail))
        self._ends.append(start + len(old))

    def edited(self, seq: int) -> int:
        """The sequence number in the edited stream of the byte with original number *seq*."""
        return wrap(self._new_number(self._unwrapped(seq)))

    def _new_number(self, at: int) -> int:
        index = bisect_left(self._ends, at)
        if index < len(self._pieces) and self._pieces[index].start <= at:
            return self._pieces[index].edited(at)
        if not index:
            return at  # before the first change
        piece = self._pieces[index - 1]
        return piece.new_end + at - piece.end

    def block(self, left: int, right: int) -> tuple[int, int]:
        """The edges of a SACK block."""
        return self.edited(left), self.edited(right)

    def _unwrapped(self, seq: int) -> int:
        return self._ends[-1] + distance(wrap(self._ends[-1]), seq) if self._ends else seq


class Connection:
    """One connection between two endpoints, from its SYN, with number *isn*, in frame *first* on."""

    __slots__ = ("first", "isn", "numbers")

    def __init__(self, key: bytes, first: int = 0, isn: int | None = None) -> None:
        self.first = first
        self.isn = isn
        self.numbers = {key: Numbers(), reverse(key): Numbers()}


class Renumbering:
    """All connections of a capture."""

    def __init__(self) -> None:
        self._connections: dict[bytes, list[Connection]] = {}  # by the keys of both directions, oldest first

    def begin(self, syn: Segment, frame: int) -> None:
        """The client's SYN is in *frame*; unless it is a repeated one, a new connection begins."""
        connections = self._of(syn.key)
        if connections[-1].isn != syn.seq:
            connections.append(Connection(syn.key, frame, syn.seq))

    def numbers(self, key: bytes, frame: int) -> Numbers:
        """The numbers of direction *key* in the connection that *frame* belongs to."""
        connections = self._of(key)
        return next(one for one in reversed(connections) if one.first <= frame).numbers[key]

    def _of(self, key: bytes) -> list[Connection]:
        found = self._connections.get(key)
        if found is None:
            found = self._connections[key] = self._connections[reverse(key)] = [Connection(key)]
        return found

    def __bool__(self) -> bool:
        """Whether any length has changed."""
        found = self._connections.values()
        return any(
            numbers for connections in found for one in connections for numbers in one.numbers.values()
        )

    def acknowledging(self, segment: Segment, frame: int, seq: int | None = None) -> Segment:
        """*segment* of *frame* as the receiver of the edited stream would have sent it.

        seq  its sequence number; None: the one that follows from the edits of its stream
        """
        own, other = self.numbers(segment.key, frame), self.numbers(reverse(segment.key), frame)
        seq = own.edited(segment.seq) if seq is None else seq
        ack = other.edited(segment.ack) if segment.flags & ACK else segment.ack
        blocks: Callable[[int, int], tuple[int, int] | None] | None = other.block if other else None
        if seq == segment.seq and not other:
            return segment
        return segment.rebuilt(seq, ack, segment.raw[segment.start :], blocks)
