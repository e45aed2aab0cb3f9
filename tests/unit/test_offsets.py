"""OffsetMap against tables that are made by counting, offset by offset."""

from __future__ import annotations

import random

import pytest

from nfreaim.core.tcp.offsets import REMEMBERED, SETTLED, Edit, OffsetMap


class Table:
    """The same as an OffsetMap, by its definition in words."""

    def __init__(self, edits: list[Edit], size: int) -> None:
        self.edited = b""
        self.places: list[int] = []  # of each original offset
        text = bytes(range(97, 97 + size))
        inside = {x: edit for edit in edits for x in range(edit.start, edit.end)}
        for x in range(size):
            edit = inside.get(x)
            self.places.append(len(self.edited))
            if edit is None:
                self.edited += text[x : x + 1]
            else:
                at = x - edit.start
                last = x == edit.end - 1
                self.edited += edit.data[at:] if last else edit.data[at : at + 1]
        self.places.append(len(self.edited))
        self.text = text

    def back(self, y: int) -> int:
        return max(x for x, place in enumerate(self.places) if place <= y)

    def back_left(self, y: int) -> int:
        return min(x for x, place in enumerate(self.places) if place >= y)


def random_edits(rng: random.Random, size: int) -> list[Edit]:
    edits: list[Edit] = []
    at = 0
    while rng.random() < 0.75:
        at += rng.choice((0, 0, 1, 2, 5))
        end = at + rng.randint(1, 5)
        if end > size:
            break
        edits.append(Edit(at, end, b"#" * rng.choice((0, 0, 1, end - at, rng.randint(0, 9)))))
        at = end
    return edits


@pytest.mark.parametrize("seed", range(4))
def test_every_offset_of_any_map_is_what_counting_says(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(1000):
        size = rng.randint(0, 20)
        edits = random_edits(rng, size)
        made, table = OffsetMap(edits), Table(edits, size)
        context = edits
        assert [made.fwd(x) for x in range(size + 1)] == table.places, context
        for y in range(len(table.edited) + 1):
            assert made.back(y) == table.back(y), (context, y)
            assert made.back_left(y) == table.back_left(y), (context, y)
        for x in range(size):
            assert made.removes(x) == (table.places[x] == table.places[x + 1]), (context, x)
        assert made.skewed == any(len(edit.data) != edit.end - edit.start for edit in edits)
        for low in range(size):
            for high in range(low + 1, size + 1):
                span = table.edited[table.places[low] : table.places[high]]
                assert made.render(table.text[low:high], low) == span, (context, low, high)


def test_outside_of_the_edits_positions_are_shifted_like_their_neighbours() -> None:
    made = OffsetMap([Edit(10, 12, b"WIDER"), Edit(20, 25, b"")])
    assert [made.fwd(x) for x in (-5, 0, 10, 12, 15, 26, 10**6)] == [-5, 0, 10, 15, 18, 24, 10**6 - 2]
    assert [made.back(y) for y in (-5, 0, 15, 18, 24, 10**6)] == [-5, 0, 12, 15, 26, 10**6 + 2]
    assert made.back_left(-5) == -5
    assert made.shift == -2


def test_edits_that_are_taken_back_leave_no_trace() -> None:
    made = OffsetMap([Edit(1, 2, b"x")])
    made.add([Edit(4, 6, b"WIDER"), Edit(6, 7, b"")])
    assert made.skewed
    made.undo(2)
    assert not made.skewed
    assert [made.fwd(x) for x in range(10)] == list(range(10))
    assert made.render(b"abcdefgh", 0) == b"axcdefgh"
    made.undo(0)
    assert len(made.edits) == 1
    made.add([Edit(2, 3, b"")])
    assert made.fwd(3) == 2


def test_edits_out_of_order_are_added_all_or_none() -> None:
    made = OffsetMap()
    with pytest.raises(ValueError, match="does not follow 5"):
        made.add([Edit(3, 5, b"x"), Edit(4, 6, b"y")])
    assert (made.edits, made.shift) == ([], 0)


def test_of_forgotten_edits_the_shift_remains() -> None:
    made = OffsetMap()
    for at in range(0, 6000, 3):
        made.add([Edit(at, at + 1, b"xx")])
    assert len(made.edits) == REMEMBERED
    assert made.before == 2000 - REMEMBERED
    assert made.fwd(6000) == 8000
    assert made.back(8000) == 6000
    first = made.edits[0].start
    assert made.fwd(first - 1) == first - 1 + made.before
    again = OffsetMap(made.edits, made.before)
    assert [again.fwd(x) for x in range(first, 6000)] == [made.fwd(x) for x in range(first, 6000)]
    made.undo(REMEMBERED)
    assert made.skewed
    assert made.fwd(6000) == 6000 + made.before


def test_acknowledged_edits_are_forgotten_but_for_the_last_few() -> None:
    made, whole = OffsetMap(), OffsetMap()
    for number in range(200):
        for each in (made, whole):
            each.add([Edit(10 * number, 10 * number + 2, b"WIDER")])
        made.settle(13 * 150)
    assert len(made.edits) == SETTLED
    unsettled = OffsetMap(whole.edits)
    unsettled.settle(13 * 20 + 4)  # in the middle of one
    assert len(unsettled.edits) == 200 - 20
    for x in range(1500, 2200):
        assert (made.fwd(x), made.back(x + 450)) == (whole.fwd(x), whole.back(x + 450))


@pytest.mark.parametrize("data", [b"", b"x", b"xyz", b"much longer"])
def test_what_was_acknowledged_stays_before_what_is_awaited_when_its_edit_is_forgotten(data: bytes) -> None:
    for start in range(1, 4):
        known = OffsetMap([Edit(start, start + 3, data)])
        for acked in (known.fwd(start + 3), known.fwd(start + 7)):
            forgot = OffsetMap([], known.shift)
            for x in range(start + 9):
                assert forgot.fwd(x) <= acked or forgot.fwd(x) == known.fwd(x)
