"""`nfreaim explain`: its stories and pictures, and the command."""

from __future__ import annotations

import argparse
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from nfreaim.explain.explain_command import add_arguments, main
from nfreaim.explain.ladder import Arrow, Column, Ladder, Note
from nfreaim.explain.ladder_svg import picture
from nfreaim.explain.ladder_text import drawn
from nfreaim.explain.page import page
from tests.replay.stories import GOLDEN, PCAPS, PICTURES, TEXTS, Golden
from tests.replay.told import lines, story

SHARED = Path("/work/shared/pcaps")
ALICE_BOB = PCAPS / "oscar" / "libpurple-send-bob-alice.in.pcap"


def command(*arguments: str | Path) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return main(parser.parse_args([str(argument) for argument in arguments]))


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden.name)
def test_story_and_picture_are_those_that_were_looked_at(golden: Golden) -> None:
    text, drawing = golden.told()
    remedy = "if it is meant to differ: python -m tests.replay.stories, and look at the pictures"
    assert text == golden.text.read_text(), remedy
    assert drawing == golden.picture.read_text(), remedy


def test_no_golden_file_is_left_over() -> None:
    assert {path.stem for path in TEXTS.iterdir()} == {golden.name for golden in GOLDEN}
    assert {path.stem for path in PICTURES.glob("*.svg")} == {golden.name for golden in GOLDEN}


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden.name)
@pytest.mark.parametrize("width", [60, 79, 140])
def test_no_line_is_longer_than_the_terminal(golden: Golden, width: int) -> None:
    told = story(*(PCAPS / name for name in golden.captures), outside=golden.outside)
    assert max(len(line) for ladder in told.ladders for line in drawn(ladder, width)) <= width


@pytest.mark.skipif(not SHARED.is_dir(), reason="the captures of third parties are not on this machine")
def test_captures_of_third_parties() -> None:
    told = story(SHARED / "evidence01.pcap", more=("oscar:5190,443",))
    assert [ladder.good for ladder in told.ladders] == [True]
    assert "12264 came back" in told.ladders[0].verdict[0]
    told = story(SHARED / "irc-dcc-send.pcapng", inside="10.0.0.7/32", outside="203.0.113.1")
    assert [ladder.good for ladder in told.ladders] == [True, True]
    assert "nfreaim would say 203.0.113.1:59130" in told.ladders[0].rows[1].text
    assert not story(SHARED / "yahoo-filetransfer.pcap").ladders


def test_names_are_shown_on_request_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(ALICE_BOB) == 0
    assert "alice1" not in capsys.readouterr().out
    assert command(ALICE_BOB, "--names") == 0
    assert "10.0.0.5 (alice1)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("capture", "name", "party"),
    [
        ("oscar/libpurple-send-alice-bob.in.pcap", "alice1", "send-file to bob1: listens"),
        ("oscar/libpurple-send-bob-alice.in.pcap", "alice1", "send-file from bob1: a peer listens"),
        ("irc/weechat-alice-bob.ra-lan.in.pcap", "alice", "dcc-send to bob: listens"),
        ("irc/same-lan.in.pcap", "alice", "dcc-send to amy: listens"),
        ("msn/libpurple-bob-alice.ra-lan.in.pcap", "alice1@lab.test", "msn-file to bob1@lab.test: listens"),
        ("msn/libpurple-alice-bob.ra-lan.in.pcap", "alice1@lab.test", "msn-file from bob1@lab.test: a peer"),
        (
            "xmpp/s5b-alice-carol.ra-lan.in.pcap",
            "alice@example.test/pc",
            "xmpp-file to carol@example.test/pc",
        ),
        ("yahoo/offers.in.pcap", "alice1", "yahoo-file to bob1: listens"),
    ],
)
def test_names_of_each_protocol(capture: str, name: str, party: str) -> None:
    ladder = story(PCAPS / capture, names=True).ladders[0]
    assert f"10.0.0.5 ({name})" in ladder.title
    assert any(row.text.startswith(party) for row in ladder.rows), ladder.rows
    plain = story(PCAPS / capture).ladders[0]
    assert party.split()[2].strip(":") not in "".join(row.text for row in plain.rows)


def test_picture_and_page_are_written_and_hold_nothing_from_elsewhere(tmp_path: Path) -> None:
    svg, html = tmp_path / "out.svg", tmp_path / "out.html"
    assert command(ALICE_BOB, "--svg", svg, "--html", html, "--width", "100") == 0
    root = ET.fromstring(svg.read_text())
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    text = html.read_text()
    assert "The peers have met" in text
    for word in ("src=", "href=", "<script", "@import", "url("):
        assert word not in svg.read_text() + text


def test_what_comes_from_a_capture_is_escaped() -> None:
    evil = '<script>alert("x")</script>&'
    ladder = Ladder(evil, [Column(evil, evil), Column("b")], [Arrow(0, 1, evil), Note(1, evil)], [evil])
    drawing, text = picture([ladder]), page(evil, [evil], [ladder])
    ET.fromstring(drawing)
    assert "<script" not in drawing + text


def test_errors_name_cause_and_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nothing, text = tmp_path / "nothing.pcap", tmp_path / "text.pcap"
    text.write_text("no capture")
    wrong = {
        (nothing,): "No such file",
        (text,): "neither pcap nor pcapng",
        (ALICE_BOB, "--inside", "here"): "write a network like 192.168.1.0/24",
        (ALICE_BOB, "--outside", "there"): "write one like 203.0.113.1",
        (ALICE_BOB, "--port", "x"): "write a number from 1 to 65535",
        (ALICE_BOB, "--protocol", "smoke"): "there is no protocol",
        (ALICE_BOB, "--svg", tmp_path / "no" / "such.svg"): "name a place that can be written",
    }
    for arguments, cause in wrong.items():
        assert command(*arguments) == 2
        out, err = capsys.readouterr()
        assert cause in err, err
        assert err.startswith("nfreaim explain: ")
        assert not out


def test_where_nothing_is_announced_the_ports_that_were_read_are_named() -> None:
    told = story(PCAPS / "sip" / "kernel-helper.ra-lan.pcap")
    assert not told.ladders
    assert "Name other ports with --protocol NAME:PORT." in lines(told)[-1]
