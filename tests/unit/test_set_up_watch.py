"""A router whose set-up changes while it is served: what is told, how often, and what is no difference."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from subprocess import CompletedProcess
from typing import Any

import pytest

from nfreaim.errors import BackendError
from nfreaim.host.auto import set_up_watch
from nfreaim.host.auto.set_up_watch import TAKE_OVER, SetUpWatch

AS_SERVED = {"named": False, "lan": ["br-lan"], "wan": ["eth0"], "why": ""}
GUESTS = {**AS_SERVED, "lan": ["br-guest", "br-lan"]}
MOVED = {**AS_SERVED, "wan": ["ppp0"]}
NONE = {"named": False, "lan": [], "wan": [], "why": "there is no IPv4 default route in the main table"}
EVERY_S = set_up_watch._LOOK_EVERY_S


class Watched:
    """A watch whose program answers at once; what it told is in *said*."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        self._log = caplog
        self.now = 0.0
        self.answer: dict[str, Any] | BackendError | int = AS_SERVED
        self.interfaces = (["br-lan"], ["eth0"])
        self.watch = SetUpWatch("/etc/f.toml", lambda: self.interfaces, self.now)
        monkeypatch.setattr(set_up_watch, "BackgroundProgram", self._start)

    def _start(self, words: Sequence[str], timeout_s: float) -> Watched:
        if isinstance(self.answer, BackendError):
            raise self.answer
        return self

    def result(self) -> CompletedProcess[str]:
        if isinstance(self.answer, int):
            return CompletedProcess([], self.answer, "", "refused")
        return CompletedProcess([], 0, json.dumps(self.answer), "")

    def look(self, *answers: dict[str, Any] | BackendError | int) -> list[str]:
        """What is said at a look for each answer."""
        before = len(self._log.messages)
        for self.answer in answers:
            self.now = self.watch.due()
            self.watch.work(self.now)
            if not isinstance(self.answer, BackendError):
                self.watch.work(self.watch.due())
        return list(self._log.messages[before:])


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Watched:
    return Watched(monkeypatch, caplog)


def test_what_lasts_is_told_once_with_what_takes_it_over(watched: Watched) -> None:
    for shown, text in (
        (GUESTS, "shows br-guest, br-lan towards clients and eth0"),
        (MOVED, "and ppp0 towards"),
    ):
        assert watched.look(shown) == []
        (line,) = watched.look(shown)
        assert text in line
        assert line.endswith(
            f"served are br-lan towards clients and eth0 towards the Internet; remedy: {TAKE_OVER}"
        )
        assert watched.watch.told() == line
        assert watched.look(shown, shown, shown) == []


def test_what_is_missing_is_told_with_the_lines_that_keep_what_is_served(watched: Watched) -> None:
    (line,) = watched.look(NONE, NONE)
    assert "there is no IPv4 default route" in line
    assert line.endswith('write into /etc/f.toml: lan = ["br-lan"] and wan = ["eth0"]')
    assert watched.look(AS_SERVED) == []
    assert watched.look(AS_SERVED) == ["this router's set-up shows the interfaces that are served again"]
    assert watched.watch.told() == ""


def test_a_short_loss_is_not_told_unless_the_operator_asks(watched: Watched) -> None:
    assert watched.look(NONE, AS_SERVED, NONE, GUESTS, AS_SERVED, AS_SERVED) == []
    watched.watch.look_now()
    assert watched.watch.due() == 0.0
    assert len(watched.look(NONE)) == 1
    assert watched.look(AS_SERVED) == []


def test_a_look_that_began_before_the_operator_asked_does_not_count(watched: Watched) -> None:
    watched.answer = AS_SERVED
    watched.watch.work(watched.watch.due())
    watched.watch.look_now()
    watched.watch.work(watched.now)
    assert watched.watch.due() == watched.now
    assert len(watched.look(GUESTS)) == 1


def test_rules_that_were_made_anew_count(watched: Watched) -> None:
    assert len(watched.look(GUESTS, GUESTS)) == 1
    watched.interfaces = (["br-guest", "br-lan"], ["eth0"])
    assert watched.look(GUESTS, GUESTS) == ["this router's set-up shows the interfaces that are served again"]


@pytest.mark.parametrize(
    ("served", "shown"),
    [
        ((["br-guest", "br-lan"], ["eth0"]), AS_SERVED),  # a link that is down may come again
        ((["br-+"], ["eth+"]), GUESTS),
        ((["br-lan"], ["eth0", "eth1"]), AS_SERVED),
        ((["other"], ["eth9"]), {"named": True}),
    ],
)
def test_what_is_no_difference(
    watched: Watched, served: tuple[list[str], list[str]], shown: dict[str, Any]
) -> None:
    watched.interfaces = served
    assert watched.look(shown, shown) == []


def test_a_look_that_fails_says_nothing_and_is_repeated(watched: Watched) -> None:
    assert watched.look(GUESTS, BackendError("no memory"), 2, {}) == []
    assert watched.watch.due() == pytest.approx(watched.now + set_up_watch._ASK_EVERY_S + EVERY_S)
    assert len(watched.look(GUESTS)) == 1
