"""What messages may cost: bounds on their bytes, and the budget of time of who sends them."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import replace

import pytest

from nfreaim.core.address import Direction
from nfreaim.core.backend import Backend
from nfreaim.core.budget import Pace, ReadingTime
from nfreaim.core.helper import Refused
from nfreaim.helpers.oscar import proposal as proposals
from nfreaim.layers.compiled import Record
from nfreaim.layers.oscar_messages import MAX_TLVS
from nfreaim.layers.oscar_reading import read_icbm
from tests.oscar.flap import FLAP_KEEPALIVE, flap
from tests.oscar.messages import BASIC, addressed, proposal
from tests.oscar.snac import snac_frame
from tests.oscar.tlv import tlv, user_info
from tests.tcp.packets import packed
from tests.unit import oscar_fixtures
from tests.unit.fakes import FakeKernel
from tests.unit.oscar_fixtures import Router, Wire

KEY, OTHER = b"\x0a\0\0\5" + bytes(8), b"\x0a\0\0\6" + bytes(8)
OUT, IN = Direction


class Clock:
    """Processor time that passes only when it is told to."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


def spend(budget: ReadingTime, clock: Clock, key: bytes, way: Direction, now: float, took: float) -> bool:
    may = budget.begin(key, way, now)
    clock.time += took
    budget.stop(now)
    return may


# --- bytes -------------------------------------------------------------------------------------------------


def filler(count: int) -> bytes:
    return tlv(0x7777, b"") * count


@pytest.mark.parametrize(
    "frame",
    [
        proposal(BASIC + filler(MAX_TLVS)),
        proposal(BASIC, outer=filler(MAX_TLVS)),
        proposal(BASIC + filler(MAX_TLVS // 2), outer=filler(MAX_TLVS // 2)),
        proposal(BASIC),
    ],
    ids=["in the block", "beside it", "half in each", "few"],
)
def test_no_frame_of_more_tlvs_than_a_message_has_is_read_in_whole(
    frame: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bytes] = []

    def read(data: bytes) -> tuple[Record, Record, Record]:
        seen.append(data)
        return read_icbm(data)

    monkeypatch.setattr(proposals, "read_icbm", read)
    wire = Wire().sign_on()
    out = wire.client(frame)
    few = len(frame) < 300
    assert (out != frame) is few
    assert len(seen) == few
    assert wire.router.engine.counters.helpers["malformed_messages"] == (not few)


def test_blocks_are_not_read_if_there_are_several() -> None:
    block = tlv(5, proposal(BASIC)[-len(BASIC) - 26 :])
    frame = proposal(BASIC, outer=block)
    wire = Wire().sign_on()
    assert wire.client(frame) == frame
    assert not wire.router.firewall.changes
    assert wire.router.engine.counters.helpers["malformed_messages"] == 1


def test_tlvs_of_the_user_info_count() -> None:
    wire = Wire().sign_on()
    body = b"cookie1\0\0\2" + user_info("bob", *[tlv(9)] * 60) + tlv(5, bytes(26) + filler(60))
    frame = snac_frame((4, 7), body)
    assert wire.server(frame) == frame
    assert wire.router.engine.counters.helpers["malformed_messages"] == 1


def test_most_tlvs_that_pass_are_read() -> None:
    count = 96 - BASIC.count(b"\0\4")
    frame = proposal(BASIC + filler(count - 10))
    wire = Wire().sign_on()
    assert wire.client(frame) != frame
    assert len(wire.router.pinholes) == 1


def test_a_list_of_arrivals_or_a_status_beyond_the_bound_is_left() -> None:
    listens = packed("10.0.0.5") + (4000).to_bytes(4, "big") + b"\4" + bytes(28)
    status = snac_frame((1, 0x1E), tlv(0x0C, listens))
    wire = Wire().sign_on()
    assert wire.client(status) != status
    over = snac_frame((1, 0x1E), filler(MAX_TLVS) + status[16:])
    assert wire.client(over) == over
    for blocks in (user_info("x") * (MAX_TLVS + 1), user_info("x", *[tlv(9)] * 60) * 2):
        frame = snac_frame((3, 0x0B), blocks)
        assert wire.server(frame) == frame
    assert wire.router.engine.counters.helpers["malformed_messages"] == 3


def test_the_end_of_a_long_frame_is_not_waited_for() -> None:
    """A frame's beginning is looked at again with each segment, however small."""
    wire = Wire().sign_on()
    frame = proposal(BASIC, outer=filler(MAX_TLVS + 60))
    first = frame.index(BASIC)
    moved = frame[:first] + filler(MAX_TLVS) + frame[first:]
    assert wire.client(moved[:-8], range(20, len(moved) - 8, 7)) == moved[:-8], "something was held"


# --- time --------------------------------------------------------------------------------------------------


def test_a_direction_that_has_spent_its_time_waits_a_second_and_the_other_does_not() -> None:
    clock = Clock()
    budget = ReadingTime(clock)
    for _ in range(7):
        assert spend(budget, clock, KEY, IN, 100.0, 0.015)
    assert not spend(budget, clock, KEY, IN, 100.5, 0.0)
    assert spend(budget, clock, KEY, OUT, 100.5, 0.015)
    assert spend(budget, clock, OTHER, IN, 100.5, 0.015)
    assert spend(budget, clock, KEY, IN, 101.1, 0.015)


def test_what_the_kernel_takes_to_open_a_pinhole_is_not_the_messages_time() -> None:
    clock = Clock()
    budget = ReadingTime(clock)
    for _ in range(10):
        assert budget.begin(KEY, OUT, 100.0)
        with budget.elsewhere():
            clock.time += 0.5
        clock.time += 0.001
        budget.stop(100.0)


def test_what_it_takes_to_refuse_a_pinhole_is() -> None:
    """Nothing else bounds it: rates count what is opened."""
    clock = Clock()
    budget = ReadingTime(clock)

    def proposed() -> bool:
        if not budget.begin(KEY, OUT, 100.0):
            return False
        with contextlib.suppress(Refused), budget.elsewhere():
            clock.time += 0.01
            raise Refused("no free port")
        budget.stop(100.0)
        return True

    assert sum(proposed() for _ in range(20)) <= 11


def test_ninety_small_messages_in_a_second_are_read_on_a_busy_processor() -> None:
    clock = Clock()
    budget = ReadingTime(clock)
    assert all(spend(budget, clock, KEY, OUT, 100.0 + n / 100, 0.001) for n in range(90))


def test_many_connections_of_one_client_have_no_more_than_its_share() -> None:
    clock = Clock()
    budget = ReadingTime(clock)
    served = sum(
        spend(budget, clock, KEY[:10] + n.to_bytes(2, "big"), OUT, 100.0, 0.002) for n in range(1000)
    )
    assert served * 0.002 <= 0.16
    assert spend(budget, clock, OTHER, OUT, 100.0, 0.002)


def test_many_clients_leave_each_other_a_share() -> None:
    clock = Clock()
    budget = ReadingTime(clock)
    keys = [b"\x0a\1" + n.to_bytes(2, "big") + bytes(8) for n in range(100)]
    for _ in range(50):
        for key in keys:
            spend(budget, clock, key, OUT, 100.0, 0.001)
    assert clock.time > 1.0, "this much would have been asked for"
    assert spend(budget, clock, OTHER, OUT, 100.0, 0.001), "who has had nothing is read"
    assert spend(budget, clock, keys[0], OUT, 102.0, 0.001)


def test_the_log_names_few_connections_in_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    budget = ReadingTime(clock)
    with caplog.at_level(logging.INFO):
        for second in range(70):
            for n in range(40):
                key = b"\x0a\0" + n.to_bytes(2, "big") + bytes(8)
                spend(budget, clock, key, OUT, 100.0 + 2 * second, 0.06)
    assert len(caplog.records) <= 3 * 11


class _Expensive(FakeKernel):
    """Each look at the clock finds that 8 ms have passed."""

    @property
    def backend(self) -> Backend:
        self.clock = Clock()

        def cpu() -> float:
            self.clock.time += 0.008
            return self.clock.time

        return replace(super().backend, cpu=cpu)


@pytest.fixture
def router(monkeypatch: pytest.MonkeyPatch) -> oscar_fixtures.Router:
    monkeypatch.setattr("tests.unit.fakes.FakeKernel", _Expensive)
    return Router()


def offer(port: int) -> bytes:
    return proposal(addressed(2, 3, port=port))


def test_messages_beyond_the_share_pass_as_they_are_and_reading_goes_on_in_step(router: Router) -> None:
    wire = Wire(router).sign_on()
    frames = [offer(port) for port in range(6000, 6020)]
    read = sum(wire.client(frame) != frame for frame in frames)
    assert 3 <= read <= 10
    assert router.engine.counters.skipped_messages == 20 - read
    assert wire.c2s.endswith(frames[-1]), "the last ones are left alone"
    router.wait(1.5)
    last = offer(7000)
    assert wire.client(last) != last
    assert wire.read


def test_nobody_is_silenced_by_being_sent_much(router: Router) -> None:
    alice = Wire(router).sign_on()
    for port in range(6000, 6020):
        alice.server(proposal(addressed(2, 3, 4, address=packed("198.51.100.9"), port=port), subtype=7))
    assert router.engine.counters.skipped_messages > 5
    frame = offer(7000)
    assert alice.client(frame) != frame
    alice.server(b"\x2a\4\0\0\0\0")
    assert not len(router.pinholes), "and a sign-off is always read"


def test_who_makes_the_limits_of_messages_expensive_is_slowed_down_and_nobody_else() -> None:
    pace = Pace()
    assert not pace.paused
    while not pace.paused:
        pace.took(KEY, OUT, 0.004, 100.0)
    assert pace.drops(KEY, OUT, 100.1)
    assert not pace.drops(KEY, IN, 100.1)
    assert not pace.drops(OTHER, OUT, 100.1)
    assert not pace.drops(KEY, OUT, 100.3), "a moment later it goes on"
    for n in range(100):
        pace.took(KEY[:10] + n.to_bytes(2, "big"), OUT, 0.001, 200.0)
    assert pace.drops(KEY[:10] + b"\7\7", OUT, 200.0), "nor does it help to have many connections"
    pace.took(OTHER, OUT, 0.001, 200.0)
    assert not pace.drops(OTHER, OUT, 200.0)


def test_a_stream_that_is_slowed_down_arrives_as_it_was_sent(router: Router) -> None:
    wire = Wire(router).sign_on()
    frame = flap(FLAP_KEEPALIVE) * 60
    for _ in range(40):
        before = len(wire.c2s)
        at = len(wire.sent[0])
        wire.inject(0, at, frame)
        if len(wire.c2s) == before:  # dropped: TCP sends it again
            router.wait(0.3)
            wire.inject(0, at, frame)
        wire.sent[0] += frame
    assert router.engine.counters.paced_drops
    assert wire.c2s == bytes(wire.sent[0])
    assert wire.read
