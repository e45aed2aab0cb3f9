"""Every sub-command ends with a status of the one table, and the README has the same table."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from nfreaim import cli
from nfreaim.errors import AbsentError, BackendError, ConfigError
from nfreaim.exit_status import MEANING, Exit, table
from nfreaim.host.rules import script

REPO = Path(__file__).resolve().parents[2]
WITHOUT_CONFIGURATION = {
    *("worker", "conntrack-helper", "nft-table", "rules remove", "rules show", "replay", "explain"),
}
NEEDED = {"record": ("FILE.pcapng",), "report": ("--html", "FILE")}
"""What a sub-command needs besides a configuration file in order to begin."""


def commands(parser: argparse.ArgumentParser, named: str = "") -> Iterator[str]:
    below = [it for it in parser._actions if isinstance(it, argparse._SubParsersAction)]
    if not below:
        yield named.strip()
    for action in below:
        for name, one in action.choices.items():
            yield from commands(one, f"{named} {name}")


EVERY = tuple(commands(cli.command_line()))


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """`record` keeps scapy out of the home directory by the environment, which is put back."""
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, os.environ.get(name, ""))


def test_the_numbers_are_those_that_scripts_know() -> None:
    assert [*map(int, Exit)] == [0, 1, 2, 3] == [*map(int, MEANING)]
    assert {"run", "reload", "rules install", "check", "status", "replay", "top", "record"} <= {*EVERY}


@pytest.mark.parametrize("command", EVERY)
def test_a_wrong_option_is_misuse(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([*command.split(), "--no-such-option"])
    assert caught.value.code == Exit.MISUSED


@pytest.mark.parametrize("command", EVERY)
def test_a_wrong_configuration_is_misuse_and_one_line(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "nfreaim.toml"
    path.write_text("hold_ms = 9999\n")
    try:
        status = cli.main([*command.split(), *NEEDED.get(command, ()), "--config", str(path)])
    except SystemExit:
        assert command in WITHOUT_CONFIGURATION, "a command that reads the configuration takes --config"
        return
    said = capsys.readouterr()
    assert (status, said.out, said.err.count("\n")) == (Exit.MISUSED, "", 1)
    assert str(path) in said.err


@pytest.mark.parametrize(
    ("error", "status"),
    [(ConfigError("x"), 2), (BackendError("x"), 1), (AbsentError("x"), 3)],
)
def test_an_error_ends_a_command_with_its_status(
    error: ConfigError | BackendError,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(force: bool) -> None:
        raise error

    monkeypatch.setattr(script, "remove", fail)
    assert cli.main(["rules", "remove"]) == status
    assert capsys.readouterr().err == "nfreaim: x\n"


@pytest.mark.parametrize(
    "words", [("status",), ("status", "--json"), ("metrics",), ("report", "--html", "FILE"), ("history",)]
)
def test_what_is_not_there_has_a_status_of_its_own(
    words: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if words == ("metrics",):
        pytest.importorskip("prometheus_client")
    path = tmp_path / "nfreaim.toml"
    path.write_text(f'status_socket = "{tmp_path}/status"\nhistory_dir = "{tmp_path}"\n')
    monkeypatch.chdir(tmp_path)
    assert cli.main([*words, "--config", str(path)]) == Exit.ABSENT


@pytest.mark.parametrize(
    "words",
    [
        ("top",),  # without a terminal
        ("history", "--day", "someday"),
        ("record", "FILE.pcapng"),  # no interface is named
        ("record", "FILE.pcapng", "--lan", "a b"),
    ],
)
def test_commands_that_show_something_are_misused_alike(
    words: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if words == ("top",):
        pytest.importorskip("rich")
    path = tmp_path / "nfreaim.toml"
    path.write_text("")
    monkeypatch.chdir(tmp_path)
    try:
        status = cli.main([*words, "--config", str(path)])
    except SystemExit as left:
        status = int(left.code or 0)
    assert status == Exit.MISUSED
    assert list(tmp_path.iterdir()) == [path]


def test_without_a_daemon_reload_says_that_there_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "nfreaim.toml"
    path.write_text(f'status_socket = "{tmp_path}/status"\n')
    assert cli.main(["reload", "--config", str(path)]) == Exit.ABSENT
    said = capsys.readouterr().err
    assert said.startswith(f"nfreaim: no daemon listens at {tmp_path}/status; start it: ")


def test_help_and_readme_have_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--help"])
    assert caught.value.code == Exit.FINE
    assert table() in capsys.readouterr().out
    assert table() in (REPO / "README.md").read_text()
