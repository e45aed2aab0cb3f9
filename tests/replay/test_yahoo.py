"""Yahoo! Messenger's captures through the engine: the pairs of pcaps/yahoo, and those of others."""

from __future__ import annotations

from pathlib import Path

import pytest

from pcaps.yahoo_pairs import CASES, LAN, Case, differences
from tests.replay.played import SHARED
from tests.replay.protocol_pairs import ProtocolPairs

PAIRS = ProtocolPairs("yahoo", (5050,), LAN)
CUTS = [
    ("coalesced", 0),
    ("bytewise", 0),
    ("random", 1),
    ("duplicates", 1),
    ("reorder", 1),
    ("random reorder duplicates", 7),
]
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def test_committed_captures_are_what_their_generator_makes() -> None:
    assert differences() == []


@each_case
def test_pair_as_it_is(case: Case, tmp_path: Path) -> None:
    PAIRS.as_it_is(case, tmp_path)


@pytest.mark.parametrize(("how", "seed"), CUTS, ids=lambda value: str(value).replace(" ", "-"))
@each_case
def test_pair_in_other_segments(case: Case, how: str, seed: int, tmp_path: Path) -> None:
    PAIRS.in_other_segments(case, how, seed, tmp_path)


@each_case
def test_inside_that_holds_nobody_of_the_capture(case: Case, tmp_path: Path) -> None:
    PAIRS.of_nobody_inside(case, tmp_path)


@pytest.mark.parametrize("case", CASES[:3], ids=lambda case: case.name)
def test_tshark_finds_nothing_new(case: Case, tmp_path: Path) -> None:
    PAIRS.judged(case, tmp_path)


def test_what_is_told_of_each_message(tmp_path: Path) -> None:
    case = next(case for case in CASES if case.name == "same-lan")
    result = PAIRS.play(case.before, tmp_path / "out.pcap")
    assert [
        (one.report.direction, one.report.action, str(one.report.before), str(one.report.after))
        for one in result.messages
    ] == [
        ("out", "rewritten", "10.0.0.5:5555", "203.0.113.1:5555"),
        ("in", "mapped-back", "203.0.113.1:5555", "10.0.0.5:5555"),
        ("out", "rewritten", "10.0.0.6:5555", "203.0.113.1:40000"),
        ("in", "mapped-back", "203.0.113.1:40000", "10.0.0.6:5555"),
    ]
    assert {message.as_dict()["protocol"] for message in result.messages} == {"yahoo"}


FOREIGN = [
    ("yahoo-filetransfer.pcap", "192.168.129.131/32", 5050),
    ("yahoo-filetransfer.pcap", "192.168.129.131/32", 5101),
    ("yahoo-filetransfer.pcap", "192.168.129.131/32", 80),
    ("Oscar.pcap", "10.30.29.3/32", 443),
    ("msn-chat.pcap", "192.168.0.114/32", 1863),
    ("irc-dcc-send.pcapng", "10.0.0.7/32", 6667),
]


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is absent")
@pytest.mark.parametrize("midstream", [False, True], ids=["from-the-syn", "midstream"])
@pytest.mark.parametrize(("name", "inside", "port"), FOREIGN)
def test_nothing_to_change(name: str, inside: str, port: int, midstream: bool, tmp_path: Path) -> None:
    """The first has files by 0xDC to 0xDE over a relay, and two announcements of peer links."""
    result = PAIRS.of_others(name, inside, (port,), midstream, tmp_path)
    if name.startswith("yahoo") and port == 5050:
        assert result.malformed == 0
