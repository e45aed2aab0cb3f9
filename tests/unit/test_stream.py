"""The stream editor: edits, sequence numbers that wrap, and packets that are held."""

from __future__ import annotations

from itertools import pairwise

import pytest

from nfreaim.core.address import Direction, End, Endpoint
from nfreaim.core.flow import Flow
from nfreaim.core.tcp.offsets import Edit, OffsetMap
from nfreaim.core.tcp.segment import ACK, Segment
from nfreaim.core.tcp.stream import Gap, Held, Stream
from tests.tcp.packets import packet

ORIGINAL = bytes(range(64))
EDITED = ORIGINAL[:10] + b"ABCD" + ORIGINAL[14:20] + b"EF" + ORIGINAL[22:]


def segment(data: bytes, seq: int = 1) -> Segment:
    parsed = Segment.parse(
        packet(Endpoint("10.0.0.5", 4000), Endpoint("203.0.113.9", 5190), seq, 0, ACK, data)
    )
    assert parsed is not None
    return parsed


def stream(base: int) -> Stream[Flow]:
    return Flow(bytes(12), (base, base), End.CLIENT, 0.0).streams[Direction.ORIGINAL]


@pytest.fixture
def edits() -> OffsetMap:
    made = OffsetMap()
    made.add([Edit(10, 14, b"ABCD")])
    made.add([Edit(20, 22, b"EF")])
    return made


def test_every_span_renders_as_the_same_span_of_the_edited_stream(edits: OffsetMap) -> None:
    for start in range(len(ORIGINAL)):
        for end in range(start + 1, len(ORIGINAL) + 1):
            assert edits.render(ORIGINAL[start:end], start) == EDITED[start:end]


def test_a_span_without_an_edit_is_not_even_copied(edits: OffsetMap) -> None:
    for start, end in ((0, 10), (14, 20), (22, 64)):
        before = ORIGINAL[start:end]
        assert edits.render(before, start) is before


def test_a_span_that_already_holds_the_new_bytes_is_not_written_again(edits: OffsetMap) -> None:
    assert edits.render(EDITED, 0) == EDITED
    moving = stream(1)
    moving.map = edits
    before = segment(EDITED)
    assert moving.rendered(before, 0) is before


def test_a_segment_from_before_the_stream_begins_is_left_alone(edits: OffsetMap) -> None:
    before = b"x" * 8
    assert edits.render(before, -8) is before


@pytest.mark.parametrize(
    "bad",
    [Edit(30, 30, b""), Edit(30, 29, b"x"), Edit(21, 23, b"xx"), Edit(0, 2, b"xx")],
    ids=["empty", "backwards", "overlaps the last", "before the last"],
)
def test_an_edit_that_would_break_the_stream_is_refused(edits: OffsetMap, bad: Edit) -> None:
    with pytest.raises(ValueError, match="edit"):
        edits.add([bad])
    assert len(edits.edits) == 2


def test_adjacent_edits_are_two_edits(edits: OffsetMap) -> None:
    edits.add([Edit(22, 23, b"G")])
    assert edits.render(ORIGINAL, 0)[20:23] == b"EFG"


def test_the_number_of_remembered_edits_is_bounded() -> None:
    made = OffsetMap()
    for at in range(0, 20000, 2):
        made.add([Edit(at, at + 1, b"x")])
    assert len(made.edits) == 1024
    assert made.edits[-1].start == 19998


@pytest.mark.parametrize("base", [0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32 - 40, 2**32])
def test_offsets_go_on_where_sequence_numbers_wrap(base: int) -> None:
    moving = stream(base)
    for end in range(0, 100, 7):
        moving.advance(end)
        assert moving.expected == (base + end) % 2**32
        for offset in (end - 50, end, end + 50, end + 2**30, end - 2**30):
            assert moving.offset((base + offset) % 2**32) == offset


def test_offsets_stay_right_after_gigabytes() -> None:
    moving = stream(7)
    for end in range(0, 2**34, 2**29):
        moving.advance(end)
        assert moving.offset((7 + end + 3) % 2**32) == end + 3


def test_held_packets_leave_in_order_and_only_as_far_as_asked() -> None:
    holding = stream(0)
    for at in range(0, 30, 10):
        holding.hold(Held(at, segment(b"x" * 10), at, at, 0.0))
    assert holding.held_bytes == 30
    assert [held.token for held in holding.release(below=9)] == []
    assert [held.token for held in holding.release(below=20)] == [0, 10]
    assert holding.held_bytes == 10
    assert [held.token for held in holding.release()] == [20]
    assert (holding.held, holding.held_bytes) == ([], 0)


def test_progress_ends_a_gap() -> None:
    moving = stream(0)
    moving.gap = Gap(1, 3.0)
    moving.advance(1)
    assert moving.gap is None


def test_rendering_any_cut_of_a_stream_gives_the_edited_stream(edits: OffsetMap) -> None:
    for step in range(1, 30):
        borders = [*range(0, len(ORIGINAL), step), len(ORIGINAL)]
        out = b""
        for low, high in pairwise(borders):
            out += edits.render(ORIGINAL[low:high], low)
        assert out == EDITED


def numbers(one: Stream[Flow]) -> tuple[int, int, int, int, int | None]:
    return one.base, one.expected, one.next, one.acked, one.edge


def test_other_numbers_for_a_stream_leave_nothing_of_the_old_ones() -> None:
    moving = stream(1000)
    moving.acked, moving.edge = 500, 70_000
    moving.advance(600)
    moving.rebase(7)
    assert numbers(moving) == (7, 7, 0, 0, None)
