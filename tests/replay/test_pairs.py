"""Every pair of pcaps/: as it is, in other segments, without NAT, and before an independent judge."""

import json
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from nfreaim.capture import Capture
from pcaps.generate import CASES, Case, differences
from tests.replay.played import play, play_frames
from tests.tcp.captures import read_frames, streams
from tests.tcp.recut import recut
from tests.tcp.tshark import tshark_problems

GOLDEN = Path(__file__).parent / "golden"
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
# Ways to cut a stream anew, with seeds; several at once are chained.
CUTS = [
    ("coalesced", 0),
    ("bytewise", 0),
    ("random", 1),
    ("random", 2),
    ("random", 3),
    ("duplicates", 1),
    ("reorder", 1),
    ("reorder", 2),
    ("random duplicates", 4),
    ("random reorder", 5),
    ("random reorder", 6),
    ("random reorder duplicates", 7),
    ("bytewise duplicates", 8),
]


def test_committed_captures_are_what_their_generator_makes() -> None:
    assert differences() == []


@each_case
def test_pair_as_it_is(case: Case, tmp_path: Path) -> None:
    target = tmp_path / "out.pcap"
    result = play(case.before, target, case.inside, case.outside)
    assert target.read_bytes() == case.after.read_bytes()
    changed = zip(Capture.load(case.before), Capture.load(case.after), strict=True)
    assert result.changed == sum(before.data != after.data for before, after in changed)
    assert result.malformed == 0


@pytest.mark.parametrize(
    ("case", "how", "seed"),
    [
        pytest.param(case, how, seed, id=f"{case.name}-{how.replace(' ', '-')}-{seed}")
        for case in CASES
        for how, seed in CUTS
        if not (case.ordered and "reorder" in how)
    ],
)
def test_pair_in_other_segments(case: Case, how: str, seed: int, tmp_path: Path) -> None:
    frames = read_frames(case.before)
    for step in how.split():
        frames = recut(frames, step, seed)
    _, target = play_frames(frames, tmp_path, case)
    left = read_frames(target)
    assert len(left) == len(frames)
    assert streams(left, strict=True) == streams(read_frames(case.after))


@each_case
def test_inside_that_holds_nobody_of_the_capture(case: Case, tmp_path: Path) -> None:
    target = tmp_path / "out.pcap"
    result = play(case.before, target, "172.16.0.0/12", case.outside)
    assert target.read_bytes() == case.before.read_bytes()
    assert (result.changed, result.flows, result.messages, result.pinholes) == (0, 0, [], [])


@each_case
def test_no_translation_on_the_way(case: Case, tmp_path: Path) -> None:
    """The router's outside address is the client's own: every rewrite comes out as what it was."""
    ends = {IPv4Address(end) for key in streams(read_frames(case.before)) for end in (key[0], key[2])}
    hosts = [str(end) for end in ends if end in IPv4Network(case.inside)]
    assert hosts
    for host in hosts:
        target = tmp_path / "out.pcap"
        result = play(case.before, target, f"{host}/32", host)
        assert target.read_bytes() == case.before.read_bytes()
        assert result.flows > 0
        assert result.changed == 0


@each_case
def test_tshark_finds_nothing_new(case: Case, tmp_path: Path) -> None:
    target = tmp_path / "out.pcap"
    play(case.before, target, case.inside, case.outside)
    before, after = tshark_problems(case.before), tshark_problems(target)
    assert (before.checksums, after.checksums) == ([], [])
    assert after == before
    assert after.malformed == []


@pytest.mark.parametrize("how", ["coalesced", "random", "duplicates", "random reorder"])
def test_tshark_finds_nothing_new_in_other_segments(how: str, tmp_path: Path) -> None:
    case = next(case for case in CASES if case.name == "libpurple-dim-alice-bob")
    frames = read_frames(case.before)
    for step in how.split():
        frames = recut(frames, step, 9)
    result, target = play_frames(frames, tmp_path, case)
    assert result.changed > 0
    before, after = tshark_problems(tmp_path / "in.pcap"), tshark_problems(target)
    assert after == before
    assert (after.malformed, after.checksums) == ([], [])


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.json")), ids=lambda path: path.stem)
def test_report_as_agreed(path: Path, tmp_path: Path) -> None:
    case = next(case for case in CASES if case.name == path.stem)
    result = play(case.before, tmp_path / "out.pcap", case.inside, case.outside)
    assert result.as_dict() == json.loads(path.read_text(encoding="ascii"))
