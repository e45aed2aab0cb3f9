"""`nfreaim record` as a command: what it refuses, and copies of captures. Nothing here needs root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nfreaim import cli
from pcaps.generate import CASES

CAPTURE = next(case for case in CASES if case.name == "same-lan-oos").before


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command keeps scapy out of the home directory by the environment, which is put back."""
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, os.environ.get(name, ""))


def test_copy_of_a_capture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "clean.pcapng"
    assert cli.main(["record", str(path), "--from", str(CAPTURE)]) == 0
    assert capsys.readouterr().out == f"{path}: 56 packets\n"
    assert cli.main(["explain", str(path), "--outside", "203.0.113.1"]) == 0
    assert "nfreaim would say 10.0.0.5:5190" in capsys.readouterr().out


def test_copy_that_does_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, source = tmp_path / "clean.pcapng", tmp_path / "big.pcap"
    raw = CAPTURE.read_bytes()
    source.write_bytes(raw[:24] + raw[24:] * 200)
    assert cli.main(["record", str(path), "--from", str(source), "--size", "1"]) == 0
    assert "the file is full" in capsys.readouterr().out
    assert path.stat().st_size <= 1_000_000


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (["--from", "/nowhere.pcap"], "/nowhere.pcap: No such file or directory; name readable pcap"),
        ([], "no interface to record; name them with --lan and --wan, or in the configuration"),
        (["--lan", "lan", "--protocol", "smoke"], "there is no protocol 'smoke'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    words: list[str], cause: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "nfreaim.toml"
    empty.write_text("")
    assert cli.main(["record", str(tmp_path / "out.pcapng"), "--config", str(empty), *words]) == 2
    assert cause in capsys.readouterr().err
    assert not (tmp_path / "out.pcapng").exists()


def test_file_that_exists_is_not_touched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "precious"
    path.write_text("precious")
    assert cli.main(["record", str(path), "--from", str(CAPTURE)]) == 2
    assert "exists; name another file, or remove it first" in capsys.readouterr().err
    assert path.read_text() == "precious"


@pytest.mark.parametrize("words", [["--seconds", "0"], ["--size", "x"], ["--port", "70000"]])
def test_numbers_that_are_none(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["record", "out.pcapng", *words])
    assert ended.value.code == 2
    assert "must be" in capsys.readouterr().err


def test_interface_that_does_not_exist(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["record", str(tmp_path / "out.pcapng"), "--lan", "nfrnone0", "--seconds", "1"]) == 2
    assert "there is no interface nfrnone0; name them with --lan and --wan" in capsys.readouterr().err
    assert not (tmp_path / "out.pcapng").exists()
