"""The daemon of commit 90f2295 gives way to today's, under sessions, pinholes and edited connections.

There, no record, set entry or comment named a protocol. The operator changes neither the configuration file
nor the arguments of rules and daemon.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.lab import home, impair, kernel_sets, peer
from tests.lab.flows import home_flow
from tests.lab.namespace import socket_in
from tests.lab.net import ADDRESS, REPO, SECOND_SERVER, SERVER, WAN, Daemon, Lab
from tests.lab.router import SCRIPT
from tests.lab.scene import INSTALL, Scene, SeenPinhole, eventually, nfreaim
from tests.lab.standin import Client, IcqClient, Server, Transfer, icq_call
from tests.lab.stream import Plan

pytestmark = kernel_sets.legacy_only("the older daemon knows no others")

OLDER = "90f2295"
SIZE = 30000  # bytes of the file that alice offers
PATIENCE = 60.0  # seconds, for what takes one or two
ARGS = ("--port", "5190", "--port", "443")  # NFREAIM_ARGS in rules.env, for rules and daemon
SETTINGS = """
ports = [5190, 443]
icq_direct = ["10.0.0.5"]
[pinholes]
icq_per_host = 2
"""
SPELLINGS = ("ports", "icq_direct", "icq_per_host")
FILE = SeenPinhole(f"{WAN['A']}:5200", "10.0.0.5:5200")
STANDING = SeenPinhole(f"{WAN['A']}:4000", "10.0.0.5:4000")
FOLLOWED = f"{SECOND_SERVER}:5191"


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That commit's package and rules, as a tar file."""
    archive = tmp_path_factory.mktemp("older") / "older.tar"
    words = ["git", "archive", "-o", str(archive), OLDER, "nfreaim", "rules"]
    if subprocess.run(words, cwd=REPO, capture_output=True, timeout=30).returncode:
        pytest.skip(f"this clone has no commit {OLDER}: git fetch --unshallow")
    return archive


class Talk(threading.Thread):
    """Questions of a client to its server, at the pace of people, until it ends."""

    def __init__(self, client: Client) -> None:
        super().__init__()
        self.asked = 0
        self._client = client
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(1.1):
            self._client.call("send_snac", family=1, subtype=0x0E, body="")
            self.asked += 1

    def end(self) -> None:
        self._over.set()
        if self.is_alive():
            self.join()


class Upgrade(Scene):
    """A router with the daemon of that commit, and what its clients have going on.

    alice  is silent while the daemons change; a proposal of hers waits for bob
    icq    has published where it listens, on the same host
    amy    was redirected to another port of her server, and talks to it all the time
    busy   a connection of bob's with the server at home, edited again and again
    paced  one of carol's with pauses, each message from the server an edit
    """

    def __init__(self, lab: Lab, older: Path) -> None:
        super().__init__(lab)
        self._tree = lab.dir / "installed"
        self._tree.mkdir()
        subprocess.run(["tar", "-xf", older, "-C", self._tree], check=True, timeout=30)
        settings = lab.dir / "nfreaim.toml"
        settings.write_text(SETTINGS)
        self._options = ("--config", str(settings), *ARGS)
        self.install_rules()
        # -P: else the checkout, in the working directory, comes first.
        start = (sys.executable, "-P", "-m", "nfreaim", "run", "--lan", "lan", "--wan", "wan")
        log = lab.log_file("older")
        environment = {"PYTHONUNBUFFERED": "1", "PYTHONPATH": str(self._tree)}
        process = lab.spawn("A", *start, *self._options, log=log, environment=environment)
        self.daemons["A"] = Daemon(process, log)
        self.daemon.wait_ready(PATIENCE)
        assert self.daemon.log_text().endswith("for ports 5190 443\n"), "this is not the older daemon"
        self._sign_on()

    def install_rules(self) -> None:
        """With the script that is installed now."""
        self.lab.run("A", str(self._tree / "rules" / SCRIPT.name), *INSTALL[1:], *ARGS)

    def _sign_on(self) -> None:
        here = self.server()
        there = Server(self.lab, address=SECOND_SERVER, announce=FOLLOWED, also=FOLLOWED)
        there.wait_ready()
        self.alice, self.bob = self.clients(here, ("alice", "alice", 5200), ("bob", "bob"))
        self.amy, self.carol = self.clients(there, ("amy", "amy", 5210), ("carol", "carol"))
        self.icq, self.caller = IcqClient(self.lab, "alice", "100003"), IcqClient(self.lab, "bob", "100020")
        for client in (self.icq, self.caller):
            client.wait_ready()
            client.sign_on(here)
        self.talk = Talk(self.amy)
        assert transfers(self.amy, self.carol), self.daemon.log_text()
        self.bob.call("policy", action="ignore")
        self.offer = Transfer(self.alice, self.bob, "file", size=SIZE, seed=1, patience=600.0)
        eventually(lambda: {FILE, STANDING} <= self.pinholes(), PATIENCE)

    def begin(self) -> None:
        """From now on amy talks, and there are edited connections, for twenty seconds."""
        self.talk.start()
        eventually(lambda: self.talk.asked >= 2, PATIENCE)  # alice's position has been written since
        plan = Plan(frames=270, redirects=120, late=10, pause=0.05, largest=300)
        self.busy = home_flow(
            self.lab, server_plan=plan, client_plan=replace(plan, seed=2, redirects=0, late=0)
        )
        plan = Plan(frames=0, redirects=16, pause=1.2)
        self.paced = home_flow(
            self.lab,
            port=443,
            client="carol",
            server_plan=plan,
            client_plan=Plan(frames=16, pause=1.2, seed=2),
        )
        eventually(lambda: {WAN["B"], ADDRESS["bob"]} <= self.edited(), PATIENCE)

    def edited(self) -> set[str]:
        """Addresses of the clients whose connections wait for a daemon."""
        return set(re.findall(r"^add nfreaim_skew ([0-9.]+)", self.listed("nfreaim_skew"), re.MULTILINE))

    def listed(self, name: str) -> str:
        """The entries of a set."""
        return kernel_sets.saved(self.lab, "A", name)

    def replace_files(self) -> None:
        """What `make install` does: from then on the older daemon, too, runs today's script."""
        shutil.copy(SCRIPT, self._tree / "rules" / SCRIPT.name)

    def start_daemon(self) -> Daemon:
        """Today's, with the same arguments and configuration file."""
        self.daemons["A"] = self.lab.start_alg("A", self._options, wait=False)
        self.daemon.wait_ready(PATIENCE)
        return self.daemon

    def status(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(nfreaim(self.lab, "A", "status", "--json"))
        return document

    def files(self) -> set[str]:
        """In the router's /run, but for the lock that iptables itself keeps there."""
        return set(self.lab.run("A", "find", "/run", "-mindepth", "1").stdout.split()) - {"/run/xtables.lock"}

    def end(self) -> None:
        """Everybody signs off, and the daemon stops; the next one finds nothing to go on with."""
        for client in (self.alice, self.bob, self.amy, self.carol, self.icq, self.caller):
            client.call("sign_off")
        eventually(lambda: not self.status()["pinholes"], PATIENCE)
        assert self.daemon.stop(PATIENCE) == 0
        self.lab.run("A", "conntrack", "-F")  # else connections that ended are known for another minute
        assert self.start_daemon().stop(PATIENCE) == 0
        assert self.files() == set()
        for name in ("nfreaim_pin", "nfreaim_skew"):
            assert "\nadd " not in self.listed(name)


@contextmanager
def upgrade(older: Path) -> Iterator[Upgrade]:
    with Lab(home_server=True) as lab:
        home.forward(lab)
        home.forward(lab, port=443)
        before = lab.firewall_rules("A")
        made = Upgrade(lab, older)
        impair.count_invalid(lab)
        try:
            made.begin()
            yield made
        finally:
            made.talk.end()
        assert impair.invalid(lab) == 0
        made.end()
        impair.count_no_longer(lab)
        lab.run("A", str(SCRIPT), "remove")
        assert lab.firewall_rules("A") == before


def transfers(client: Client, other: Client) -> bool:
    return Transfer(client, other, "im").outcome().first_attempt


def arrives(made: Upgrade) -> bool:
    """Whether bob, who goes where alice's proposal sends him, receives the file; the gate looks at it."""
    address, port = FILE.outside.split(":")
    with socket_in(made.lab, "bob") as caller:
        caller.connect((address, int(port)))
        found = asyncio.run(peer.receive_over(caller, bytes.fromhex(made.offer.cookie)))
    return found == peer.digest(random.Random(1).randbytes(SIZE))


def pinholes_are_taken_over(made: Upgrade, before: str) -> None:
    """*before*: the entries of the set while no daemon ran."""
    assert {FILE, STANDING} <= made.pinholes()
    (until,) = {float(text) for text in re.findall(r" for=send-file .* until=(\S+)", before)}
    earlier = time.clock_gettime(time.CLOCK_BOOTTIME)
    document = made.status()
    later = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert {one["protocol"] for one in document["pinholes"]} == {"oscar"}
    found = {one["outside"]: one for one in document["pinholes"]}
    # The answer may be half a second old, and is rounded.
    assert until - later - 0.1 <= found[FILE.outside]["left"] <= until - earlier + 0.7
    assert found[STANDING.outside]["left"] is None
    assert arrives(made), made.daemon.log_text()
    eventually(lambda: made.status()["counters"]["peers_verified"] == 1, PATIENCE)


@pytest.mark.parametrize(
    ("end", "by"),
    [(signal.SIGTERM, "operator"), (signal.SIGKILL, "operator"), (signal.SIGTERM, "daemon")],
    ids=["stopped", "killed", "rules-by-daemon"],
)
def test_what_the_older_daemon_had_going_on_goes_on(older: Path, end: signal.Signals, by: str) -> None:
    """*by* installs today's rules: the operator beside the older daemon, or today's daemon as it starts."""
    with upgrade(older) as made:
        lab = made.lab
        made.replace_files()
        if by == "operator":
            made.install_rules()
            made.daemon.wait_log("changed our rules", PATIENCE)
            lab.run("A", str(SCRIPT), "show")  # complete, whoever installed them last
        made.daemon.process.send_signal(end)
        made.daemon.process.wait(PATIENCE)
        entries = made.listed("nfreaim_pin")
        daemon = made.start_daemon()
        for flow in (made.busy, made.paced):
            assert flow.client.process.poll() is None, "it ended before: this proves nothing"

        for name in SPELLINGS:
            daemon.wait_log(f"{name} is an older spelling; write {name} in the section [oscar]", PATIENCE)
        if end == signal.SIGKILL:
            pinholes_are_taken_over(made, entries)
        else:  # then it closed them, as any daemon does
            assert made.pinholes() == set()
            made.icq.call("publish")
            eventually(lambda: STANDING in made.pinholes(), PATIENCE)
        assert icq_call(made.caller, made.icq).ok, daemon.log_text()
        made.bob.call("policy", action="accept")
        assert transfers(made.alice, made.bob), daemon.log_text()
        quiet = rf"{ADDRESS['alice']}:\d+ > {SERVER}:5190: read again, nothing was missed"
        assert re.search(quiet, daemon.log_text())

        entry = rf'{SECOND_SERVER},tcp:5191,{ADDRESS["amy"]} timeout \d+ comment "nfreaim oscar"'
        eventually(lambda: re.search(entry, made.listed("nfreaim_srv")), PATIENCE)
        again = rf"{ADDRESS['amy']}:\d+ > {FOLLOWED}: read again"
        eventually(lambda: re.search(again, daemon.log_text()), PATIENCE)
        assert transfers(made.amy, made.carol), daemon.log_text()

        for flow in (made.busy, made.paced):
            assert flow.exact()[1]["rewritten"] > 0
        assert made.status()["counters"]["redirects"] > 0, "an edited connection was not read again"
        log = daemon.log_text()
        assert "Traceback" not in log
        assert f"pinhole closed: {STANDING.outside}" not in log
