"""A service manager is told that the daemon is ready and lives; the configuration is read again."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress

import pytest

from nfreaim.exit_status import Exit
from tests.lab.net import Daemon, Lab
from tests.lab.scene import INSTALL, Scene, SeenPinhole, eventually, nfreaim
from tests.lab.standin import Transfer

PINHOLE = SeenPinhole("203.0.113.1:5200", "10.0.0.5:5200")
DENIED = '[services]\ndeny = ["send-file"]\n'


class Managed(Scene):
    """A daemon with two workers, started as systemd starts a service of Type=notify with a watchdog."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab)
        self.settings = lab.dir / "nfreaim.toml"
        self.settings.write_text("workers = 2\n")
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.manager.bind(str(lab.dir / "notify"))
        self.manager.settimeout(30)
        environment = {
            "PYTHONUNBUFFERED": "1",
            "NOTIFY_SOCKET": str(lab.dir / "notify"),
            "WATCHDOG_USEC": "4000000",
        }
        words = ["-m", "nfreaim", "run", "--config", str(self.settings), "--lan", "lan", "--wan", "wan"]
        log = lab.log_file("nfreaim-A")
        process = lab.spawn("A", sys.executable, *words, log=log, environment=environment)
        self.daemons["A"] = Daemon(process, log)
        self.first = self.manager.recv(1000)
        self.queues = set(lab.queue_state("A"))  # at once

    def hears(self, wanted: bytes) -> None:
        """Wait for this message of the daemon's."""
        while self.manager.recv(1000) != wanted:
            pass

    def reload(self, text: str = "") -> subprocess.CompletedProcess[str]:
        """With further settings in the file."""
        self.settings.write_text(f"workers = 2\n{text}")
        words = [sys.executable, "-m", "nfreaim", "reload", "--config", str(self.settings)]
        return self.lab.run("A", *words, check=False)


@pytest.fixture(scope="module")
def managed() -> Iterator[Managed]:
    with Lab() as lab:
        made = Managed(lab)
        try:
            yield made
        finally:
            made.manager.close()


def test_ready_means_that_rules_and_queues_are_there(managed: Managed) -> None:
    assert managed.first == b"READY=1", managed.daemon.log_text()
    assert managed.queues == {5191, 5192, 5223, 5224, 5254}
    assert managed.lab.run("A", INSTALL[0], "show").returncode == 0
    managed.hears(b"STATUS=Serving lan towards clients, wan towards the Internet")
    managed.hears(b"WATCHDOG=1")


def test_a_reload_changes_what_is_open_and_what_may_be_opened(managed: Managed) -> None:
    server = managed.server()
    alice, bob = managed.clients(server, ("alice", "alice", 5200), ("bob", "bob"))
    bob.call("policy", action="ignore")
    Transfer(alice, bob, "file")
    managed.daemon.wait_log(f"pinhole opened: {PINHOLE.outside} -> {PINHOLE.inside} for send-file", 30)
    assert PINHOLE in managed.pinholes()
    done = managed.reload("queue = 7\n" + DENIED)
    assert (done.returncode, done.stderr) == (Exit.FINE, "")
    assert done.stdout == "queue: in force only after a restart (systemctl restart nfreaim)\n"
    assert managed.pinholes() == set()
    assert "the configuration was changed: service send-file is switched off" in managed.daemon.log_text()
    Transfer(alice, bob, "file")
    managed.daemon.wait_log("left alone: send-file", 15)
    assert managed.reload().returncode == Exit.FINE
    Transfer(alice, bob, "file")
    before = eventually(managed.pinholes)

    done = managed.reload("hold_ms = 9999\n")
    assert (done.returncode, done.stderr.count("\n")) == (Exit.MISUSED, 1)
    assert f"{managed.settings}: hold_ms = 9999" in done.stderr
    managed.daemon.process.send_signal(signal.SIGHUP)
    managed.daemon.wait_log("the configuration was not taken over: ")
    assert managed.pinholes() == before, "a wrong one changes nothing"
    eventually(lambda: json.loads(nfreaim(managed.lab, "A", "status", "--json"))["reload"]["error"])


def test_workers_obey_the_new_log_level(managed: Managed) -> None:
    assert managed.reload('[log]\nlevel = "debug"\n').returncode == Exit.FINE
    managed.daemon.wait_log("DEBUG worker 1: ", 20)
    assert managed.reload().returncode == Exit.FINE


def test_a_worker_that_hangs_stops_the_life_signs(managed: Managed) -> None:
    worker = json.loads(nfreaim(managed.lab, "A", "status", "--json"))["workers"][0]["pid"]
    os.kill(worker, signal.SIGSTOP)
    try:
        managed.daemon.wait_log(f"worker 1 (process {worker}) does not answer", 30)
        managed.manager.setblocking(False)
        with suppress(BlockingIOError):
            while managed.manager.recv(1000):  # what was sent before
                pass
        nfreaim(managed.lab, "A", "status")  # the loop of the main process turns meanwhile
        with pytest.raises(BlockingIOError):
            managed.manager.recv(1000)
    finally:
        os.kill(worker, signal.SIGCONT)
    managed.manager.settimeout(30)
    managed.hears(b"WATCHDOG=1")


def test_rules_are_not_removed_under_the_daemon_which_would_put_them_back(managed: Managed) -> None:
    before = managed.lab.firewall_rules("A")
    done = managed.lab.run("A", INSTALL[0], "remove", check=False)
    assert done.returncode == Exit.TROUBLED
    assert "the daemon runs, and would put the rules back; remedy: stop it first" in done.stderr
    assert managed.lab.firewall_rules("A") == before


def test_the_end_is_announced_and_leaves_nothing(managed: Managed) -> None:
    assert managed.daemon.stop() == 0
    managed.hears(b"STOPPING=1")
    assert "NFREAIM" not in managed.lab.firewall_rules("A")
