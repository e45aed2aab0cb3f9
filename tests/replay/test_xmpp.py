"""XMPP's captures through the engine: the pairs of pcaps/xmpp, in other segments, and those of others."""

from __future__ import annotations

from ipaddress import IPv4Network
from pathlib import Path

import pytest

from nfreaim.capture import Capture
from nfreaim.replay.outcome import Replay
from nfreaim.replay.player import replay
from pcaps.xmpp_pairs import CASES, LAN, PORT, Case, differences
from tests.replay.played import SHARED
from tests.tcp.captures import Frames, read_frames, streams, write_pcap
from tests.tcp.recut import recut
from tests.tcp.tshark import tshark_problems

OUTSIDE = "203.0.113.1"
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


def play(source: Path, target: Path, inside: str = LAN, outside: str = OUTSIDE) -> Replay:
    capture = Capture.load(source)
    result = replay(capture, IPv4Network(inside), outside, protocols={"xmpp": (PORT,)})
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
    [
        pytest.param(case, *cut, id=f"{case.name}-{cut[0].replace(' ', '-')}")
        for case in CASES
        for cut in CUTS
        # 35,000 packets, that show nothing which those of the other recording do not
        if (case.name, cut[0]) != ("s5b-alice-amy.ra-lan", "bytewise")
    ],
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


@pytest.mark.parametrize("case", [case for case in CASES if case.name in JUDGED], ids=lambda case: case.name)
def test_tshark_finds_nothing_new(case: Case, tmp_path: Path) -> None:
    target = tmp_path / "out.pcap"
    play(case.before, target)
    before, after = tshark_problems(case.before, ()), tshark_problems(target, ())
    assert after.checksums == []
    assert after == before


def test_what_is_told_of_each_message(tmp_path: Path) -> None:
    case = next(case for case in CASES if case.name == "same-lan")
    result = play(case.before, tmp_path / "out.pcap")
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
    result = play(case.before, tmp_path / "out.pcap")
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
    source = SHARED / name
    capture = Capture.load(source)
    ports = (443, 1863, 5050, 5190, 6667)
    result = replay(capture, IPv4Network(inside), OUTSIDE, midstream=midstream, protocols={"xmpp": ports})
    capture.save(tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == source.read_bytes()
    assert (result.changed, result.pinholes) == (0, [])
