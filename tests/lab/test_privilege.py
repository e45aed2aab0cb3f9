"""The daemon with what its systemd unit leaves it: a user of its own, two capabilities, few system calls."""

from __future__ import annotations

import json
import shutil
import signal
import sys

import pytest

from tests.lab import home
from tests.lab.confine import USER, confined
from tests.lab.firewall import without_elements
from tests.lab.flows import home_flow
from tests.lab.net import Daemon, Lab
from tests.lab.scene import INSTALL, Scene, eventually, nfreaim
from tests.lab.standin import Transfer
from tests.lab.stream import Plan

pytestmark = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None,
    reason="systemd-analyze, which knows the groups of system calls, is absent",
)

RUN = (sys.executable, "-m", "nfreaim", "run", "--lan", "lan", "--wan", "wan")
TROUBLE = ("ermi", "Traceback", "WARNING", "ERROR", "denied")  # "ermi": permitted, permission


def start(made: Scene, *, capabilities: tuple[str, ...] | None = None, wait: bool = True) -> Daemon:
    """The daemon as in the unit, on router A."""
    log = made.lab.log_file("nfreaim-A")
    command = confined(*RUN, capabilities=capabilities)
    daemon = Daemon(made.lab.spawn("A", *command, log=log, environment={"PYTHONUNBUFFERED": "1"}), log)
    made.daemons["A"] = daemon
    if wait:
        daemon.wait_ready(20)
    return daemon


def untroubled(daemon: Daemon) -> None:
    assert not [word for word in TROUBLE if word in daemon.log_text()], daemon.log_text()


def rules(lab: Lab) -> str:
    """Rules and sets of router A, without the entries that connections come and go with."""
    lines = without_elements(lab.firewall_rules("A"), "nfreaim_(?:skew|flow)").splitlines()
    return "\n".join(line for line in lines if not line.startswith(("add nfreaim_skew", "add nfreaim_flow")))


def test_everything_works_and_the_end_leaves_nothing() -> None:
    with Lab("nft", "legacy") as lab:
        made = Scene(lab)
        lab.run("A", "nft", "table ip own { chain pre { type nat hook prerouting priority -100; }; }")
        lab.run("A", *"nft add rule ip own pre tcp dport 5200 dnat to 10.0.0.6".split())
        before = lab.firewall_rules("A")
        daemon = start(made)
        status = lab.run("A", "cat", f"/proc/{daemon.pid}/status").stdout.split()
        assert status[status.index("CapEff:") + 1] == status[status.index("CapBnd:") + 1] == f"{0x3000:016x}"
        assert status[status.index("Uid:") + 1 :][:4] == [str(USER)] * 4
        assert (status[status.index("NoNewPrivs:") + 1], status[status.index("Seccomp:") + 1]) == ("1", "2")
        server = made.server()
        alice, bob, carol = made.clients(server, ("alice", "alice", 5200), ("bob", "bob"), ("carol", "carol"))
        assert Transfer(alice, carol, "im").outcome().first_attempt
        # Somebody else's forward of the port was seen, so another one was announced.
        assert {pinhole.outside for pinhole in made.pinholes()} == {"203.0.113.1:40000"}
        bob.call("policy", action="ignore")
        Transfer(alice, bob, "file")
        eventually(lambda: "  send-file  " in nfreaim(lab, "A", "status"))
        told = json.loads(nfreaim(lab, "A", "status", "--json"))
        assert told["running"]
        assert told["counters"]["rewritten"] == 2
        daemon.process.send_signal(signal.SIGUSR1)
        daemon.wait_log("counters: ")
        assert daemon.stop() == 0
        untroubled(daemon)
        assert lab.firewall_rules("A") == before
        assert lab.run("A", "sh", "-c", "ls -A /run/nfreaim").stdout == ""


def test_kept_state_and_deleted_rules_are_taken_up_again_after_a_kill() -> None:
    with Lab(home_server=True) as lab:
        made = Scene(lab)
        home.forward(lab)
        lab.run("A", *confined(*INSTALL))
        complete = rules(lab)
        assert "NFREAIM" in complete
        plan = Plan(frames=40, pause=0.05, largest=300)
        daemon = start(made)
        flow = home_flow(lab, server_plan=Plan(frames=40, redirects=10, pause=0.05), client_plan=plan)
        every = ("find", "/run/nfreaim/flows", "-name", "*.json", "-exec", "cat", "{}", "+")
        eventually(lambda: "edits" in lab.run("A", *every, check=False).stdout)
        listed = lab.run("A", "sh", "-c", "stat -c %a:%u /run/nfreaim/flows /run/nfreaim/flows/*").stdout
        assert set(listed.split()) == {f"700:{USER}", f"600:{USER}"}
        daemon.kill()
        lab.run("A", *"iptables-legacy -D FORWARD -j NFREAIM".split())
        daemon = start(made)
        assert "connections of an earlier daemon: 1 found, 1 go on" in daemon.log_text()
        assert rules(lab).splitlines() == complete.splitlines()
        flow.exact()
        assert daemon.stop() == 0
        untroubled(daemon)
        lab.run("A", *confined("rules/nfreaim-rules", "remove", "--force"))
        assert "NFREAIM" not in rules(lab)


@pytest.mark.parametrize(
    ("held", "lacking"), [("CAP_NET_ADMIN", "CAP_NET_RAW"), ("CAP_NET_RAW", "CAP_NET_ADMIN")]
)
def test_one_capability_less_is_said_before_anything_is_changed(held: str, lacking: str) -> None:
    with Lab() as lab:
        before = lab.firewall_rules("A")
        daemon = start(Scene(lab), capabilities=(held,), wait=False)
        assert daemon.process.wait(20) == 1
        said = daemon.log_text()
        assert said.startswith(f"nfreaim: {lacking} missing: run it as root, or")
        assert "AmbientCapabilities=" in said
        assert said.count("\n") == 1
        failed = lab.run("A", *confined(*INSTALL, capabilities=(held,)), check=False)
        assert failed.returncode == 1
        assert "CAP_NET_ADMIN and CAP_NET_RAW are needed" in failed.stderr
        assert lab.firewall_rules("A") == before
