"""A flowtable on the router takes no connection that nfreaim has to read; where it may, claims work.

Needs a kernel with flowtables and nfnetlink_cthelper, such as Debian's. CONTRIBUTING.md says how to run it.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.lab.net import Daemon, Lab
from tests.lab.scene import eventually, start
from tests.lab.standin import Client, Server, Transfer

SLOW = 240.0  # such a machine may be many times slower than the one that the lab's time-outs are for
RULESET = """
flush ruleset
table inet fast {{
    flowtable f {{ hook ingress priority 0; devices = {{ lan, p-alice, p-amy, wan }}; }}
    chain zones {{ type filter hook prerouting priority raw; {zone} }}
    chain forwarding {{ type filter hook forward priority filter; {left_out} meta l4proto tcp flow add @f; }}
    chain counting {{ type filter hook forward priority -200; tcp dport {port} counter comment "seen"; }}
}}
"""
PORT = 5777
pytestmark = pytest.mark.timeout(10 * SLOW)
SIZE = 1_000_000
ZONED = 'iifname "nosuch" ct zone set 1;'


LEFT_OUT = "tcp dport != 5190 tcp sport != 5190"


def load(lab: Lab, zone: str = "", left_out: str = "", check: bool = True) -> str:
    """Load the ruleset; returns what nft says against it."""
    text = RULESET.format(zone=zone, port=PORT, left_out=left_out)
    return lab.run("A", "nft", "-f", "-", stdin=text, check=check).stderr


def seen(lab: Lab) -> int:
    """Packets towards the listener that went the slow way."""
    found = re.search(r"counter packets (\d+)", lab.run("A", "nft", "list", "table", "inet", "fast").stdout)
    assert found
    return int(found[1])


def helpers() -> int:
    """The status of an attempt to take our helper away: 0 if rules no longer hold it, nor anybody else."""
    command = [sys.executable, "-m", "nfreaim", "conntrack-helper", "remove"]
    return subprocess.run(command, timeout=SLOW, check=False).returncode


def counters(daemon: Daemon) -> dict[str, int]:
    """Those that a daemon logs when it ends."""
    last = [line for line in daemon.log_text().splitlines() if "counters: " in line][-1]
    return {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", last)}


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as made:
        refusal = load(made, check=False)
        assert not refusal, f"this kernel has no flowtables: {refusal}"
        yield made


def sent(lab: Lab) -> None:
    """Alice offers bob a file, is connected to through her pinhole, and he gets all of it."""
    server = Server(lab)
    alice, bob = Client(lab, "alice", "alice1", "libpurple", PORT), Client(lab, "bob", "bob1")
    for end in (server, alice, bob):
        end.wait_ready(SLOW)
    for client in (alice, bob):
        client.sign_on(server)
    outcome = Transfer(alice, bob, "file", size=SIZE, patience=SLOW).outcome(2 * SLOW)
    assert outcome.first_attempt, outcome.reason
    for end in (alice, bob, server):
        end.stop()


def run_daemon(lab: Lab) -> Daemon:
    daemon = start(lab, "A", wait=False)
    daemon.wait_ready(SLOW)
    return daemon


def test_sessions_are_read_and_peers_verified_beside_a_flowtable(lab: Lab) -> None:
    before = lab.firewall_rules("A")
    daemon = run_daemon(lab)
    told = checked(lab)
    assert "flowtables take no connection that nfreaim has to read" in told, told
    sent(lab)
    daemon.wait_log("claimed", SLOW)
    assert daemon.stop(SLOW) == 0
    found = counters(daemon)
    assert found.get("peers_verified") == 1
    assert found.get("rewritten", 0) >= 1
    assert seen(lab) > 12, "a connection that had a helper stays out of the flowtable to its end"
    assert lab.firewall_rules("A") == before
    assert helpers() == 0


def test_where_it_cannot_be_prevented_claims_work_and_the_log_says_so(lab: Lab) -> None:
    load(lab, ZONED, LEFT_OUT)  # as `check` says, so that sessions are read
    daemon = run_daemon(lab)
    daemon.wait_log("first bytes are not verified", SLOW)
    told = checked(lab)
    assert "peers' first bytes cannot be relied on" in told, told
    sent(lab)
    daemon.wait_log("claimed", SLOW)
    assert daemon.stop(SLOW) == 0
    assert "peers_verified" not in counters(daemon)


def test_a_flowtable_that_is_loaded_later_is_noticed(lab: Lab) -> None:
    lab.run("A", "nft", "flush", "ruleset")
    daemon = run_daemon(lab)
    assert not kept_out(lab)
    load(lab)
    eventually(lambda: kept_out(lab), SLOW)
    load(lab, ZONED)
    daemon.wait_log("first bytes are not verified", SLOW)
    eventually(lambda: not kept_out(lab), SLOW)
    load(lab)
    daemon.wait_log("first bytes are verified again", SLOW)
    assert daemon.stop(SLOW) == 0
    assert helpers() == 0


def kept_out(lab: Lab) -> bool:
    """Whether our rule is there. Each look takes a second, because such a machine has better things to do."""
    return "--helper nfreaim" in lab.run("A", "sh", "-c", "sleep 1; iptables-legacy-save -t raw").stdout


def checked(lab: Lab) -> str:
    words = (sys.executable, "-m", "nfreaim", "check", "--lan", "lan", "--wan", "wan")
    return lab.run("A", *words, check=False, seconds=SLOW).stdout
