"""Time-outs of set entries: short, renewed in time, in slices, and never longer than the pinhole."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from nfreaim.core.address import Endpoint
from nfreaim.core.firewall.pinhole import Pinhole
from nfreaim.host.pinholes.leases import LEASE_S, RENEW_AFTER_S, Leases
from tests.unit.fakes import OUTSIDE
from tests.unit.pinhole_table import ALICE, A

STANDING = Pinhole(Endpoint("10.0.0.5", 5190), Endpoint(OUTSIDE, 5190), ALICE, A, "icq-direct", math.inf)


def many(number: int) -> list[Pinhole]:
    return [replace(STANDING, outside=Endpoint(OUTSIDE, 20000 + each)) for each in range(number)]


@pytest.mark.parametrize("lasting", [math.inf, 600.0, 25.0, 24.999, 24.0, 3.5, 1.0, 0.001, 0.0, -5.0])
def test_no_time_out_is_long_and_none_ends_before_the_deadline(lasting: float) -> None:
    seconds = Leases().seconds(replace(STANDING, deadline=1000.0 + lasting), 1000.0)
    assert 1 <= seconds <= LEASE_S <= 180
    assert seconds > lasting or seconds == LEASE_S


def test_an_entry_is_renewed_when_it_is_some_seconds_old_and_not_before() -> None:
    leases = Leases()
    leases.written(STANDING, 100.0)
    assert leases.due([STANDING], 100.0 + RENEW_AFTER_S - 0.1) == []
    assert leases.due([STANDING], 100.0 + RENEW_AFTER_S) == [STANDING]
    leases.written(STANDING, 105.0)
    assert leases.due([STANDING], 106.0) == []


def test_what_ends_by_its_deadline_is_not_renewed_any_more() -> None:
    leases = Leases()
    brief = replace(STANDING, deadline=120.0)
    leases.written(brief, 100.0)
    assert leases.due([brief], 119.0) == []


@pytest.mark.parametrize("written", [100.0, None])
def test_what_is_past_its_deadline_is_never_opened_again(written: float | None) -> None:
    leases = Leases()
    brief = replace(STANDING, deadline=110.0)
    if written is not None:
        leases.written(brief, written)
    assert leases.due([brief], 111.5) == []


def test_what_another_daemon_wrote_is_renewed_at_once() -> None:
    """Nobody knows how long it lasts: perhaps for ever, as in earlier versions."""
    assert Leases().due([STANDING], 100.0) == [STANDING]
    assert not Leases().lapsed(STANDING, 100.0)


def test_what_is_closed_and_opened_again_is_a_new_entry() -> None:
    leases = Leases()
    leases.written(STANDING, 100.0)
    leases.gone(STANDING.outside)
    assert not leases.lapsed(STANDING, 1e6)
    leases.gone(STANDING.outside)


def test_after_a_pause_all_that_lapsed_is_written_at_once() -> None:
    leases, all_ = Leases(), many(1000)
    for each in all_:
        leases.written(each, 100.0)
    assert not leases.lapsed(all_[0], 100.0 + LEASE_S - 0.1)
    assert leases.lapsed(all_[0], 100.0 + LEASE_S)
    assert leases.due(all_, 100.0 + LEASE_S) == all_


@pytest.mark.parametrize("number", [1, 128, 1024, 20000])
def test_each_of_many_is_renewed_long_before_its_end_and_few_at_once(number: int) -> None:
    leases, all_ = Leases(), many(number)
    for each in all_:
        leases.written(each, 0.0)
    ends = dict.fromkeys(all_, 0.0)
    for second in range(1, 61):
        due = leases.due(all_, float(second))
        assert len(due) <= max(128, math.ceil(number / 4))
        for each in due:
            leases.written(each, float(second))
            ends[each] = second
        assert second - min(ends.values()) <= 10, "15 s are left at least"
