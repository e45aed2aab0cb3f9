"""The command line: exit statuses, and one clear line for whatever is wrong. Nothing here needs root."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nfreaim import __version__, cli
from nfreaim.config import Config
from nfreaim.errors import BackendError
from nfreaim.host.check import doctor
from nfreaim.host.rules import script
from tests.reachable import REPO, by_anybody

NOBODY = 65534


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """The configurations `check` was called with; it is the command with all settings and no effect."""
    seen: list[Config] = []

    def see(lan: Any, wan: Any, ports: Any, queue: Any, workers: Any) -> int:
        seen.append(Config(lan, wan, ports, queue, workers))
        return 0

    monkeypatch.setattr(doctor, "main", see)
    return seen


def as_nobody(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the program without any privilege."""
    root = os.geteuid() == 0
    user = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups") if root else ()

    def run(*python: str) -> subprocess.CompletedProcess[str]:
        command = by_anybody(*user, sys.executable, *python) if root else [sys.executable, *python]
        return subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=60)

    if run("-c", "import nfreaim").returncode:
        pytest.skip("this checkout or its Python cannot be read by an unprivileged user")
    return run("-m", "nfreaim", *words)


def test_command_line_wins_over_the_file_and_the_file_over_the_defaults(
    served: list[Config], tmp_path: Path
) -> None:
    path = tmp_path / "f.toml"
    path.write_text('lan = ["a", "b"]\nwan = ["c"]\nports = [443]\nqueue = 7\nworkers = 3\n')
    of_file = ["check", "--config", str(path)]
    assert cli.main(of_file) == 0
    assert (
        cli.main([*of_file, "--lan", "x", "--port", "1", "--port", "2", "--queue", "0", "--workers", "1"])
        == 0
    )
    assert cli.main([*of_file, "--wan", "y", "--wan", "z"]) == 0
    assert served == [
        Config(("a", "b"), ("c",), (443,), 7, 3),
        Config(("x",), ("c",), (1, 2), 0, 1),
        Config(("a", "b"), ("y", "z"), (443,), 7, 3),
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "required: COMMAND"),
        (["serve"], "invalid choice: 'serve'"),
        (["rules"], "required: ACTION"),
        (["check", "--port", "0"], "argument --port: '0': must be a whole number from 1 to 65535"),
        (["check", "--port", "65536"], "must be a whole number from 1 to 65535"),
        (["check", "--port", "http"], "must be a whole number from 1 to 65535"),
        (["check", "--queue", "-1"], "argument --queue: '-1': must be a whole number from 0 to 65535"),
        (["check", "--queue", "\u0661"], "must be a whole number"),
        (["run", "--log-level", "loud"], "invalid choice: 'loud'"),
        (["replay"], "required: IN.pcap"),
    ],
)
def test_wrong_command_line_is_status_2(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


def test_wrong_configuration_is_status_2_and_one_line(
    served: list[Config], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "f.toml"
    path.write_text("hold_ms = 9999\n")
    for words in (
        ["check", "--config", str(path)],
        ["check", "--config", str(tmp_path / "none.toml")],
        ["check", *(word for port in range(16) for word in ("--port", str(5190 + port)))],
    ):
        assert cli.main(words) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith("nfreaim: ")
        assert said.err.count("\n") == 1
    assert served == []


def test_refusal_of_the_machine_is_status_1_and_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(force: bool) -> None:
        raise BackendError("set s: refused; remedy: x")

    monkeypatch.setattr(script, "remove", refuse)
    assert cli.main(["rules", "remove"]) == 1
    assert capsys.readouterr().err == "nfreaim: set s: refused; remedy: x\n"


@pytest.mark.parametrize(
    "words",
    [["run", "--lan", "lo", "--wan", "lo"], ["run"], ["status"], ["rules", "show"], ["rules", "remove"]],
)
def test_plain_user_is_told_in_one_line_what_is_missing(words: list[str]) -> None:
    result = as_nobody(*words)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("nfreaim")
    assert result.stderr.count("\n") == 1, result.stderr
    assert "root" in result.stderr


def test_worker_without_its_daemon_says_who_starts_it() -> None:
    words = ("worker", "30", "31", "1", "--log-level", "info")  # handles that nobody opened
    command = [sys.executable, "-m", "nfreaim", *words]
    result = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1, result.stderr
    assert ("nfreaim run --workers" if os.geteuid() == 0 else "root") in result.stderr


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"nfreaim {__version__}\n"
