"""The command line: exit statuses, and one clear line for whatever is wrong. Nothing here needs root."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from nfreaim import __version__, cli
from nfreaim.config import Config
from nfreaim.errors import BackendError
from nfreaim.host.check import doctor_command
from nfreaim.host.rules import script
from tests.reachable import REPO, by_anybody

NOBODY = 65534


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """The configurations `check` was called with; it is the command with all settings and no effect."""
    seen: list[Config] = []

    def see(config: Config, **_: bool) -> int:
        named = (config.lan, config.wan, config.ports, config.queue, config.workers)
        seen.append(Config(*named, notices=config.notices))
        return 0

    monkeypatch.setattr(doctor_command, "main", see)
    return seen


def test_check_does_what_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[set[str]] = []

    def see(_: Config, **flags: bool) -> int:
        asked.append({name for name, given in flags.items() if given and name != "unnamed"})
        return 1

    monkeypatch.setattr(doctor_command, "main", see)
    for words in ((), ("--json",), ("--fix",), ("--self-test",)):
        assert cli.main(["check", *words]) == 1
    assert asked == [set(), {"as_json"}, {"fix"}, {"self_test"}]


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
    assert cli.main([*of_file, "--wan", "y,z"]) == 0
    assert served == [
        Config(("a", "b"), ("c",), {"oscar": (443,)}, 7, 3),
        Config(("x",), ("c",), {"oscar": (1, 2)}, 0, 1),
        Config(("a", "b"), ("y", "z"), {"oscar": (443,)}, 7, 3),
        Config(("a", "b"), ("y", "z"), {"oscar": (443,)}, 7, 3),
    ]


@pytest.mark.parametrize(
    ("words", "ports"),
    [
        ("", {"irc": (6697,)}),
        ("--protocol oscar", {"oscar": (443,)}),
        ("--protocol oscar:1,2", {"oscar": (1, 2)}),
        ("--protocol irc --protocol oscar:1", {"irc": (6697,), "oscar": (1,)}),
        ("--port 1 --port 2", {"irc": (6697,), "oscar": (1, 2)}),
        ("--protocol irc:7 --port 1", {"irc": (7,), "oscar": (1,)}),
    ],
)
def test_protocols_of_the_command_line_replace_those_of_the_file_and_keep_their_sections(
    served: list[Config], tmp_path: Path, words: str, ports: dict[str, tuple[int, ...]]
) -> None:
    path = tmp_path / "f.toml"
    path.write_text('protocols = ["irc"]\n[irc]\nports = [6697]\n[oscar]\nports = [443]\n')
    assert cli.main(["check", "--config", str(path), *words.split()]) == 0
    assert [config.ports for config in served] == [ports]


def test_older_spellings_of_the_file_are_named_with_those_of_today(
    served: list[Config], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "install", lambda settings: None)
    path = tmp_path / "f.toml"
    path.write_text('lan = ["a"]\nwan = ["b"]\nports = [443]\nicq_direct = "off"\n')
    said = [
        f"{path}: {key} is an older spelling; write {key} in the section [oscar]"
        for key in ("ports", "icq_direct")
    ]
    assert cli.main(["check", "--config", str(path)]) == 0
    assert served[-1].notices == tuple(said)
    assert cli.main(["rules", "install", "--config", str(path)]) == 0
    assert capsys.readouterr().err.splitlines() == [f"nfreaim: {line}" for line in said]


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        ("", ["oscar:5190", "irc:6667", "msn:1863,1864", "xmpp:5222", "yahoo:5050"]),
        ("--default", ["oscar:5190"]),
        ("irc", ["irc:6667"]),
        ("irc oscar:443,5190", ["irc:6667", "oscar:443,5190"]),
    ],
)
def test_protocols_are_listed_as_the_rules_want_them(
    words: str, lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["protocols", *words.split()]) == 0
    assert capsys.readouterr().out.splitlines() == lines


def test_protocols_are_listed_with_the_ports_of_the_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "nfreaim.toml"
    path.write_text('protocols = ["irc"]\n[irc]\nports = [6667, 6697]\n[oscar]\nports = [443]\n')
    for words, lines in (
        ([], ["oscar:443", "irc:6667,6697", "msn:1863,1864", "xmpp:5222", "yahoo:5050"]),
        (["--default"], ["irc:6667,6697"]),
        (["oscar"], ["oscar:443"]),
    ):
        assert cli.main(["protocols", "--config", str(path), *words]) == 0
        assert capsys.readouterr().out.splitlines() == lines


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("protocols aim", "there is no protocol 'aim'; known are oscar, irc, msn, xmpp, yahoo"),
        ("check --protocol aim", "there is no protocol 'aim'"),
        ("check --protocol oscar:x", "'x' is no port"),
        ("check --protocol oscar --port 443", "--port is the older spelling of --protocol oscar:PORT"),
        ("check --protocol oscar --protocol irc:5190", "port 5190 is given to oscar and to irc"),
        ("rules install --protocol oscar:", "'' is no port"),
        ("run --protocol oscar --protocol oscar:1", "protocol oscar is given twice"),
        (
            "rules install --wan b",
            "no lan interface is known: write lan in /etc/nfreaim/nfreaim.toml, or --lan IF",
        ),
        ("rules install --lan a", "no wan interface is known"),
        (
            "check --lan a,br-lan --wan b,br+",
            "an interface that br-lan and br+ mean cannot be --lan and --wan",
        ),
        ("run --lan a --wan a", "a cannot be --lan and --wan at once"),
    ],
)
def test_protocols_that_make_no_sense_are_status_2_and_one_line(
    words: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words.split()) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("nfreaim: ")
    assert said in err


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
        (["check", "--lan", "a,,b"], "argument --lan: 'a,,b': must be names of network interfaces"),
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
    [["run", "--lan", "lo", "--wan", "w0"], ["run"], ["status"], ["rules", "show"], ["rules", "remove"]],
)
def test_plain_user_is_told_in_one_line_what_is_missing(words: list[str]) -> None:
    result = as_nobody(*words)
    assert result.returncode == (3 if words == ["status"] else 1)
    assert result.stdout == ""
    assert result.stderr.startswith("nfreaim")
    assert result.stderr.count("\n") == 1, result.stderr
    assert "root" in result.stderr


def test_worker_without_its_daemon_says_who_starts_it() -> None:
    words = (
        "worker",
        "30",
        "31",
        "1",
        "--log-level",
        "info",
        "--log-format",
        "text",
    )  # handles that nobody opened
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


def test_recording_without_root_names_the_remedy_and_leaves_no_file() -> None:
    path = Path(tempfile.gettempdir()) / f"nfreaim-record-{os.getpid()}.pcapng"
    told = as_nobody("record", str(path), "--lan", "lo", "--seconds", "1")
    assert told.returncode == 1, told.stderr
    assert "packets of lo cannot be seen" in told.stderr
    assert "run it as root" in told.stderr
    assert not path.exists()
