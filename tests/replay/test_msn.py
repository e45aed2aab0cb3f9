"""MSN's captures through the engine: the pairs of pcaps/msn, in other segments, and one of others."""

from __future__ import annotations

from ipaddress import IPv4Network
from pathlib import Path

import pytest

from nfreaim.capture import Capture
from nfreaim.replay.outcome import Replay
from nfreaim.replay.player import replay
from pcaps.msn_pairs import CASES, LAN, PORTS, RECORDED, SYNTHETIC, Case, differences
from tests.replay.played import SHARED
from tests.tcp.captures import Frames, read_frames, streams, write_pcap
from tests.tcp.recut import recut
from tests.tcp.tshark import tshark_problems

OUTSIDE = "203.0.113.1"
CUTS = [
    *(("coalesced", 0), ("random", 1), ("random", 2), ("duplicates", 1), ("reorder", 1)),
    *(("random duplicates", 4), ("random reorder duplicates", 7)),
]
CUT = [(case, *cut) for case in CASES for cut in CUTS]
CUT += [(case, "bytewise", 0) for case in SYNTHETIC]
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def play(source: Path, target: Path, inside: str = LAN, outside: str = OUTSIDE) -> Replay:
    capture = Capture.load(source)
    result = replay(capture, IPv4Network(inside), outside, protocols={"msn": PORTS})
    capture.save(target)
    return result


def play_frames(frames: Frames, folder: Path) -> tuple[Replay, Frames]:
    source, target = folder / "in.pcap", folder / "out.pcap"
    write_pcap(source, frames)
    result = play(source, target)
    return result, read_frames(target)


def test_committed_captures_are_what_their_generator_makes() -> None:
    assert differences() == []


@each_case
def test_pair_as_it_is(case: Case, tmp_path: Path) -> None:
    target = tmp_path / "out.pcap"
    result = play(case.before, target)
    assert target.read_bytes() == case.after.read_bytes()
    assert result.malformed == 0


@pytest.mark.parametrize(
    ("case", "how", "seed"),
    CUT,
    ids=[f"{case.name}-{how}-{seed}".replace(" ", "-") for case, how, seed in CUT],
)
def test_pair_in_other_segments(case: Case, how: str, seed: int, tmp_path: Path) -> None:
    frames = read_frames(case.before)
    for step in how.split():
        frames = recut(frames, step, seed)
    _, left = play_frames(frames, tmp_path)
    assert len(left) == len(frames)
    assert streams(left, strict=True) == streams(read_frames(case.after))


@each_case
def test_inside_that_holds_nobody_of_the_capture(case: Case, tmp_path: Path) -> None:
    target = tmp_path / "out.pcap"
    result = play(case.before, target, inside="172.16.0.0/12")
    assert target.read_bytes() == case.before.read_bytes()
    assert (result.changed, result.messages, result.pinholes) == (0, [], [])


@pytest.mark.parametrize("case", [CASES[0], CASES[-3]], ids=lambda case: case.name)
def test_tshark_finds_nothing_new(case: Case, tmp_path: Path) -> None:
    target = tmp_path / "out.pcap"
    play(case.before, target)
    before, after = tshark_problems(case.before, ()), tshark_problems(target, ())
    assert after.checksums == []
    assert after == before


def test_what_is_told_of_each_message(tmp_path: Path) -> None:
    case = next(case for case in CASES if case.name == "same-lan")
    result = play(case.before, tmp_path / "out.pcap")
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
        case.name: [str(inside) for inside, _ in play(case.before, tmp_path / "out.pcap").pinholes]
        for case in RECORDED
    }
    assert {name: ends for name, ends in found.items() if ends} == {
        "libpurple-bob-alice.ra-lan": ["10.0.0.5:44397"],
        "libpurple-unrepaired-bob-alice.ra-lan": ["10.0.0.5:37897"],
    }


def test_a_picture_is_a_service_of_its_own(tmp_path: Path) -> None:
    case = next(case for case in RECORDED if "sharp-bob" in case.name)
    told = play(case.before, tmp_path / "out.pcap").messages
    assert [each.report.service for each in told] == ["msn-object", "msn-file"]


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is absent")
@pytest.mark.parametrize("name", ["msn-chat.pcap", "Oscar.pcap", "yahoo-filetransfer.pcap"])
@pytest.mark.parametrize("midstream", [False, True], ids=["from-the-syn", "midstream"])
def test_nothing_to_change_in_captures_of_others(name: str, midstream: bool, tmp_path: Path) -> None:
    inside = {"msn-chat.pcap": "192.168.0.114/32", "Oscar.pcap": "10.30.29.3/32"}.get(
        name, "192.168.129.131/32"
    )
    source = SHARED / name
    capture = Capture.load(source)
    ports = (443, 1863, 1864, 5050)
    result = replay(capture, IPv4Network(inside), OUTSIDE, midstream=midstream, protocols={"msn": ports})
    capture.save(tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == source.read_bytes()
    assert (result.changed, result.pinholes) == (0, [])
