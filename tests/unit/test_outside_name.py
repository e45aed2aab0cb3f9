"""The address that a name in outside_address stands for: asked beside the daemon, kept, and followed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

import pytest

from nfreaim.core.reach import Reach
from nfreaim.host.outside_name import ASK_EVERY_S, OutsideName, usable

NAME = "home.example"


class Asked:
    """A resolver with an answer, and the daemon that asks it."""

    def __init__(self, named: str | None = NAME) -> None:
        self.now = 0.0
        self.answer: Sequence[str] | OSError = OSError("Temporary failure in name resolution")
        self.asked = 0
        self.reach = Reach(named)
        self.outside = OutsideName(self.reach, lambda: self.now, self._resolve)

    def _resolve(self, name: str) -> Sequence[str]:
        assert name == NAME
        self.asked += 1
        if isinstance(self.answer, OSError):
            raise self.answer
        return self.answer

    def later(self, answer: Sequence[str] | OSError) -> str | None:
        """What is told after the time has come to ask again, and *answer* was given."""
        self.answer = answer
        self.now += ASK_EVERY_S
        self.outside.look()
        for thread in threading.enumerate():
            if thread.name == "resolver":
                thread.join()
        self.outside.look()
        return self.reach.address


def test_a_name_is_followed_and_its_last_address_kept_while_nobody_answers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    one = Asked()
    gone = OSError("no servers")
    found = [one.later(answer) for answer in (["198.51.100.7"], gone, gone, ["198.51.100.8"], gone)]
    assert found == ["198.51.100.7"] * 3 + ["198.51.100.8"] * 2
    levels = [(record.levelname, record.getMessage().split(";")[0]) for record in caplog.records]
    assert levels == [
        ("INFO", f"outside_address {NAME} stands for 198.51.100.7"),
        ("WARNING", f"outside_address {NAME} cannot be resolved: no servers"),
        ("INFO", f"outside_address {NAME} stands for 198.51.100.8"),
        ("WARNING", f"outside_address {NAME} cannot be resolved: no servers"),
    ]
    assert "198.51.100.7 is kept" in caplog.text


def test_until_there_is_an_address_it_is_asked_more_often_and_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    one = Asked()
    assert [one.later(OSError("no servers")) for _ in range(3)] == [None] * 3
    assert caplog.text.count("nothing is announced") == 1
    assert "getent ahostsv4 home.example" in caplog.text
    assert one.later(["198.51.100.7"]) == "198.51.100.7"


def test_an_address_of_ones_own_network_is_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    one = Asked()
    assert one.later(["10.0.0.1"]) is None
    assert "stands for 10.0.0.1 (private), which peers cannot reach" in caplog.text


def test_of_several_addresses_the_one_that_is_told_stays() -> None:
    assert usable(["198.51.100.7", "198.51.100.8"], None) == "198.51.100.7"
    assert usable(["198.51.100.7", "198.51.100.8"], "198.51.100.8") == "198.51.100.8"
    assert usable(["10.0.0.1", "198.51.100.8"], "198.51.100.7") == "198.51.100.8"


def test_it_is_not_asked_again_before_it_is_time_nor_twice_at_once() -> None:
    one = Asked()
    assert one.later(["198.51.100.7"]) == "198.51.100.7"
    one.now += ASK_EVERY_S / 2
    one.outside.look()
    assert one.asked == 1
    going, stop = threading.Event(), threading.Event()

    def slow(_: str) -> Sequence[str]:
        one.asked += 1
        going.set()
        stop.wait(30)
        return ["198.51.100.8"]

    one.outside._ask = slow
    one.now += ASK_EVERY_S
    one.outside.look()
    going.wait(30)
    one.now += ASK_EVERY_S
    one.outside.look()
    assert (one.asked, one.reach.address) == (2, "198.51.100.7")
    stop.set()
    for thread in threading.enumerate():
        if thread.name == "resolver":
            thread.join()
    one.outside.look()
    assert one.reach.address == "198.51.100.8"


@pytest.mark.parametrize("named", [None, "198.51.100.7"])
def test_without_a_name_nobody_is_asked(named: str | None) -> None:
    one = Asked(named)
    assert one.later(["198.51.100.8"]) == named
    assert not one.asked
