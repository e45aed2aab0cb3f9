"""native_accept: the accept for pinholes in chains of nftables that the operator names, in no other one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.lab.firewall import RULES
from tests.lab.net import Daemon, Lab
from tests.lab.scene import eventually, nfreaim, start
from tests.lab.standin import Client, Server, Transfer

ACCEPT = 'ct mark & 0x02000000 == 0x02000000 ct status dnat accept comment "nfreaim native_accept"'
FORWARD = "inet router forward"
LATE = "table inet late { chain forward { type filter hook forward priority 10; policy drop; accept; }; }\n"
OWNED = """add table inet mine { flags owner; }
add chain inet mine forward { type filter hook forward priority 20; policy accept; }
"""


def native(lab: Lab) -> str:
    return lab.run("A", "nft", "-s", "list", "ruleset", "inet").stdout


def rules_of(lab: Lab, chain: str) -> list[str]:
    """The rules of a chain, without its head; none if it does not exist."""
    lines = lab.run("A", "nft", "-s", "list", "chain", *chain.split(), check=False).stdout.splitlines()
    return [line.strip() for line in lines[3:-2]]


def reload(lab: Lab, more: str = "") -> None:
    lab.run("A", "nft", "-f", "-", stdin=f"flush ruleset\n{RULES['native-nft']}{more}")


def accepted(lab: Lab, chain: str = FORWARD) -> bool:
    return [rule == ACCEPT for rule in rules_of(lab, chain)][:1] == [True]


def serves(lab: Lab) -> None:
    server = Server(lab)
    alice, bob = Client(lab, "alice", "alice1"), Client(lab, "bob", "bob1")
    for end in (server, alice, bob):
        end.wait_ready()
    for client in (alice, bob):
        client.sign_on(server)
    outcome = Transfer(alice, bob, "file").outcome()
    assert outcome.first_attempt, outcome.reason
    for end in (alice, bob, server):
        end.stop()


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab("native-nft") as made:
        yield made


def run_daemon(lab: Lab, *chains: str) -> Daemon:
    return start(lab, "A", f"native_accept = {list(chains)}\n" if chains else "")


def test_the_accept_comes_back_when_the_ruleset_is_loaded_again_and_goes_with_the_rules(lab: Lab) -> None:
    before = native(lab)
    daemon = run_daemon(lab, FORWARD)
    assert accepted(lab)
    reload(lab)
    eventually(lambda: accepted(lab))
    assert rules_of(lab, FORWARD).count(ACCEPT) == 1
    serves(lab)
    lab.run("A", "nft", "insert", "rule", *FORWARD.split(), "tcp", "dport", "9", "drop")
    shown = lab.run("A", "rules/nfreaim-rules", "show", "--native-accept", "inet:router:forward", check=False)
    assert "not installed: inet:router:forward" in shown.stdout, "another rule stands before it"
    reload(lab)
    assert daemon.stop() == 0
    assert native(lab) == before


def test_chains_that_are_not_named_are_left_alone(lab: Lab) -> None:
    reload(lab, LATE)
    before = native(lab)
    daemon = run_daemon(lab)
    assert native(lab) == before
    reload(lab, LATE)
    daemon.wait_log("drops the connections of pinholes")
    assert daemon.stop() == 0
    assert native(lab) == before


def test_a_chain_that_comes_later_and_one_that_belongs_to_a_program(lab: Lab) -> None:
    reload(lab)
    owner = subprocess.Popen(lab.command("A", "nft", "-i"), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        assert owner.stdin is not None
        owner.stdin.write(OWNED.encode())
        owner.stdin.flush()
        eventually(lambda: "table inet mine" in native(lab))
        daemon = run_daemon(lab, "inet late forward", "inet mine forward")
        log = daemon.log_text()
        assert "there is no chain inet late forward; remedy: load the ruleset that has it" in log
        assert "the table of chain inet mine forward belongs to a running program (flags owner)" in log
        lab.run("A", "nft", "-f", "-", stdin=LATE)
        eventually(lambda: accepted(lab, "inet late forward"))
        settings = lab.log_file("check").with_suffix(".toml")
        settings.write_text('native_accept = ["inet mine forward", "inet gone forward"]\n')
        told = nfreaim(lab, "A", "check", "--config", str(settings), "--lan", "lan", "--wan", "wan")
        assert "native_accept names nftables chain inet gone forward, which does not exist" in told
        assert "native_accept names nftables chain inet mine forward, whose table takes no rules" in told
        assert "which alone can change it: have that accept" in told
        assert daemon.stop() == 0
        assert "native_accept" not in native(lab)
    finally:
        owner.kill()
        owner.communicate()
        lab.run("A", "nft", "flush", "ruleset")


def test_rules_of_a_configuration_that_names_a_chain_no_longer(lab: Lab) -> None:
    """The rules stay when the daemon ends, where they were installed before it; the accept goes with them."""
    reload(lab)
    before = native(lab)
    installed = ("rules/nfreaim-rules", "install", "--lan", "lan", "--wan", "wan", "--protocol", "oscar:5190")
    lab.run("A", *installed)
    assert run_daemon(lab, FORWARD).stop() == 0
    assert accepted(lab), "connections through pinholes go on while no daemon runs"
    lab.run("A", *installed)
    assert accepted(lab), "an install that says nothing of native chains changes none"
    assert run_daemon(lab).stop() == 0
    assert native(lab) == before
    assert run_daemon(lab, FORWARD).stop() == 0
    lab.run("A", sys.executable, "-m", "nfreaim", "rules", "remove")
    assert native(lab) == before
