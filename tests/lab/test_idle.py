"""A daemon that waits for interfaces answers on its status socket, and a reload has it look at once."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nfreaim.exit_status import Exit
from tests.lab.net import Daemon, Lab

NFREAIM = (sys.executable, "-m", "nfreaim")
FORWARD = ("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
STOP_FORWARDING = ("sh", "-c", "echo 0 >/proc/sys/net/ipv4/ip_forward")
NAMED = 'lan = ["lan"]\nwan = ["wan"]\n'


class Waiting:
    """A router that forwards nothing, and the daemon on it as its unit starts it."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.settings = lab, lab.dir / "nfreaim.toml"
        self.socket = lab.dir / "status"
        self.write("")
        lab.run("A", *STOP_FORWARDING)
        log = lab.log_file("idle")
        words = (*NFREAIM, "run", "--auto", "--config", str(self.settings))
        process = lab.spawn("A", *words, log=log, environment={"PYTHONUNBUFFERED": "1"})
        self.daemon = Daemon(process, log)
        self.daemon.wait_log("nobody is served")
        deadline = time.monotonic() + 10
        while not self.socket.exists():
            assert time.monotonic() < deadline, self.daemon.log_text()
            time.sleep(0.01)

    def write(self, text: str) -> None:
        self.settings.write_text(f'status_socket = "{self.socket}"\n{text}')

    def on(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.lab.run("A", *NFREAIM, *words, "--config", str(self.settings), check=False)


@pytest.fixture
def waiting() -> Iterator[Waiting]:
    with Lab() as lab:
        yield Waiting(lab)


def test_each_command_says_that_it_waits_and_why_and_what_to_write(waiting: Waiting, tmp_path: Path) -> None:
    shown = waiting.on("status")
    assert shown.returncode == Exit.TROUBLED
    assert shown.stderr == ""
    for text in ("running for", "IPv4 forwarding is off", str(waiting.settings), *NAMED.splitlines()):
        assert text in shown.stdout
    told = waiting.on("status", "--json")
    assert told.returncode == Exit.TROUBLED
    document = json.loads(told.stdout)
    assert document["running"] is True
    assert "IPv4 forwarding is off" in document["idle"]["why"]
    assert (document["idle"]["lan"], document["idle"]["wan"]) == (["lan"], ["wan"])
    assert document["sessions"] == document["pinholes"] == []
    counted = waiting.on("metrics")
    assert (counted.returncode, counted.stderr) == (Exit.FINE, "")
    assert "nfreaim_up 1.0" in counted.stdout
    assert "nfreaim_serving 0.0" in counted.stdout
    page = tmp_path / "page.html"
    assert waiting.on("report", "--html", str(page)).returncode == Exit.TROUBLED
    assert "IPv4 forwarding is off" in page.read_text()
    tested = waiting.on("check", "--self-test")
    assert "the daemon waits" in tested.stdout
    assert waiting.daemon.stop() == 0
    assert not waiting.socket.exists()
    assert waiting.on("status").returncode == Exit.ABSENT


def test_a_reload_says_what_is_missing_still_or_that_it_serves_now(waiting: Waiting) -> None:
    done = waiting.on("reload")
    assert (done.returncode, done.stderr) == (Exit.FINE, "")
    assert "nobody is served yet: IPv4 forwarding is off" in done.stdout
    waiting.write("hold_ms = 9999\n")
    done = waiting.on("reload")
    assert done.returncode == Exit.MISUSED
    assert "hold_ms = 9999" in done.stderr
    waiting.write(NAMED)
    done = waiting.on("reload")
    assert (done.returncode, done.stderr) == (Exit.FINE, ""), waiting.daemon.log_text()
    assert done.stdout == "the daemon serves now: lan towards clients, wan towards the Internet\n"
    assert "ready: serving queue" in waiting.daemon.log_text()
    shown = waiting.on("status")
    assert shown.returncode == Exit.FINE, shown.stdout
    assert "nobody is served" not in shown.stdout
    assert waiting.daemon.stop() == 0
    assert not waiting.socket.exists()


def test_a_default_route_that_comes_after_the_boot_begins_it(waiting: Waiting) -> None:
    route = waiting.lab.run("A", "ip", "route", "show", "default").stdout.split()
    waiting.lab.run("A", "ip", "route", "del", *route)
    waiting.lab.run("A", *FORWARD)
    assert "nobody is served yet: there is no IPv4 default route" in waiting.on("reload").stdout
    waiting.lab.run("A", "ip", "route", "add", *route)
    waiting.daemon.wait_log("ready: serving queue", 20)
    assert waiting.daemon.stop() == 0


def test_signals_that_come_while_it_begins_do_not_end_it(waiting: Waiting) -> None:
    waiting.lab.run("A", *FORWARD)
    deadline = time.monotonic() + 30
    while "ready: serving queue" not in waiting.daemon.log_text():
        assert time.monotonic() < deadline
        assert waiting.daemon.process.poll() is None, waiting.daemon.log_text()
        for number in (signal.SIGHUP, signal.SIGUSR1):
            waiting.daemon.process.send_signal(number)
        time.sleep(0.02)
    assert waiting.daemon.stop() == 0


def test_a_socket_that_a_killed_one_left_is_replaced(waiting: Waiting) -> None:
    waiting.daemon.kill()
    assert waiting.socket.exists()
    again = Waiting(waiting.lab)
    assert again.on("status").returncode == Exit.TROUBLED
    assert again.daemon.stop() == 0
    assert not again.socket.exists()
