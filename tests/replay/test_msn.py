"""MSN's captures through the engine: the pairs of pcaps/msn, in other segments, and one of others."""

from __future__ import annotations

from pathlib import Path

import pytest

from pcaps.msn_pairs import CASES, LAN, PORTS, RECORDED, SYNTHETIC, Case, differences
from tests.replay.played import SHARED
from tests.replay.protocol_pairs import ProtocolPairs

PAIRS = ProtocolPairs("msn", PORTS, LAN)
CUTS = [
    *(("coalesced", 0), ("random", 1), ("random", 2), ("duplicates", 1), ("reorder", 1)),
    *(("random duplicates", 4), ("random reorder duplicates", 7)),
]
CUT = [(case, *cut) for case in CASES for cut in CUTS]
CUT += [(case, "bytewise", 0) for case in SYNTHETIC]
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def test_committed_captures_are_what_their_generator_makes() -> None:
    assert differences() == []


@each_case
def test_pair_as_it_is(case: Case, tmp_path: Path) -> None:
    PAIRS.as_it_is(case, tmp_path)


@pytest.mark.parametrize(
    ("case", "how", "seed"),
    CUT,
    ids=[f"{case.name}-{how}-{seed}".replace(" ", "-") for case, how, seed in CUT],
)
def test_pair_in_other_segments(case: Case, how: str, seed: int, tmp_path: Path) -> None:
    PAIRS.in_other_segments(case, how, seed, tmp_path)


@each_case
def test_inside_that_holds_nobody_of_the_capture(case: Case, tmp_path: Path) -> None:
    PAIRS.of_nobody_inside(case, tmp_path)


@pytest.mark.parametrize("case", [CASES[0], CASES[-3]], ids=lambda case: case.name)
def test_tshark_finds_nothing_new(case: Case, tmp_path: Path) -> None:
    PAIRS.judged(case, tmp_path)


def test_what_is_told_of_each_message(tmp_path: Path) -> None:
    case = next(case for case in CASES if case.name == "same-lan")
    result = PAIRS.play(case.before, tmp_path / "out.pcap")
    assert [
        (each.report.action, each.report.service, str(each.report.before), str(each.report.after))
        for each in result.messages
    ] == [
        ("rewritten", "msn-ftp", "10.0.0.5:6891", "203.0.113.1:6891"),
        ("mapped-back", "msn-ftp", "203.0.113.1:6891", "10.0.0.5:6891"),
        ("rewritten", "msn-file", "10.0.0.5:44397", "203.0.113.1:44397"),
        ("mapped-back", "msn-file", "203.0.113.1:44397", "10.0.0.5:44397"),
    ]


def test_which_pinholes_are_opened(tmp_path: Path) -> None:
    found = {
        case.name: [str(inside) for inside, _ in PAIRS.play(case.before, tmp_path / "out.pcap").pinholes]
        for case in RECORDED
    }
    assert {name: ends for name, ends in found.items() if ends} == {
        "libpurple-bob-alice.ra-lan": ["10.0.0.5:44397"],
        "libpurple-unrepaired-bob-alice.ra-lan": ["10.0.0.5:37897"],
    }


def test_a_picture_is_a_service_of_its_own(tmp_path: Path) -> None:
    case = next(case for case in RECORDED if "sharp-bob" in case.name)
    told = PAIRS.play(case.before, tmp_path / "out.pcap").messages
    assert [each.report.service for each in told] == ["msn-object", "msn-file"]


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is absent")
@pytest.mark.parametrize("name", ["msn-chat.pcap", "Oscar.pcap", "yahoo-filetransfer.pcap"])
@pytest.mark.parametrize("midstream", [False, True], ids=["from-the-syn", "midstream"])
def test_nothing_to_change_in_captures_of_others(name: str, midstream: bool, tmp_path: Path) -> None:
    inside = {"msn-chat.pcap": "192.168.0.114/32", "Oscar.pcap": "10.30.29.3/32"}.get(
        name, "192.168.129.131/32"
    )
    PAIRS.of_others(name, inside, (443, 1863, 1864, 5050), midstream, tmp_path)
