"""The loop and the queue when something fails that nobody thought of."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from nfreaim.core.verdict import ACCEPT, DROP, Verdict

pytest.importorskip("netfilterqueue")
pytest.importorskip("iptc")

from nfreaim.host.loop import Every, Loop, clock, stop_signals
from nfreaim.host.netfilter.names import SKEWED_MARK
from nfreaim.host.netfilter.packet_queue import PacketQueue
from nfreaim.host.report.journal import QuietFormatter
from nfreaim.host.rules.watch import Watch


class Packet:
    """A packet of the binding: what was done to it, and a payload that may refuse to be set."""

    hook = 0

    def __init__(self, mark: int = 0, stubborn: bool = False) -> None:
        self.mark, self.stubborn = mark, stubborn
        self.verdicts: list[str] = []

    def get_mark(self) -> int:
        return self.mark

    def set_mark(self, mark: int) -> None:
        self.mark = mark

    def get_payload(self) -> bytes:
        return b"data"

    def set_payload(self, data: bytes) -> None:
        if self.stubborn:
            raise ValueError("too large")

    def accept(self) -> None:
        self.verdicts.append("accept")

    def drop(self) -> None:
        self.verdicts.append("drop")


SECRET = "what somebody wrote to somebody"


class Broken:
    """An engine that fails with every packet, and quotes it."""

    def passes(self, *_: Any) -> bool:
        return False

    def process_slow(self, *_: Any) -> Any:
        raise RuntimeError(SECRET)


def part() -> None:
    raise RuntimeError("nobody thought of this")


def loop() -> Loop:
    return Loop(socket.socketpair()[0], lambda: None)


def test_a_part_of_the_loop_that_fails_is_tried_again_until_it_has_failed_too_often() -> None:
    turning = loop()
    for _ in range(3):
        for _ in range(4):
            turning.attempt("part", part)
        turning.attempt("part", lambda: None)  # it worked in between
    for _ in range(4):
        turning.attempt("part", part)
    with pytest.raises(RuntimeError):
        turning.attempt("part", part)


def test_failures_of_one_part_are_not_counted_against_another() -> None:
    turning = loop()
    for _ in range(4):
        turning.attempt("part", part)
    for _ in range(4):
        turning.attempt("another", part)


def test_chores_are_done_until_a_signal_or_one_that_may_not_fail_ends_the_loop() -> None:
    done: list[str] = []
    with stop_signals() as signals:
        turning = Loop(signals, lambda: done.append("report"))

        def enough() -> None:
            done.append("chore")
            if done.count("chore") == 1:
                os.kill(os.getpid(), signal.SIGUSR1)
            elif "report" in done:
                os.kill(os.getpid(), signal.SIGTERM)

        turning.chore("enough", Every(lambda: 0.001, enough))
        turning.run()
        assert "report" in done
        failing = Loop(signals, lambda: None)
        failing.must(Every(lambda: 1.0, part))
        with pytest.raises(RuntimeError):
            failing.run()


def test_what_is_done_every_second_is_not_done_twice_in_one() -> None:
    done: list[float] = []
    every = Every(lambda: 1.0, lambda: done.append(clock()))
    now = clock()
    assert every.due() <= now
    every.work(now)
    assert every.due() == now + 1.0


def test_each_packet_gets_one_verdict_whatever_the_engine_does(caplog: pytest.LogCaptureFixture) -> None:
    queue = PacketQueue(5190, Broken(), lambda: 1.0)
    plain, skewed = [Packet() for _ in range(3)], [Packet(SKEWED_MARK) for _ in range(3)]
    for packet in plain + skewed:
        queue._handle(packet)
    assert [packet.verdicts for packet in plain] == [["accept"]] * 3
    assert [packet.verdicts for packet in skewed] == [["drop"]] * 3
    assert sum(record.exc_info is not None for record in caplog.records) == 1, "the first says where"


def test_the_text_of_an_exception_in_the_engine_does_not_reach_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    queue = PacketQueue(5190, Broken(), lambda: 1.0)
    for _ in range(2):
        queue._handle(Packet())
    for record in caplog.records:
        record.exc_text = None  # what pytest's own formatter made of it
        said = QuietFormatter().format(record)
        assert SECRET not in said
        assert "RuntimeError" in said, "the second names its kind, too"
        assert f"{Path(__file__).name}:" in record.getMessage(), "and its place"
    assert len(caplog.records) == 2


def test_a_verdict_that_fails_keeps_no_other_packet_waiting() -> None:
    queue = PacketQueue(5190, Broken(), lambda: 1.0)
    packets = [Packet(), Packet(stubborn=True), Packet(), Packet()]
    edited = Verdict(True, b"edit")
    queue.send_verdicts(list(zip(packets, (ACCEPT, edited, edited, DROP), strict=True)))
    assert [packet.verdicts for packet in packets] == [["accept"], ["drop"], ["accept"], ["drop"]]


def test_somebody_who_keeps_removing_the_rules_is_followed_less_and_less_often() -> None:
    watch = object.__new__(Watch)
    watch._row, watch._restored, watch._restore_at = 0, 0.0, 0.0
    waits = []
    watch._now = 10_000.0
    for _ in range(12):
        watch._postpone()
        waits.append(watch._restore_at - watch._now)
        watch._now = watch._restore_at + 2.0
    assert waits == [0.0] * 4 + [5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0]
    watch._now += 700.0
    watch._postpone()
    assert watch._restore_at == watch._now
