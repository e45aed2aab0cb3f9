"""The lab itself: it must behave as plain NAT does, or nothing that nfreaim does in it proves anything."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.lab import firewall
from tests.lab.net import SECOND_SERVER, Lab, LabError, lab_available
from tests.lab.standin import Client, Outcome, Server, Transfer

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(lab_available() is not None, reason=lab_available() or ""),
]

PAIRS = (("bob", "alice"), ("alice", "bob"), ("alice", "carol"), ("carol", "alice"), ("alice", "amy"))
HOSTS = ("alice", "amy", "bob", "carol")
MODES = {"oos": "libpurple", "aol": "winaim"}
KINDS = ("file", "im")
# What stock clients do through NAT. The "aol" server leaves 0x0003 alone: amy can dial alice on the LAN.
EXPECTED = {
    ("bob", "alice"): {"oos": "direct", "aol": "direct"},
    ("alice", "bob"): {"oos": "redirect", "aol": "redirect"},
    ("alice", "carol"): {"oos": "fails", "aol": "fails"},
    ("carol", "alice"): {"oos": "fails", "aol": "fails"},
    ("alice", "amy"): {"oos": "fails", "aol": "direct"},
}


def signed_on(lab: Lab, modes: tuple[str, ...] = ("oos",)) -> dict[tuple[str, str], Client]:
    """A server of each mode and a client on every host at each of them."""
    servers = {"oos": Server(lab)}
    if "aol" in modes:
        servers["aol"] = Server(lab, "aol", {"name": "random", "seed": 7}, SECOND_SERVER)
    clients = {
        (host, mode): Client(lab, host, f"{host} {mode}", MODES[mode]) for mode in modes for host in HOSTS
    }
    for standin in (*servers.values(), *clients.values()):
        standin.wait_ready()
    for (_, mode), client in clients.items():
        client.sign_on(servers[mode], services=True)
    return clients


def left_behind() -> set[str]:
    """Namespaces and temporary directories with this process's prefix."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    names = {line.split()[0] for line in listed.splitlines() if line.strip()}
    return {name for name in names | {path.name for path in Path("/tmp").glob("nr*")} if name.startswith(OWN)}


OWN = Lab().prefix.rsplit("x", 1)[0] + "x"


@pytest.fixture(scope="module")
def plain_outcomes() -> dict[tuple[str, str, str, str], Outcome]:
    """Every pair, both kinds and both server modes, side by side in one lab."""
    with Lab("legacy", "nft") as lab:
        clients = signed_on(lab, ("oos", "aol"))
        running = {
            (*pair, kind, mode): Transfer(clients[pair[0], mode], clients[pair[1], mode], kind)
            for pair in PAIRS
            for kind in KINDS
            for mode in MODES
        }
        return {key: transfer.outcome() for key, transfer in running.items()}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_plain_nat_gives_what_stock_software_gets(
    pair: tuple[str, str], kind: str, mode: str, plain_outcomes: dict[tuple[str, str, str, str], Outcome]
) -> None:
    outcome = plain_outcomes[*pair, kind, mode]
    assert (outcome.attempt if outcome.ok else "fails") == EXPECTED[pair][mode], outcome


@pytest.mark.parametrize("variant", ["nft", "native-nft"])
def test_other_firewall_dialects_do_the_same_nat(variant: str) -> None:
    with Lab(variant, variant) as lab:  # type: ignore[arg-type]
        clients = signed_on(lab)
        for kind in KINDS:
            into = Transfer(clients["bob", "oos"], clients["alice", "oos"], kind).outcome()
            hairpin = Transfer(clients["alice", "oos"], clients["amy", "oos"], kind).outcome()
            assert into.first_attempt, into
            assert into.peer.startswith("203.0.113.1:")
            assert not hairpin.ok, hairpin


CALL = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], 5190), 1)
except OSError as error:
    print(type(error).__name__)
"""


@pytest.mark.parametrize("variant", ["legacy", "nft", "native-nft"])
def test_unsolicited_calls_from_outside_get_no_answer(variant: str) -> None:
    calls = {
        ("bob", "203.0.113.1"): "TimeoutError",
        ("bob", "203.0.113.2"): "TimeoutError",
        ("bob", "10.0.0.5"): "TimeoutError",
        ("carol", "10.0.0.5"): "TimeoutError",
        ("amy", "203.0.113.1"): "ConnectionRefusedError",  # the router trusts its LAN and answers it
    }
    with Lab(variant, variant) as lab, ThreadPoolExecutor() as pool:  # type: ignore[arg-type]

        def call(node: str, address: str) -> str:
            return lab.run(node, sys.executable, "-c", CALL, address).stdout.strip()

        running = {key: pool.submit(call, *key) for key in calls}
        assert {key: future.result() for key, future in running.items()} == calls


def test_nothing_is_left_behind_after_exit_exception_and_failed_construction(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = left_behind()
    with Lab() as lab:
        process = lab.spawn("alice", "sleep", "1000")
        # a child that has escaped its parent
        lab.run("alice", "sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 </dev/null &")
        assert left_behind() > before
    assert process.poll() is not None
    assert left_behind() == before
    with pytest.raises(LabError, match="false"), Lab() as lab:  # noqa: PT012 - the body is what raises
        lab.spawn("A", "sh", "-c", "trap '' TERM; sleep 1000 & wait; wait")
        lab.run("A", "false")
    assert left_behind() == before
    monkeypatch.setitem(firewall.RULES, "legacy", "this is no ruleset\n")
    with pytest.raises(LabError), Lab():
        pass
    assert left_behind() == before


def test_labs_run_side_by_side_and_routers_have_their_own_run() -> None:
    with Lab() as one, Lab() as other:
        one.run("A", "touch", "/run/mark")
        assert one.run("A", "ls", "/run").stdout.split().count("mark") == 1
        for lab, node in ((one, "B"), (other, "A"), (one, "alice")):
            assert "mark" not in lab.run(node, "ls", "/run").stdout.split()
        assert not Path("/run/mark").exists()


@pytest.mark.parametrize("variant", ["legacy", "nft", "native-nft"])
def test_a_rule_or_set_more_is_seen_and_its_removal_too(variant: str) -> None:
    with Lab(variant) as lab:  # type: ignore[arg-type]
        before = lab.firewall_rules("A")
        for program in ("iptables-legacy", "iptables-nft"):
            rule = ("raw", "PREROUTING", "-p", "tcp", "-j", "ACCEPT")
            lab.run("A", program, "-t", rule[0], "-A", *rule[1:])
            assert lab.firewall_rules("A") != before, program
            lab.run("A", program, "-t", rule[0], "-D", *rule[1:])
            assert lab.firewall_rules("A") == before, program
        lab.run("A", "ipset", "create", "extra", "hash:net")
        assert lab.firewall_rules("A") != before
        lab.run("A", "ipset", "destroy", "extra")
        assert lab.firewall_rules("A") == before


COUNT = "-i lan -s 10.0.0.5 -d 203.0.113.9 -p tcp --dport 5190 -m length --length 53"


def test_a_proposal_byte_by_byte_crosses_the_router_in_as_many_segments() -> None:
    """52 bytes of headers with timestamps and one of data: the router counts each of them."""
    with Lab() as lab:
        clients = signed_on(lab)
        lab.run("A", "iptables-legacy", "-t", "mangle", "-A", "PREROUTING", *COUNT.split())
        one_by_one = {"name": "bytes"}
        alice, amy = clients["alice", "oos"], clients["amy", "oos"]
        outcome = Transfer(alice, amy, "im", write=one_by_one).outcome()
        assert "connect" in outcome.reason
        listed = lab.run("A", "iptables-legacy", "-t", "mangle", "-nvxL", "PREROUTING").stdout.splitlines()
        assert int(listed[2].split()[0]) >= 95, "the FLAP has 98 bytes for a name of seven"
