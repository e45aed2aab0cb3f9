"""XMPP's captures through the engine: the pairs of pcaps/xmpp, in other segments, and those of others."""

from __future__ import annotations

from pathlib import Path

import pytest

from pcaps.xmpp_pairs import CASES, LAN, PORT, Case, differences
from tests.replay.played import SHARED
from tests.replay.protocol_pairs import ProtocolPairs

PAIRS = ProtocolPairs("xmpp", (PORT,), LAN)
CUTS = [
    ("coalesced", 0),
    ("bytewise", 0),
    ("random", 1),
    ("random", 2),
    ("duplicates", 1),
    ("reorder", 1),
    ("random duplicates", 4),
    ("random reorder", 5),
    ("random reorder duplicates", 7),
]
JUDGED = ("s5b-alice-carol.ra-lan", "same-lan", "home")
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is absent")


def test_committed_captures_are_what_their_generator_makes() -> None:
    assert differences() == []


@each_case
def test_pair_as_it_is(case: Case, tmp_path: Path) -> None:
    PAIRS.as_it_is(case, tmp_path)


@pytest.mark.parametrize(
    ("case", "how", "seed"),
    [
        pytest.param(case, *cut, id=f"{case.name}-{cut[0].replace(' ', '-')}")
        for case in CASES
        for cut in CUTS
        # 35,000 packets, that show nothing which those of the other recording do not
        if (case.name, cut[0]) != ("s5b-alice-amy.ra-lan", "bytewise")
    ],
)
def test_pair_in_other_segments(case: Case, how: str, seed: int, tmp_path: Path) -> None:
    PAIRS.in_other_segments(case, how, seed, tmp_path)


@each_case
def test_inside_that_holds_nobody_of_the_capture(case: Case, tmp_path: Path) -> None:
    PAIRS.of_nobody_inside(case, tmp_path)


@pytest.mark.parametrize("case", [case for case in CASES if case.name in JUDGED], ids=lambda case: case.name)
def test_tshark_finds_nothing_new(case: Case, tmp_path: Path) -> None:
    PAIRS.judged(case, tmp_path)


def test_what_is_told_of_each_message(tmp_path: Path) -> None:
    case = next(case for case in CASES if case.name == "same-lan")
    result = PAIRS.play(case.before, tmp_path / "out.pcap")
    said = [
        (message.report.action, str(message.report.before), str(message.report.after))
        for message in result.messages
    ]
    alice = "10.0.0.5:5500", "203.0.113.1:5500"
    amy = "10.0.0.6:5500", "203.0.113.1:40000"
    assert said == [
        (action, *ends)
        for own in (alice, amy)
        for action, ends in (("rewritten", own), ("mapped-back", own[::-1])) * 2
    ]
    assert {message.as_dict()["protocol"] for message in result.messages} == {"xmpp"}


@pytest.mark.parametrize(
    ("name", "pinholes"),
    [
        ("s5b-alice-carol.ra-lan", ["10.0.0.5:43817 203.0.113.1:43817"]),
        ("s5b-alice-amy.ra-lan", ["10.0.0.5:40633 203.0.113.1:40633"]),
        ("home", ["10.0.0.5:5500 203.0.113.1:5500", "10.0.0.6:5500 203.0.113.1:40000"]),
        ("left", []),
        ("imitation", []),
        ("encrypted", []),
    ],
)
def test_pinholes(name: str, pinholes: list[str], tmp_path: Path) -> None:
    case = next(case for case in CASES if case.name == name)
    result = PAIRS.play(case.before, tmp_path / "out.pcap")
    assert [f"{inside} {outside}" for inside, outside in result.pinholes] == pinholes


# --- captures of other protocols, which may not be copied here ----------------------------------------------

FOREIGN = [
    ("irc-dcc-send.pcapng", "10.0.0.7/32"),
    ("Oscar.pcap", "10.30.29.3/32"),
    ("msn-chat.pcap", "192.168.0.114/32"),
    ("yahoo-filetransfer.pcap", "192.168.129.131/32"),
]


@shared
@pytest.mark.parametrize("midstream", [False, True], ids=["from-the-syn", "midstream"])
@pytest.mark.parametrize(("name", "inside"), FOREIGN)
def test_nothing_to_change(name: str, inside: str, midstream: bool, tmp_path: Path) -> None:
    PAIRS.of_others(name, inside, (443, 1863, 5050, 5190, 6667), midstream, tmp_path)
