"""What the kernel makes of connections whose length was changed: default sysctls, INVALID dropped."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.lab import home, impair, kernel_sets
from tests.lab.flows import Flow, home_flow
from tests.lab.net import Daemon, Lab
from tests.lab.scene import INSTALL
from tests.lab.stream import Plan

# A client that signs on, waits for a redirect and then aborts, or stays idle until its stdin ends.
CLIENT = """
import socket, struct, sys
connection = socket.create_connection(("203.0.113.1", 5190), 10)
connection.sendall(b"\\x2a\\x01\\0\\0\\0\\4\\0\\0\\0\\1")
data = b""
while b"203.0.113.1:5190" not in data:
    data += connection.recv(4096)
print("edited", connection.getsockname()[1], flush=True)
sys.stdin.readline()
if sys.argv[1] == "abort":
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
connection.close()
"""
# A server that sends one redirect and then waits; says how the connection ended.
SERVER = """
import socket, sys
from tests.lab.dialects import redirect
from tests.oscar.flap import flap
from tests.oscar.signon import hello
from tests.oscar.snac import Snac
listener = socket.create_server((sys.argv[1], 5190))
print("listening", flush=True)
connection, _ = listener.accept()
connection.recv(100)
connection.sendall(hello())
named = redirect(sys.argv[2] + ":5190", b"")
connection.sendall(flap(2, 1, Snac(1, 5, named, 1).encode()))
connection.settimeout(20)
try:
    while connection.recv(100):
        pass
    print("closed", flush=True)
except ConnectionResetError:
    print("reset", flush=True)
except TimeoutError:
    print("hangs", flush=True)
"""


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(home_server=True) as made:
        home.forward(made)
        home.open_port(made)
        impair.count_invalid(made)
        yield made


class Idle:
    """A connection that was edited and says nothing more."""

    def __init__(self, lab: Lab, what: str, node: str = "hsrv", inside: str = home.HOME) -> None:
        listen = inside if node == "hsrv" else "0.0.0.0"
        self.server = lab.spawn(node, sys.executable, "-c", SERVER, listen, inside, pipes=True)
        assert self._line(self.server) == "listening"
        self.client = lab.spawn("bob", sys.executable, "-c", CLIENT, what, pipes=True)
        self.port = int(self._line(self.client).removeprefix("edited "))

    def end(self) -> str:
        """Let the client do what it was made for; how the server saw it."""
        assert self.client.stdin is not None
        self.client.stdin.close()
        return self._line(self.server)

    @staticmethod
    def _line(process: subprocess.Popen[bytes]) -> str:
        assert process.stdout is not None
        return process.stdout.readline().decode().strip()


def skewed(lab: Lab) -> list[str]:
    """Members of the set of flows that fail closed."""
    return kernel_sets.entries(lab, "A", "nfreaim_skew")


def records(lab: Lab) -> list[str]:
    listed = lab.run("A", "ls", "/run/nfreaim/flows").stdout.split()
    return [name for name in listed if name.endswith(".json")]


@pytest.mark.parametrize("place", [("hsrv", home.HOME), ("A", "10.0.0.1")], ids=["hsrv", "router"])
def test_reset_of_a_client_reaches_the_server_with_default_sysctls(lab: Lab, place: tuple[str, str]) -> None:
    if place[0] == "A":  # the forward would win
        lab.run("A", "iptables-legacy", "-t", "nat", "-F", "PREROUTING")
    lab.start_alg("A")
    idle = Idle(lab, "abort", *place)
    assert len(skewed(lab)) == len(records(lab)) == 1
    assert idle.end() == "reset"
    assert impair.invalid(lab) == 0


def test_idle_skewed_connection_keeps_its_timeout_in_connection_tracking(lab: Lab) -> None:
    lab.start_alg("A")
    idle = Idle(lab, "close")
    listed = lab.run("A", "cat", "/proc/net/nf_conntrack", check=False).stdout
    if not listed:
        listed = lab.run("A", "conntrack", "-L", "-p", "tcp").stdout
    (line,) = [line for line in listed.splitlines() if f"sport={idle.port}" in line]
    timeout, state = re.search(r"(\d+) ([A-Z_]+) ", line).groups()  # type: ignore[union-attr]
    assert state == "ESTABLISHED"
    assert int(timeout) > 431900, "300 would mean that connection tracking sees unacknowledged data"
    assert idle.end() == "closed"
    assert impair.invalid(lab) == 0


def test_entry_and_record_go_when_the_connection_has_ended(lab: Lab) -> None:
    lab.start_alg("A")
    idle = Idle(lab, "abort")
    assert len(skewed(lab)) == len(records(lab)) == 1
    assert idle.end() == "reset"
    deadline = time.monotonic() + 30.0  # connection tracking forgets an aborted connection after 10
    while skewed(lab) or records(lab):
        assert time.monotonic() < deadline, (skewed(lab), records(lab))
        time.sleep(0.5)


def test_stop_that_takes_the_rules_along_ends_both_sides_and_leaves_no_trace(lab: Lab) -> None:
    before = lab.firewall_rules("A")
    daemon = lab.start_alg("A")
    idle = Idle(lab, "close")
    assert daemon.stop() == 0
    assert idle.server.stdout is not None
    assert idle.server.stdout.readline() == b"reset\n"
    assert lab.firewall_rules("A") == before
    assert "nfreaim" not in lab.run("A", "ls", "/run").stdout.split()


def install(lab: Lab) -> None:
    lab.run("A", *INSTALL)


def test_stop_that_leaves_the_rules_lets_edited_connections_wait_and_go_on(lab: Lab) -> None:
    install(lab)
    daemon = lab.start_alg("A")
    flow = slow_flow(lab)
    wait_for(lab, daemon)
    assert daemon.stop() == 0
    assert lab.run("A", "rules/nfreaim-rules", "remove", check=False).returncode == 1
    lab.start_alg("A")
    flow.exact()
    assert impair.invalid(lab) == 0


@pytest.mark.parametrize(
    "damage", ["rm /run/nfreaim/flows/*", "for f in /run/nfreaim/flows/*; do echo { >$f; done"]
)
def test_lost_state_resets_both_ends_and_delivers_nothing_wrong(lab: Lab, damage: str) -> None:
    install(lab)
    daemon = lab.start_alg("A")
    flow = slow_flow(lab)
    wait_for(lab, daemon)
    daemon.kill()
    lab.run("A", "sh", "-c", damage)
    lab.start_alg("A")
    server, client = flow.results()
    assert {server["error"], client["error"]} <= {"ConnectionResetError", "BrokenPipeError"}, (server, client)


def slow_flow(lab: Lab) -> Flow:
    """Some seconds of traffic with edits, small frames both ways."""
    serving = Plan(frames=100, redirects=20, pause=0.02, largest=300)
    return home_flow(lab, server_plan=serving, client_plan=Plan(frames=100, pause=0.02, largest=300))


def wait_for(lab: Lab, daemon: Daemon) -> None:
    """Until a connection was edited."""
    deadline = time.monotonic() + 10.0
    while not skewed(lab):
        assert time.monotonic() < deadline, daemon.log_text()
        time.sleep(0.02)


def test_end_that_is_silent_is_reset_too_when_the_other_speaks_after_their_state_was_lost(lab: Lab) -> None:
    install(lab)
    daemon = lab.start_alg("A")
    idle = Idle(lab, "close")
    daemon.kill()
    lab.run("A", "sh", "-c", "rm /run/nfreaim/flows/*")
    lab.start_alg("A")
    assert idle.end() == "reset"
