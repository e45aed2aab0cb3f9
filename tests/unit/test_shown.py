"""What an operator is shown of the status: aligned, coloured where it is seen, and with what is not known."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nfreaim import cli
from nfreaim.core.counters import Counters, meanings
from nfreaim.errors import BackendError
from nfreaim.helpers import HELPERS
from nfreaim.host.netfilter import queue_stats
from nfreaim.host.report import status
from nfreaim.show import status_text, tables
from nfreaim.show.terminal import Ink
from tests.unit.shown import answering, document, idle

REPO = Path(__file__).resolve().parents[2]


def plain(**changes: Any) -> list[str]:
    return list(status_text.text(document(**changes), Ink(coloured=False)))


def test_every_counter_has_a_meaning_and_nothing_else_has() -> None:
    assert list(meanings(HELPERS)) == list(Counters.of(HELPERS).as_dict())
    assert all(len(text) > 10 for text in meanings(HELPERS).values())


def test_columns_stand_below_their_headings() -> None:
    said = plain()
    at = next(index for index, line in enumerate(said) if line.startswith("pinholes (2)"))
    head, first, second = said[at + 1 : at + 4]
    for heading, one, other in (
        ("outside", "203.0.113.1:5200", "203.0.113.1:40000"),
        ("inside", "10.0.0.5:5200", "10.0.0.6:5200"),
        ("peer", "198.51.100.7", "awaits anybody"),
    ):
        assert head.index(heading) == first.index(one) == second.index(other)
    assert head.endswith("  packets")
    assert first.endswith("   12 s   3.0 MB       84")
    assert second.endswith("  while connected  unknown  unknown")
    assert len({len(line) for line in (head, first, second)}) == 1


def test_the_text_has_sessions_counters_with_meaning_and_queues() -> None:
    said = "\n".join(plain())
    assert said.startswith("nfreaim 0.1.0, running for 2 h 3 min\n")
    assert re.search(r"oscar +10\.0\.0\.5 +203\.0\.113\.9:5190 +read +2 h 1 min +2$", said, re.MULTILINE)
    assert re.search(r"proposals +2  messages that announced an address for a peer", said)
    assert "failed_flows" not in said
    assert re.search(r"^ +5190 +0 +309 +0 +0$", said, re.MULTILINE)
    assert "dropped 5 packets" not in said
    assert "nf_conntrack_acct" not in said
    assert "\x1b" not in said


def test_a_session_of_a_server_behind_the_router_names_its_client() -> None:
    one = document()["sessions"][0] | {
        "host": "10.0.0.9",
        "client": "198.51.100.7:99",
        "server": "10.0.0.9:5190",
    }
    assert tables.sessions(document(sessions=[one])).rows[0][1:3] == ("10.0.0.9", "198.51.100.7:99")


def test_a_forward_that_another_rule_has_first_is_not_called_as_configured() -> None:
    said = plain(forwards=["4000 -> 10.0.0.5", "4001 -> 10.0.0.6"], shadowed=["4001 -> 10.0.0.6"])
    first, second = (next(line for line in said if f"{port} -> " in line) for port in (4000, 4001))
    assert first.rstrip().endswith("10.0.0.5  as configured")
    assert second.endswith("10.0.0.6  another program's rules have a port of it, and come first")


def test_what_a_reload_left_undone_is_told() -> None:
    told = {"at": 7.0, "error": "", "restart": []}
    assert not [line for line in plain(reload=told) if "restart: " in line or "configuration" in line]
    waiting = told | {"restart": ["queue", "upstream"]}
    assert "changed, and in force only after a restart: queue, upstream" in plain(reload=waiting)
    wrong = told | {"error": "F: hold_ms = 9999: must be less"}
    assert "the configuration was not taken over: F: hold_ms = 9999: must be less" in plain(reload=wrong)


def test_a_daemon_that_waits_is_status_1_and_says_why_and_what_to_write(tmp_path: Path) -> None:
    path = tmp_path / "status"
    with answering(path, idle()):
        status, output, errors = run(tmp_path, "status")
    assert (status, errors) == (1, "")
    lines = output.splitlines()
    assert lines[0] == "nfreaim 0.1.0, running for 2 h 3 min, and waits for interfaces"
    assert "nobody is served: IPv4 forwarding is off" in lines
    assert lines[-2:] == ['    lan = ["br-lan"]', '    wan = ["eth0"]']
    assert not any("sessions" in line for line in lines)


def test_a_changed_set_up_is_told() -> None:
    changed = {"lan": ["a"], "wan": ["b"], "changed": "this router's set-up shows c"}
    assert "this router's set-up shows c" in plain(interfaces=changed)


def test_a_daemon_of_an_earlier_version_can_be_asked() -> None:
    told = document()
    del told["idle"], told["interfaces"]
    assert plain() == list(status_text.text(told, Ink(coloured=False)))


def test_losses_and_missing_counters_are_told() -> None:
    queue = {"number": 5190, "waiting": 0, "dropped_full": 2, "dropped_socket": 3, "seen": 309}
    said = "\n".join(plain(queues=[queue], accounting=False))
    assert "the kernel dropped 5 packets before they were read" in said
    assert "sysctl -w net.netfilter.nf_conntrack_acct=1" in said


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.9, "59 s"),
        (60, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (86399, "23 h 59 min"),
        (86400, "1 d 0 h"),
        (200000, "2 d 7 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert tables.duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (99_949, "99.9 kB"),
        (99_951, "100 kB"),
        (999_600, "1.0 MB"),
        (5_000_000_000, "5.0 GB"),
        (None, "unknown"),
    ],
)
def test_sizes(size: int | None, text: str) -> None:
    assert tables.size(size) == text


def test_events_of_messages_and_pinholes_are_told_latest_first() -> None:
    left = {"time": 2e9, "event": "message-left", "service": "chat", "client": "10.0.0.5:1"}
    left |= {"announced": "10.0.0.5:5000", "reason": "too many"}
    rows = tables.events(document(events=[*document()["events"], left])).rows
    assert rows[0][1:] == ("message left", "chat of 10.0.0.5:1 naming 10.0.0.5:5000: too many")
    assert rows[1][2] == "203.0.113.1:5200 -> 10.0.0.5:5200 for send-file by 198.51.100.7"


# --- the command ---


def run(tmp_path: Path, *words: str, **environment: str) -> tuple[int, str, str]:
    config = tmp_path / "c.toml"
    config.write_text(f'status_socket = "{tmp_path / "status"}"\n')
    done = subprocess.run(
        [sys.executable, "-m", "nfreaim", *words, "--config", str(config)],
        cwd=REPO,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr


def test_json_is_what_the_daemon_tells(tmp_path: Path) -> None:
    with answering(tmp_path / "status", document()):
        code, out, err = run(tmp_path, "status", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == document()


def on_terminal(tmp_path: Path, **environment: str) -> str:
    """What `status` writes to a terminal."""
    config = tmp_path / "c.toml"
    config.write_text(f'status_socket = "{tmp_path / "status"}"\n')
    ours, theirs = pty.openpty()
    with answering(tmp_path / "status", document()):
        subprocess.run(
            [sys.executable, "-m", "nfreaim", "status", "--config", str(config)],
            cwd=REPO,
            env={**os.environ, "TERM": "xterm", **environment},
            stdout=theirs,
            check=True,
            timeout=60,
        )
    os.close(theirs)
    said = os.read(ours, 1 << 16).decode()
    os.close(ours)
    return said


def test_colour_is_for_terminals_whose_owner_does_not_mind(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    coloured, without = on_terminal(tmp_path), on_terminal(tmp_path / "plain", NO_COLOR="1")
    assert "\x1b[32mread\x1b[0m" in coloured
    assert "\x1b" not in without
    assert re.sub(r"\x1b\[\d+m", "", coloured) == without


def absent(monkeypatch: pytest.MonkeyPatch, error: str) -> None:
    def of_kernel() -> status.Document:
        raise BackendError(error)

    monkeypatch.setattr(status_text, "of_kernel", of_kernel)


@pytest.mark.parametrize("words", [["status"], ["status", "--json"]])
def test_no_daemon_is_status_3_and_one_line(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    absent(monkeypatch, "no set")
    config = tmp_path / "c.toml"
    config.write_text(f'status_socket = "{tmp_path / "status"}"\n')
    assert cli.main([*words, "--config", str(config)]) == 3
    said = capsys.readouterr()
    assert said.err == (
        f"nfreaim: no daemon answers at {tmp_path / 'status'}; start it: systemctl start nfreaim, or"
        " nfreaim run (nor can the kernel's part be read: no set)\n"
    )
    if "--json" in words:
        assert json.loads(said.out)["running"] is False
    else:
        assert said.out == ""


def test_what_the_kernel_has_is_shown_without_a_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (pinhole, _) = document()["pinholes"]
    bare = {key: pinhole[key] for key in list(pinhole)[: list(pinhole).index("connected")]}
    kernel = {"version": "0.1.0", "running": False, "pinholes": [bare], "forwards": [], "queues": []}
    monkeypatch.setattr(status_text, "of_kernel", lambda: kernel)
    assert status_text.main(tmp_path / "status", as_json=False) == 3
    said = capsys.readouterr().out
    assert said.startswith("nfreaim 0.1.0, no daemon\n\npinholes (1)\n")
    assert "sessions" not in said


def test_root_is_not_told_to_be_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_stats, "PATH", tmp_path / "absent")
    assert queue_stats.queues() == []
    locked = tmp_path / "locked"
    monkeypatch.setattr("socket.socket.connect", _refuse)
    for user, told in ((0, False), (1000, True)):
        monkeypatch.setattr(os, "geteuid", lambda user=user: user)
        with pytest.raises(BackendError) as caught:
            status.fetch(locked)
        assert ("run it as root" in str(caught.value)) is told


def _refuse(*_: object) -> None:
    raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize(("command", "library"), [("top", "rich"), ("metrics", "prometheus_client")])
def test_a_missing_library_is_named_with_the_way_to_get_it(command: str, library: str) -> None:
    hide = f"import sys; sys.modules[{library!r}] = None"
    program = f"{hide}; from nfreaim.cli import main; sys.exit(main([{command!r}]))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPO, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    name = library.replace("_", "-")
    assert f"nfreaim {command} needs the Python library {name}: " in done.stderr
    assert f"{sys.executable} -m pip install {name}" in done.stderr


def test_top_without_a_terminal_says_what_works_there(tmp_path: Path) -> None:
    code, out, err = run(tmp_path, "top")
    assert (code, out) == (2, "")
    assert err == "nfreaim: nfreaim top needs a terminal; `nfreaim status` prints once, anywhere\n"
