"""Every play, the table in docs/tcp.md that lists them, and the interpreter's strictness."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nfreaim.core.address import End
from tests.playbook.notation import Wrong, perform, plays

PLAYS = plays()
TABLE = Path(__file__).parents[2] / "docs" / "tcp.md"


@pytest.mark.parametrize("inside", End)
@pytest.mark.parametrize("name", PLAYS)
def test_play(name: str, inside: End) -> None:
    perform(PLAYS[name], inside)


def test_the_table_lists_every_play_once_and_nothing_else() -> None:
    listed = re.findall(r"^\|.*\| `([^`]+)` \|$", TABLE.read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(PLAYS)


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ([], "asserts nothing"),
        (['edit client 0:1 "x"'], "asserts nothing"),
        (['client 0:1 "a" ack 0'], "not said: -> same"),
        (['client 0:1 "a" ack 0', "client 1 ack 0", "-> same"], "before client 1 ack 0: not said"),
        (['client 0:2 "a" ack 0', "-> same"], "does not fit"),
        (["client 0 ack 0 URG", "-> same"], "no part of a packet"),
        (["nobody 0 ack 0", "-> same"], "not understood"),
    ],
)
def test_a_play_that_says_too_little_is_an_error(lines: list[str], complaint: str) -> None:
    with pytest.raises(Wrong, match=complaint):
        perform(lines)


@pytest.mark.parametrize("wrong", ["-> dropped", '-> 0:1 "b"', "-> held", "-> same\n-> same"])
def test_a_play_that_says_something_else_fails(wrong: str) -> None:
    with pytest.raises(AssertionError, match="it was"):
        perform(['client 0:1 "a" ack 0', *wrong.splitlines()])


def test_a_packet_that_is_held_to_the_end_is_an_error() -> None:
    with pytest.raises(AssertionError, match="without a verdict"):
        perform(['edit client 0:2 "xy"', 'client 0:1 "a" ack 0', "-> held"])
