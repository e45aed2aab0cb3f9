"""What an operator sees of a transfer on a real router: status, top in a terminal, metrics, history, page.

One transfer goes through a pinhole while connection tracking counts, and another proposal waits.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.lab.scene import Scene, eventually, opened, scene
from tests.lab.standin import Transfer

SIZE = 200_000
BOB = "203.0.113.20"


class Seen(NamedTuple):
    """The scene, and the configuration for commands; *started*: seconds since 1970."""

    made: Scene
    config: Path
    started: float

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = (sys.executable, "-m", "nfreaim", *words, "--config", str(self.config))
        return self.made.lab.run("A", *command, check=False)

    def json(self, *words: str) -> list[dict[str, Any]]:
        """The documents that a command prints, one a line or one in all."""
        text = self.run(*words, "--json").stdout
        return (
            [json.loads(text)] if text.startswith("{\n") else [json.loads(one) for one in text.splitlines()]
        )


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    place = tmp_path_factory.mktemp("operator")
    config = place / "nfreaim.toml"
    config.write_text(f'history_dir = "{place / "state"}"\n')
    with scene(settings=config.read_text()) as made:
        made.lab.run("A", "sh", "-c", "echo 1 >/proc/sys/net/netfilter/nf_conntrack_acct")
        started = time.time()
        bob, alice, amy = made.clients(
            made.server(), ("bob", "bob"), ("alice", "alice", 5200), ("alice", "al", 5300)
        )
        assert Transfer(alice, bob, "file", size=SIZE, seed=5).outcome().ok
        bob.call("policy", action="ignore")
        opened(made, amy, bob, 5300)
        yield Seen(made, config, started)


def test_status_tells_sessions_peers_and_bytes(seen: Seen) -> None:
    def told() -> dict[str, Any] | None:
        (document,) = seen.json("status")
        return document if len(document["pinholes"]) == 2 else None

    document = eventually(told)
    assert document is not None
    used, waiting = document["pinholes"]
    assert (used["connected"], used["connections"]) == ([BOB], 1)
    assert SIZE < used["bytes"] < 2 * SIZE
    assert used["packets"] > 10
    assert (waiting["connected"], waiting["bytes"]) == ([], 0)
    sessions = {(one["host"], one["protocol"], one["state"], one["pinholes"]) for one in document["sessions"]}
    assert ("10.0.0.5", "oscar", "established", 1) in sessions
    assert [event["event"] for event in document["events"]][:2] == ["pinhole-opened", "pinhole-claimed"]
    assert all(event["time"] >= seen.started for event in document["events"])


def test_top_shows_it_live_in_a_real_terminal_and_leaves_the_terminal_as_it_was(seen: Seen) -> None:
    lab = seen.made.lab
    tmux = ("tmux", "-S", str(seen.config.parent / "tmux"), "-f", "/dev/null")
    command = f"{sys.executable} -m nfreaim top --interval 0.2 --config {seen.config}; echo left with $?; cat"
    lab.run("A", *tmux, "new-session", "-d", "-x", "150", "-y", "40", command)
    try:

        def screen(*more: str) -> str:
            return lab.run("A", *tmux, "capture-pane", "-p", *more).stdout

        waits = r"203\.0\.113\.1:5300 +10\.0\.0\.5:5300 +send-file +oscar +awaits anybody"
        eventually(lambda: re.search(waits, screen()))
        said = screen()
        assert re.search(r"oscar +10\.0\.0\.5 +203\.0\.113\.9:5190 +read ", said), said
        assert "pinhole claimed" in said
        assert "messages that announced an address" in said
        assert "\x1b[32m" in screen("-e"), "a terminal gets colours"
        at = re.findall(r"(\d\d:\d\d:\d\d)   q quits", said)
        eventually(lambda: re.findall(r"(\d\d:\d\d:\d\d)   q quits", screen()) not in (at, []))
        lab.run("A", *tmux, "send-keys", "q")
        eventually(lambda: "left with 0" in screen())
        assert "q quits" not in screen()
    finally:
        lab.run("A", *tmux, "kill-server", check=False)


def test_metrics_of_a_running_daemon_are_a_file_for_node_exporter(seen: Seen) -> None:
    file = seen.config.parent / "nfreaim.prom"
    done = seen.run("metrics", "--output", str(file))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert file.stat().st_mode & 0o777 == 0o644
    text = file.read_text()
    assert re.search(
        r'^nfreaim_pinholes\{protocol="oscar",service="send-file"\} [12]\.0$', text, re.MULTILINE
    )
    assert "nfreaim_rewritten_total 2.0" in text


def test_the_page_names_no_address_and_finds_the_rules(seen: Seen) -> None:
    file = seen.config.parent / "report.html"
    done = seen.run("report", "--html", str(file), "--mask")
    assert done.returncode == 0, done.stderr
    text = file.read_text()
    assert re.findall(r"(?<![\d.])(?:10\.0\.0|203\.0\.113|192\.168\.7)\.\d+", text) == []
    assert re.search(r'<td class="badge ok">ok</td><td>firewall: rules', text)
    assert "pinholes of the last day" in text
    assert "what nfreaim check found" in text
    assert "usage:" not in text


def test_history_tells_who_what_when_which_peer_and_how_much(seen: Seen) -> None:
    """The connection ends when conntrack forgets it, and only then its bytes are known."""
    seen.made.lab.run("A", *"conntrack -D -p tcp --orig-port-dst 5200".split())

    def carried() -> dict[str, Any] | None:
        one = next(one for one in seen.json("history") if one["outside"] == "203.0.113.1:5200")
        return one if one["peers"] and one["peers"][0]["bytes"] is not None and one["closed"] else None

    one = eventually(carried, 40.0)
    assert one is not None
    assert (one["host"], one["service"], one["protocol"]) == ("10.0.0.5", "send-file", "oscar")
    assert (one["server"], one["reason"]) == ("203.0.113.9:5190", "done")
    (peer,) = one["peers"]
    assert (peer["address"], peer["connections"], peer["unfinished"]) == (BOB, 1, False)
    assert SIZE < peer["bytes"] < 2 * SIZE
    assert seen.started <= one["opened"] < one["closed"]
    state = seen.config.parent / "state"
    assert os.listdir(state) == ["history.jsonl"]
    written = (state / "history.jsonl").read_text()
    assert not re.search("alice|bob|cookie", written)
    text = seen.run("history", "--host", "10.0.0.5", "--day", "today").stdout
    assert re.search(r"awaits|nobody came", text)
    assert re.search(rf"send-file +203\.0\.113\.1:5200 +{BOB} +\d+ kB +\d+ +\d+ s +done", text), text
    assert seen.run("history", "--day", "2020-01-01").stdout == "no pinhole was opened\n"
