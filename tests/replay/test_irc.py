"""IRC's captures through the engine: the pairs of pcaps/irc, in other segments, and those of others."""

from __future__ import annotations

from pathlib import Path

import pytest

from nfreaim.capture import Capture
from pcaps.irc_pairs import CASES, KERNELS, LAN, Case, differences
from tests.replay.played import SHARED
from tests.replay.protocol_pairs import ProtocolPairs
from tests.tcp.captures import read_frames, tcp_in

PAIRS = ProtocolPairs("irc", (6667,), LAN)
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
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is absent")


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


@each_case
def test_tshark_finds_nothing_new(case: Case, tmp_path: Path) -> None:
    PAIRS.judged(case, tmp_path)


def test_the_kernel_s_own_helper_says_the_same(tmp_path: Path) -> None:
    """Behind the router: but for the client's address the same bytes, with the same numbers."""
    case = next(case for case in CASES if case.name == "weechat-alice-bob.ra-lan")
    PAIRS.play(case.before, tmp_path / "out.pcap")

    def said(path: Path) -> list[tuple[int, int, bytes]]:
        segments = [segment for _, frame in read_frames(path) if (segment := tcp_in(frame))]
        return [(each.seq, each.ack, each.payload) for each in segments if 6667 in each.direction]

    assert said(tmp_path / "out.pcap") == said(KERNELS)


def test_what_is_told_of_each_message(tmp_path: Path) -> None:
    case = next(case for case in CASES if case.name == "same-lan")
    result = PAIRS.play(case.before, tmp_path / "out.pcap")
    assert [
        (
            message.report.direction,
            message.report.action,
            str(message.report.before),
            str(message.report.after),
        )
        for message in result.messages
    ] == [
        ("out", "rewritten", "10.0.0.5:5500", "203.0.113.1:5500"),
        ("in", "mapped-back", "203.0.113.1:5500", "10.0.0.5:5500"),
        ("out", "rewritten", "10.0.0.6:5500", "203.0.113.1:40000"),
        ("in", "mapped-back", "203.0.113.1:40000", "10.0.0.6:5500"),
        ("out", "rewritten", "10.0.0.6:5500", "203.0.113.1:40000"),
        ("in", "mapped-back", "203.0.113.1:40000", "10.0.0.6:5500"),
        ("out", "rewritten", "10.0.0.6:5500", "203.0.113.1:40000"),
        ("in", "mapped-back", "203.0.113.1:40000", "10.0.0.6:5500"),
    ]
    assert {message.as_dict()["protocol"] for message in result.messages} == {"irc"}


# --- captures of others, which may not be copied here -------------------------------------------------------


@shared
def test_offers_of_a_real_client_to_a_real_server(tmp_path: Path) -> None:
    source, target = SHARED / "irc-dcc-send.pcapng", tmp_path / "out"
    result = PAIRS.play(source, target, "10.0.0.7/32")
    assert [(message.frame, message.report.service) for message in result.messages] == [
        (58, "dcc-send"),
        (1153, "dcc-chat"),
    ]
    assert [str(inside) for inside, _ in result.pinholes] == ["10.0.0.7:59130", "10.0.0.7:59214"]
    grown = {58: 0, 1153: 1}
    shift = 0
    for before, after in zip(Capture.load(source), Capture.load(target), strict=True):
        one, two = tcp_in(before.data), tcp_in(after.data)
        if one is None or two is None:
            assert before.data == after.data
            continue
        if one.direction[::2] == ("10.0.0.7", "10.0.0.22") and one.direction[3] == 6667:
            assert (two.seq - one.seq) % 2**32 == shift
        if before.number in grown:
            assert two.payload == one.payload.replace(b"167772167", b"3405803777")
            assert shift == grown[before.number]
            shift += 1
        else:
            assert one.payload == two.payload
        if 6667 not in one.direction:
            assert before.data == after.data


FOREIGN = [
    ("irc-dcc-first-command.pcap", "10.0.0.1/32"),  # DCC as the first command of all: nobody's client
    ("irc-dcc-send-malformed-host.pcap", "192.168.1.200/32"),
    ("irc-dcc-send-malformed-port.pcap", "192.168.1.200/32"),
    ("irc-dcc-state-growth.pcapng", "192.0.2.10/32"),
    ("Oscar.pcap", "10.30.29.3/32"),
    ("msn-chat.pcap", "192.168.0.114/32"),
    ("yahoo-filetransfer.pcap", "192.168.129.131/32"),
]


@shared
@pytest.mark.parametrize("midstream", [False, True], ids=["from-the-syn", "midstream"])
@pytest.mark.parametrize(("name", "inside"), FOREIGN)
def test_nothing_to_change(name: str, inside: str, midstream: bool, tmp_path: Path) -> None:
    PAIRS.of_others(name, inside, (443, 1863, 5050, 6667), midstream, tmp_path)
