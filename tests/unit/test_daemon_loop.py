"""The loop and the queue when something fails that nobody thought of."""

from __future__ import annotations

import os
import signal
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from nfreaim.core.firewall.peer_gate import PeerGate
from nfreaim.core.verdict import ACCEPT, DROP, Verdict

pytest.importorskip("netfilterqueue")
pytest.importorskip("iptc")

from nfreaim.host import daemon
from nfreaim.host.loop import Every, Loop, clock, stop_signals
from nfreaim.host.netfilter.packet_queue import GateQueue, PacketQueue, SkewedFlows
from nfreaim.host.report.log_output import QuietFormatter
from nfreaim.host.rules.script import Settings
from nfreaim.host.rules.watch import Watch


class Packet:
    """A packet of the binding: what was done to it, and a payload that may refuse to be set."""

    hook = 0

    def __init__(self, data: bytes = b"data", mark: int = 0, stubborn: bool = False) -> None:
        self.data, self.mark, self.stubborn = data, mark, stubborn
        self.verdicts: list[str] = []

    def get_mark(self) -> int:
        return self.mark

    def set_mark(self, mark: int) -> None:
        self.mark = mark

    def get_payload(self) -> bytes:
        return self.data

    def set_payload(self, data: bytes) -> None:
        if self.stubborn:
            raise ValueError("too large")

    def accept(self) -> None:
        self.verdicts.append("accept")

    def drop(self) -> None:
        self.verdicts.append("drop")

    def repeat(self) -> None:
        self.verdicts.append("repeat")


INPUT, FORWARD, POSTROUTING = 1, 2, 4  # linux/netfilter.h
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


def test_what_a_packet_need_not_wait_for_is_done_after_each_source_that_was_read() -> None:
    done: list[str] = []
    with stop_signals() as signals:
        turning = Loop(signals, lambda: None)
        pairs = [socket.socketpair() for _ in range(2)]
        for name, (near, far) in zip("ab", pairs, strict=True):
            far.send(b"x")

            def read(name: str = name, near: socket.socket = near) -> None:
                near.recv(1)
                done.append(name)

            turning.serve(near, read)
        turning.afterwards(lambda: done.append("after"))
        turning.chore("stop", Every(lambda: 0.01, lambda: setattr(turning, "stopped", len(done) >= 4)))
        turning.run()
    assert done in (["a", "after", "b", "after"], ["b", "after", "a", "after"])
    for pair in pairs:
        for end in pair:
            end.close()


def test_what_is_done_every_second_is_not_done_twice_in_one() -> None:
    done: list[float] = []
    every = Every(lambda: 1.0, lambda: done.append(clock()))
    now = clock()
    assert every.due() <= now
    every.work(now)
    assert every.due() == now + 1.0


def test_each_packet_gets_one_verdict_whatever_the_engine_does(caplog: pytest.LogCaptureFixture) -> None:
    skew = SkewedFlows(lambda raw: raw == b"skewed", ())
    queue = PacketQueue(5190, Broken(), lambda: 1.0, skewed=skew)
    plain, skewed = [Packet() for _ in range(3)], [Packet(b"skewed") for _ in range(3)]
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


class Gate:
    """A peer gate that gives one verdict."""

    def __init__(self, verdict: Verdict) -> None:
        self._verdict = verdict

    def process(self, *_: Any) -> Verdict:
        return self._verdict


@pytest.mark.parametrize(
    ("hook", "release", "mark", "verdict"),
    [
        (FORWARD, True, 0xDEAD0011, "accept"),
        (FORWARD, False, 0xDEAD0001, "accept"),
        (INPUT, False, 0xDEAD0001, "accept"),
        (POSTROUTING, False, 0xDEAD0001, "accept"),
        (POSTROUTING, True, 0xDEAD0011, "repeat"),  # the rule for the mark is at the head of this chain
    ],
)
def test_a_verdict_keeps_what_others_have_marked(hook: int, release: bool, mark: int, verdict: str) -> None:
    gate = GateQueue(cast(PeerGate, Gate(Verdict(True, release=release))), 0x10)
    queue = PacketQueue(5190, Broken(), lambda: 1.0, gate)
    packet = Packet(mark=0xDEAD0001)
    packet.hook = hook
    queue._handle(packet)
    assert (packet.verdicts, packet.mark) == ([verdict], mark)


def test_an_edited_packet_has_no_mark_of_ours() -> None:
    """It is routed next, and in raw OUTPUT another mark would have the kernel route it anew."""
    packet = Packet(mark=0xDEAD0001)
    queue = PacketQueue(5190, Broken(), lambda: 1.0)
    queue.send_verdicts([(packet, Verdict(True, b"edit"))])
    assert (packet.verdicts, packet.mark) == (["accept"], 0xDEAD0001)


def test_the_set_is_asked_only_where_the_engine_needs_the_answer() -> None:
    key = bytes(range(12))
    plain, syn = (bytes(12) + key + bytes(9) + bytes([flags]) + bytes(6) for flags in (0x10, 0x02))
    asked: list[bytes] = []

    def has(raw: bytes) -> bool:
        asked.append(raw)
        return True

    skew = SkewedFlows(has, {key})
    assert [skew.asks_for(raw) for raw in (plain, syn, bytes(40), b"short")] == [False, True, True, True]
    assert asked == [syn, bytes(40), b"short"]


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


def test_the_interfaces_that_the_daemon_is_told_are_those_of_the_rules_and_exist(
    caplog: pytest.LogCaptureFixture,
) -> None:
    installed = Settings(("lo",), ("nosuch0",), {"oscar": (5190,)}, 5190)
    for wanted in (installed, replace(installed, wan=("nosuch1",)), replace(installed, lan=(), wan=())):
        caplog.clear()
        daemon._tell_of_interfaces(installed, wanted)
        said = [record.getMessage() for record in caplog.records]
        if not wanted.wan:
            assert said == [], "it was told none"
            continue
        assert f"no interface {wanted.wan[0]} exists (yet): is the name right?" in said
        differ = "the rules are for --wan nosuch0, which counts, and not for nosuch1"
        assert any(differ in line for line in said) is (wanted != installed)


def test_a_hangup_asks_to_read_the_settings_again_and_the_loop_goes_on() -> None:
    done: list[str] = []
    with stop_signals() as signals:
        turning = Loop(signals, lambda: done.append("report"), lambda: done.append("reload"))

        def enough() -> None:
            done.append("chore")
            if done.count("chore") == 1:
                os.kill(os.getpid(), signal.SIGHUP)
            elif "reload" in done:
                os.kill(os.getpid(), signal.SIGTERM)

        turning.chore("enough", Every(lambda: 0.001, enough))
        turning.run()
    assert done.count("reload") == 1
    assert "report" not in done
