"""Somebody reloads the firewall by a file that begins with `flush ruleset`, or changes our table."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import home, kernel_sets
from tests.lab.flows import Flow, home_flow
from tests.lab.holder import listening
from tests.lab.irc_offers import amy_offers, irc_flow, number_of
from tests.lab.net import SERVER, WAN, Daemon, Lab
from tests.lab.scene import Scene, eventually
from tests.lab.standin import Transfer
from tests.lab.stream import Plan

INSTALL = ("rules/nfreaim-rules", "install", "--firewall", "nft", "--lan", "lan", "--wan", "wan")
# Chains that come before ours in each hook, and others behind. Packets wait in the queue meanwhile.
CHAINS = "".join(
    f"table ip theirs{number} {{\n chain c {{ type filter hook {hook} priority {priority}; }}\n}}\n"
    for number, (hook, priority) in enumerate(
        (hook, priority)
        for hook in ("prerouting", "input", "forward", "output", "postrouting")
        for priority in (-400, -310, -160, 10)
    )
)
ANN = 1001  # a user
HIDDEN = "10.0.77.1"
IRC = ("--protocol", "oscar", "--protocol", "irc:6667")
DAMAGES = {
    "flush table ip nfreaim": "rules missing",
    "add rule ip nfreaim gate accept": "chain gate: rules changed",
    "flush ruleset": "table nfreaim missing",
    "flush map ip nfreaim nfreaim_pin; flush map ip nfreaim nfreaim_any": "entries removed",
}


@pytest.fixture(autouse=True)
def nft(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NFREAIM_FIREWALL", "nft")
    monkeypatch.setattr(kernel_sets, "NFT", True)


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab("native-nft", home_server=True) as made:
        home.forward(made)
        home.open_port(made)
        yield made


class Operator:
    """Who reloads the firewall of router A as it was before nfreaim."""

    def __init__(self, lab: Lab, *options: str) -> None:
        self.lab = lab
        self.file = Path(lab.dir, "nftables.conf")
        self.rules = lab.run("A", "nft", "list", "ruleset").stdout
        self.write("")
        lab.run("A", *INSTALL, *options)

    def write(self, more: str) -> None:
        self.file.write_text(f"flush ruleset\n{self.rules}{more}")

    def reload(self) -> None:
        self.lab.run("A", "nft", "-f", str(self.file))


def skewed(lab: Lab, client: str) -> bool:
    shown = lab.run("A", "nft", "list", "set", "ip", "nfreaim", "nfreaim_skew", check=False).stdout
    return f" {client} " in shown


def wait_for(lab: Lab, daemon: Daemon, client: str = "203.0.113.20") -> None:
    """Until the connection of this client was edited."""
    deadline = time.monotonic() + 10.0
    while not skewed(lab, client):
        assert time.monotonic() < deadline, daemon.log_text()
        time.sleep(0.01)


def restored(daemon: Daemon, times: int) -> None:
    """Wait until the table was so often made again."""
    eventually(lambda: daemon.log_text().count("table nfreaim missing): restored") == times)


def ours(lab: Lab) -> str:
    """The table without counters, time-outs and elements that end."""
    listed = lab.run("A", "nft", "-s", "-t", "list", "table", "ip", "nfreaim", check=False).stdout
    return str(listed)


def flow_of(lab: Lab, frames: int, pause: float = 0.0) -> Flow:
    """Edits throughout in one direction, and data in both."""
    serving = Plan(frames=frames, redirects=40, pause=pause)
    return home_flow(lab, server_plan=serving, client_plan=Plan(frames=frames, pause=pause, seed=2))


@pytest.mark.parametrize("more", ["", CHAINS], ids=["plain", "with-chains-before-ours"])
def test_reloads_in_the_middle_of_a_large_transfer_change_no_byte(lab: Lab, more: str) -> None:
    operator = Operator(lab)
    daemon = lab.start_alg("A")
    flow = flow_of(lab, 3000, 0.001)
    wait_for(lab, daemon)
    operator.write(more)
    for times in range(1, 5):
        operator.reload()
        restored(daemon, times)
        time.sleep(0.2)
    server, client = flow.exact()
    assert client["rewritten"] > 20, (server, client)
    assert daemon.stop() == 0


def test_no_packet_passes_while_the_flow_is_not_in_the_set(lab: Lab) -> None:
    Operator(lab)
    daemon = lab.start_alg("A")
    flow = flow_of(lab, 1500, 0.002)
    wait_for(lab, daemon)
    for _ in range(2):
        lab.run("A", "nft", "flush", "set", "ip", "nfreaim", "nfreaim_skew")
        time.sleep(0.5)
    server, client = flow.exact()
    assert client["rewritten"] > 20, (server, client)
    assert daemon.stop() == 0


def test_nothing_wrong_is_delivered_while_the_table_is_missing_and_the_flow_goes_on_behind(lab: Lab) -> None:
    operator = Operator(lab)
    daemon = lab.start_alg("A")
    flow = flow_of(lab, 1000, 0.002)
    wait_for(lab, daemon)
    for times in range(1, 6):
        operator.reload()
        restored(daemon, times)
    operator.reload()  # this time it waits for some seconds, because somebody keeps doing it
    time.sleep(1.5)
    assert "table ip nfreaim {" not in lab.run("A", "nft", "list", "ruleset").stdout
    server, client = flow.exact()
    assert client["rewritten"] > 20, (server, client)
    assert daemon.stop() == 0


def test_a_client_inside_and_two_processes(lab: Lab) -> None:
    operator = Operator(lab, "--workers", "2", *IRC)
    daemon = lab.start_alg("A", ("--workers", "2", *IRC))
    amy_offers(lab, daemon)
    flow = irc_flow(lab, Plan(frames=1200, redirects=100, pause=0.003))
    wait_for(lab, daemon, "10.0.0.5")
    for times in range(1, 5):
        operator.reload()
        restored(daemon, times)
        time.sleep(0.2)
    server, client = flow.exact()
    assert server["rewritten"] > 50, (server, client)
    assert daemon.stop() == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_reloads_before_the_first_edit_of_a_connection(lab: Lab, workers: str) -> None:
    """Then it is not guarded, and what passes unseen may be repeated, or be followed by what is read."""
    operator = Operator(lab, "--workers", workers)
    daemon = lab.start_alg("A", ("--workers", workers))
    flow = flow_of(lab, 400, 0.003)
    for _ in range(4):
        operator.reload()
        time.sleep(0.06)
    flow.exact()
    assert daemon.stop() == 0


def test_a_client_on_the_router_that_only_listens(lab: Lab) -> None:
    # With another address than the one that its connections leave with
    lab.run("A", *f"ip address add {HIDDEN}/32 dev wan".split())
    lab.run("A", *f"ip route add {SERVER}/32 dev wan src {HIDDEN}".split())
    operator = Operator(lab, "--local-client", str(ANN), *IRC)
    daemon = Scene(lab).restart(settings=f'local_clients = [{ANN}]\nprotocols = ["oscar", "irc"]\n')
    named, becomes = (f"{number_of(address)} 5500" for address in (HIDDEN, WAN["A"]))
    plan = Plan(dialect="irc", listen=f"{SERVER}:6667", frames=600, pause=0.005, expects=(named, becomes))
    calling = Plan(dialect="irc", connect=plan.listen, frames=0, redirects=2, named=named, stays=True)
    with listening(lab, ANN, 5500, address=HIDDEN):
        flow = Flow(lab, ("server", plan), ("A", calling), ANN)
        wait_for(lab, daemon, HIDDEN)
        for _ in range(3):
            operator.reload()
            time.sleep(0.3)
        server, _ = flow.exact()
    assert server["rewritten"] == 2, server
    assert daemon.stop() == 0


def notices(lab: Lab, daemon: Daemon, damage: str, told: str) -> None:
    seen = daemon.log_text().count("somebody else changed our rules")
    lab.run("A", "nft", damage)
    eventually(lambda: daemon.log_text().count("somebody else changed our rules") > seen)
    assert told in daemon.log_text().splitlines()[-1], damage


def test_all_that_the_daemon_knows_is_back(lab: Lab) -> None:
    operator, made = Operator(lab), Scene(lab)
    daemon = made.restart(settings='[[forward]]\nhost = "10.0.0.6"\nports = 20000\n')
    bob, alice = made.clients(made.server(), ("bob", "bob"), ("alice", "alice", 5200))
    bob.call("policy", action="ignore")
    Transfer(alice, bob, "file")
    eventually(lambda: len(made.pinholes()) == 1)
    before, pinholes = ours(lab), made.pinholes()
    forwards = kernel_sets.entries(lab, "A", "nfreaim_forward")
    assert forwards
    operator.reload()
    eventually(lambda: made.pinholes() == pinholes)
    assert ours(lab) == before
    assert kernel_sets.entries(lab, "A", "nfreaim_forward") == forwards
    assert kernel_sets.entries(lab, "A", "nfreaim_lan") == ["10.0.0.0/24"]
    for damage, told in DAMAGES.items():
        notices(lab, daemon, damage, told)
        assert (ours(lab), made.pinholes()) == (before, pinholes)
    assert "Traceback" not in daemon.log_text()
    assert daemon.stop() == 0


def test_an_installation_with_other_settings_is_no_damage(lab: Lab) -> None:
    operator = Operator(lab)
    daemon = lab.start_alg("A")
    lab.run("A", *INSTALL, "--port", "5190", "--port", "5191")
    daemon.wait_log("the rules were installed anew: --lan lan --wan wan --protocol oscar:5190,5191")
    time.sleep(1.5)
    assert "5191" in ours(lab)
    operator.reload()
    daemon.wait_log("restored")
    assert "5191" in lab.run("A", "nft", "list", "set", "ip", "nfreaim", "servers").stdout
    assert daemon.stop() == 0
