"""SYNs without an answer: which answer counts, and what a flood of them does."""

from __future__ import annotations

import pytest

from nfreaim.core.tcp.half_open import HalfOpen, HalfOpenTable


def key(number: int) -> bytes:
    return number.to_bytes(12, "big")


def test_an_answer_counts_once_and_only_with_the_right_number() -> None:
    table = HalfOpenTable(4)
    assert table.answered(key(1), 1, False) is None
    table.announce(key(1), HalfOpen(2**32 - 1, True), 0.0)
    assert table.answered(key(1), 1, False) is None
    assert table.answered(key(2), 0, False) is None
    assert key(1) in table
    assert table.answered(key(1), 0, False) == HalfOpen(2**32 - 1, True)  # the number wraps
    assert table.answered(key(1), 0, False) is None
    assert key(1) not in table


@pytest.mark.parametrize("client_inside", [True, False])
def test_an_answer_comes_from_the_other_side(client_inside: bool) -> None:
    table = HalfOpenTable(4)
    table.announce(key(1), HalfOpen(7, client_inside), 0.0)
    assert table.answered(key(1), 8, client_inside) is None
    assert table.answered(key(1), 8, not client_inside) == HalfOpen(7, client_inside)


@pytest.mark.parametrize("between", [0, 2, 3])
def test_a_second_attempt_with_other_numbers_replaces_the_first(between: int) -> None:
    table = HalfOpenTable(8)
    table.announce(key(1), HalfOpen(100, True), 0.0)
    for number in range(between):
        table.announce(key(10 + number), HalfOpen(1, True), 0.0)
    table.announce(key(1), HalfOpen(200, True), 0.0)
    assert table.answered(key(1), 101, False) is None
    assert table.answered(key(1), 201, False) is not None


def test_a_flood_pushes_out_the_oldest_only_and_is_counted() -> None:
    table = HalfOpenTable(100)
    forgotten = sum(table.announce(key(number), HalfOpen(number, True), 0.0) for number in range(1000))
    assert len(table) + forgotten == 1000
    assert 50 <= len(table) <= 100
    assert table.answered(key(949), 950, False) is not None, "the younger half of the bound is safe"
    assert table.answered(key(899), 900, False) is None


def test_the_same_syn_again_pushes_out_nobody() -> None:
    table = HalfOpenTable(4)
    table.announce(key(1), HalfOpen(1, True), 0.0)
    table.announce(key(2), HalfOpen(2, True), 0.0)
    assert sum(table.announce(key(2), HalfOpen(2, True), 0.0) for _ in range(100)) == 0
    assert key(1) in table


def test_what_nobody_answers_is_forgotten_without_a_flood() -> None:
    table = HalfOpenTable(100)
    table.expire(1000.0)
    table.announce(key(1), HalfOpen(1, True), 0.0)
    for later in range(75):
        table.expire(1000.0 + later)
    assert key(1) in table
    table.expire(1075.0)
    assert key(1) in table
    table.expire(1150.0)
    assert len(table) == 0


@pytest.mark.parametrize("scale", [None, 0, 14])
def test_window_scale_and_time_are_remembered_with_the_syn(scale: int | None) -> None:
    table = HalfOpenTable(4)
    table.announce(key(1), HalfOpen(2**32 - 1, True, scale), 1000.5)
    assert table.begins(key(1), 1002.0)
    assert not table.begins(key(1), 1004.0), "nobody answers that late"
    assert not table.begins(key(2), 1002.0)
    assert table.answered(key(1), 0, False) == HalfOpen(2**32 - 1, True, scale)
    assert not table.begins(key(1), 1002.0)
