"""`nfreaim replay` as a command: what it prints, where it writes, and how it refuses."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

from nfreaim.replay.command import add_arguments, main
from pcaps.generate import CASES

CASE = next(case for case in CASES if case.name == "same-lan-oos")
NETWORKS = ["--inside", CASE.inside, "--outside", CASE.outside]


def command(*arguments: str | Path) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return main(parser.parse_args([str(argument) for argument in arguments]))


def test_json_is_one_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(CASE.before, "-o", tmp_path / "out.pcap", *NETWORKS, "--json") == 0
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert list(told) == ["packets", "changed", "flows", "messages", "pinholes", "malformed"]
    assert set(told["messages"][0]) == set(
        "frame protocol direction service stage cookie before after action reason".split()
    )
    assert told["changed"] == 2
    assert told["pinholes"] == [{"inside": "10.0.0.5:5190", "outside": "203.0.113.1:5190"}]
    assert err == ""
    assert (tmp_path / "out.pcap").read_bytes() == CASE.after.read_bytes()


def test_text_has_a_line_for_each_message_and_pinhole(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(CASE.before, *NETWORKS) == 0
    assert capsys.readouterr().out.splitlines() == [
        "frame 35: out send-file stage 1 10.0.0.5:5190 -> 203.0.113.1:5190 rewritten: own address",
        "frame 41: in send-file stage 1 203.0.113.1:5190 -> 10.0.0.5:5190"
        " mapped-back: pinhole of this router",
        "pinhole 203.0.113.1:5190 -> 10.0.0.5:5190",
        "56 packets, 2 changed; 2 flows, 0 malformed",
    ]


def test_capture_written_over_itself(tmp_path: Path) -> None:
    path = tmp_path / "both.pcap"
    path.write_bytes(CASE.before.read_bytes())
    assert command(path, "-o", path, *NETWORKS) == 0
    assert path.read_bytes() == CASE.after.read_bytes()


def test_ports_that_are_named_replace_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(CASE.before, *NETWORKS, "--port", "443", "--port", "9898") == 0
    assert capsys.readouterr().out == "56 packets, 0 changed; 0 flows, 0 malformed\n"
    assert command(CASE.before, *NETWORKS, "--port", "443", "--port", "5190", "--json") == 0
    assert json.loads(capsys.readouterr().out)["changed"] == 2


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ("--protocol oscar", 2),
        ("--protocol oscar:443,5190", 2),
        ("--protocol oscar:443", 0),
        ("--protocol irc:5190", 0),
        ("--protocol irc --protocol oscar", 2),
        ("--protocol irc --port 5190", 2),
    ],
)
def test_protocols_that_are_named_replace_the_default(
    options: str, changed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(CASE.before, *NETWORKS, *options.split(), "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["changed"] == changed
    assert {message["protocol"] for message in told["messages"]} == ({"oscar"} if changed else set())


def test_network_may_be_written_as_a_host_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(CASE.before, "--inside", "10.0.0.1/24", "--outside", CASE.outside) == 0
    assert "2 changed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["absent.pcap", *NETWORKS], ["absent.pcap", "No such file", "name a"]),
        ([Path(__file__), *NETWORKS], ["test_command.py", "neither pcap nor pcapng", "name a"]),
        ([".", *NETWORKS], ["directory", "name a"]),
        ([CASE.before, "-o", "no/such/folder/out.pcap", *NETWORKS], ["no/such/folder", "writable"]),
        ([CASE.before, "--inside", "10.0.0.0/33", "--outside", "203.0.113.1"], ["10.0.0.0/33", "write one"]),
        ([CASE.before, "--inside", "fd00::/8", "--outside", "203.0.113.1"], ["fd00::/8", "IPv4"]),
        ([CASE.before, "--inside", "10.0.0.0/24", "--outside", "router"], ["--outside router", "write one"]),
        ([CASE.before, *NETWORKS, "--port", "70000"], ["--port 70000", "65535"]),
        ([CASE.before, *NETWORKS, "--port", "aim"], ["--port aim", "65535"]),
        ([CASE.before, *NETWORKS, "--protocol", "aim"], ["no protocol 'aim'", "known are oscar"]),
        ([CASE.before, *NETWORKS, "--protocol", "oscar:0"], ["'0' is no port", "65535"]),
        ([CASE.before, *NETWORKS, "--protocol", "oscar", "--port", "1"], ["older spelling", "--port"]),
    ],
)
def test_bad_input_is_one_line_with_cause_and_remedy(
    arguments: list[str | Path], named: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    for text in named:
        assert text in err


def test_capture_cut_short_is_replayed_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "cut.pcap"
    path.write_bytes(CASE.before.read_bytes()[:-9])
    assert command(path, *NETWORKS) == 0
    out, err = capsys.readouterr()
    assert "55 packets, 2 changed" in out
    assert err.count("\n") == 1


def test_nothing_that_only_root_can_use_is_imported() -> None:
    code = (
        "import sys, nfreaim.replay.command\n"
        "sys.exit(', '.join({'netfilterqueue', 'iptc', 'pyroute2'} & sys.modules.keys()) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
