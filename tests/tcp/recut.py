"""The same conversations in other segments: coalesced, cut, repeated, swapped.

What a direction carries never changes, nor do frames that are not whole TCP segments; `streams` proves it.
"""

import random
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

from tests.tcp.captures import Frames, tcp_in
from tests.tcp.packets import ACK, FIN, PSH, RST, SYN, Direction, Packet, near

HOWS = ("coalesced", "bytewise", "random", "duplicates", "reorder")
_LARGEST = 1400
_LINK = 14
_MERGE_WITHIN = (
    0.1  # seconds: what is further apart was not one write, and merging would change the order of causes
)
_SPREAD = 0.001  # seconds that the pieces of one segment take at most


class _Item(NamedTuple):
    time: float
    frame: bytes
    segment: Packet | None

    def changed(self, *, seq: int | None = None, flags: int, payload: bytes) -> bytes:
        """The frame with what is given in its segment; bytes behind the packet are dropped."""
        assert self.segment is not None
        return self.frame[:_LINK] + self.segment.changed(seq=seq, flags=flags, payload=payload).raw


def recut(frames: Frames, how: str, seed: int = 0) -> Frames:
    """`frames` with the payload of every flow, both directions, in other segments; numbers and checksums fit.

    coalesced   data that follows within 0.1 s without data, FIN or RST from the other end between becomes one
                segment of up to 1400 bytes, at the time of its first part
    bytewise    one byte per segment
    random      coalesced, then cut at random places
    duplicates  every segment again at once, some again just before the frame that acknowledges it
    reorder     neighbours swapped, where nothing else of their flow lies between

    The pieces of one segment leave within 1 ms and before the next frame. Calls may be chained: "random",
    then "reorder", swaps pieces of a segment.
    """
    generator = random.Random(seed)
    items = [_Item(time, frame, tcp_in(frame)) for time, frame in frames]
    ways: dict[str, Callable[[], Frames]] = {
        "coalesced": lambda: _plain(_coalesced(items)),
        "bytewise": lambda: _cut(items, lambda size: list(range(1, size))),
        "random": lambda: _cut(_coalesced(items), lambda size: _random_cuts(size, generator)),
        "duplicates": lambda: _duplicates(items, generator),
        "reorder": lambda: _plain(_reordered(items, generator)),
    }
    return ways[how]()


def _plain(items: list[_Item]) -> Frames:
    return [(item.time, item.frame) for item in items]


def _random_cuts(size: int, generator: random.Random) -> list[int]:
    return (
        sorted(generator.sample(range(1, size), generator.randint(0, min(size - 1, 7)))) if size > 1 else []
    )


def _flow(direction: Direction) -> frozenset[tuple[str, int]]:
    return frozenset((direction[:2], direction[2:]))


def _cut(items: list[_Item], cuts: Callable[[int], list[int]]) -> Frames:
    """Cut every data segment at the offsets that `cuts` names for its size."""
    result: Frames = []
    for index, item in enumerate(items):
        time, frame, segment = item
        if segment is None or len(segment.payload) < 2 or segment.flags & (SYN | RST):
            result.append((time, frame))
            continue
        following = items[index + 1].time if index + 1 < len(items) else time + _SPREAD
        bounds = [0, *cuts(len(segment.payload)), len(segment.payload)]
        step = max(min(_SPREAD, following - time), 0.0) / len(bounds)
        for number, (begin, end) in enumerate(pairwise(bounds)):
            flags = segment.flags if end == bounds[-1] else segment.flags & ~(FIN | PSH)
            piece = item.changed(seq=segment.seq + begin, flags=flags, payload=segment.payload[begin:end])
            result.append((time + number * step, piece))
    return result


def _coalesced(items: list[_Item]) -> list[_Item]:
    result: list[_Item] = []
    growing: dict[Direction, int] = {}  # position in `result` of the segment that may take in more
    for item in items:
        segment = item.segment
        if segment is None:
            result.append(item)
            continue
        source = segment.direction
        target = (*source[2:], *source[:2])
        if segment.payload or segment.flags & (SYN | FIN | RST):
            growing.pop(target, None)
        position = growing.get(source)
        mergeable = bool(segment.payload) and not segment.flags & (SYN | RST)
        if position is not None and mergeable and _fits(result[position], item):
            result[position] = _merged(result[position], item)
        elif segment.payload or segment.flags & (SYN | FIN | RST):
            growing[source] = len(result)
            result.append(item)
        else:
            growing.pop(source, None)
            result.append(item)
    return result


def _fits(first: _Item, second: _Item) -> bool:
    one, two = first.segment, second.segment
    if one is None or two is None or not one.payload or one.flags & (SYN | FIN | RST):
        return False
    adjacent = (one.seq + len(one.payload)) % 2**32 == two.seq
    return (
        adjacent and second.time - first.time <= _MERGE_WITHIN and len(one.payload + two.payload) <= _LARGEST
    )


def _merged(first: _Item, second: _Item) -> _Item:
    assert first.segment is not None
    assert second.segment is not None
    payload = first.segment.payload + second.segment.payload
    frame = first.changed(flags=first.segment.flags | second.segment.flags, payload=payload)
    return _Item(first.time, frame, tcp_in(frame))


def _duplicates(items: list[_Item], generator: random.Random) -> Frames:
    result: Frames = []
    waiting: dict[Direction, list[tuple[int, bytes]]] = {}  # end and frame, to come again before its ACK
    for time, frame, segment in items:
        if segment is None:
            result.append((time, frame))
            continue
        source = segment.direction
        target = (*source[2:], *source[:2])
        if segment.flags & RST:
            waiting.pop(source, None)
            waiting.pop(target, None)
        if segment.flags & ACK:
            unacked = []
            for end, old in waiting.pop(target, []):
                if near(segment.ack - end, 0) >= 0:
                    result.append((time, old))
                else:
                    unacked.append((end, old))
            waiting[target] = unacked
        result.append((time, frame))
        if segment.payload and not segment.flags & (SYN | RST):
            result.append((time, frame))
            if generator.random() < 0.5:
                waiting.setdefault(source, []).append((segment.seq + len(segment.payload), frame))
    return result


def _reordered(items: list[_Item], generator: random.Random) -> list[_Item]:
    result = list(items)
    last: dict[
        frozenset[tuple[str, int]], int
    ] = {}  # position of a flow's latest frame, if it may be swapped
    for position, item in enumerate(items):
        segment = item.segment
        if segment is None:
            continue
        flow = _flow(segment.direction)
        before = last.pop(flow, None)
        if not segment.payload or segment.flags & (SYN | FIN | RST):
            continue
        if before is not None and _neighbours(items[before], item) and generator.random() < 0.7:
            earlier = items[before]
            result[before] = item._replace(time=earlier.time)
            result[position] = earlier._replace(time=item.time)
        else:
            last[flow] = position
    return result


def _neighbours(first: _Item, second: _Item) -> bool:
    one, two = first.segment, second.segment
    if one is None or two is None or one.direction != two.direction:
        return False
    return (one.seq + len(one.payload)) % 2**32 == two.seq
