"""nfreaim beside programs that use packet marks and connmarks: policy routing, a VPN, containers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.lab import home, impair, kernel_sets, marking
from tests.lab.flows import home_flow
from tests.lab.net import ADDRESS, WAN, Lab
from tests.lab.scene import INSTALL, Scene, announced, eventually, nfreaim, start
from tests.lab.standin import Transfer
from tests.lab.stream import Plan
from tests.oscar import rendezvous as rdv

UPLINKS = 'lan = ["lan"]\nwan = ["wan", "wan2"]\n'


@contextmanager
def two_uplinks(rules: str, fwmark: str, settings: str = "") -> Iterator[Scene]:
    """A router with a second uplink for what others mark so."""
    with Lab() as lab:
        made = Scene(lab)
        marking.second_uplink(lab)
        marking.load(lab, rules)
        marking.lead(lab, fwmark)
        path = lab.log_file("settings").with_suffix(".toml")
        path.write_text(UPLINKS + settings)
        made.daemons["A"] = lab.start_alg("A", ("--wan", "wan2", "--config", str(path)))
        yield made


def transfers_work(made: Scene, outside: str) -> None:
    """Alice's session lives through proposals that are edited both ways, one of them sent twice."""
    server = made.server("aol", write="whole")
    alice, carol, bob = made.clients(server, ("alice", "alice"), ("carol", "carol"), ("bob", "bob"))
    for kind in ("file", "im"):
        transfer = Transfer(alice, carol, kind)
        outcome = transfer.outcome()
        assert outcome.first_attempt, outcome
        assert announced(carol, transfer.cookie).address(rdv.RDV_IP) == outside
    # Of a proposal the first copy is lost behind the router, and comes again.
    lose = "-t mangle -A POSTROUTING -p tcp --dport 5190 -m length --length 200:1500 -m limit"
    made.lab.run("A", "iptables-legacy", *f"{lose} --limit 1/hour --limit-burst 1 -j DROP".split())
    outcome = Transfer(alice, bob, "file").outcome()
    assert outcome.first_attempt, outcome
    outcome = Transfer(bob, alice, "file").outcome()
    assert outcome.ok, outcome


@pytest.mark.parametrize(
    ("rules", "fwmark", "mark"),
    [
        (marking.MASKED, "0x10000/0xff0000", 0x10000),
        (marking.MASKED.replace("0x10000/", "0x40000/"), "0x40000/0xff0000", 0x40000),
        (marking.MASKLESS, "0x1", 1),
    ],
    ids=["masks", "other-mask", "no-masks"],
)
def test_policy_routing_by_marks_takes_its_uplink_for_session_and_pinholes(
    rules: str, fwmark: str, mark: int
) -> None:
    with two_uplinks(rules, fwmark) as made:
        marking.watch_marks(made.lab, "wan2", mark)
        transfers_work(made, marking.WAN2)
        right, other = marking.watched(made.lab)
        assert right > 20
        assert other == 0, "each packet that left there had exactly the mark of the others"
        assert not [line for line in made.daemon.log_text().splitlines() if " ERROR " in line]


def test_packets_that_were_edited_are_routed_as_all_others() -> None:
    """An uplink for one bit of any mark in 0xff0000: nothing of ours goes there."""
    with two_uplinks("*mangle\nCOMMIT\n", "0x10000/0x10000") as made:
        for bit in (0x20000, 0x40000, 0x80000, 0x100000, 0x200000, 0x400000, 0x800000):
            marking.lead(made.lab, f"{bit:#x}/{bit:#x}")
        transfers_work(made, WAN["A"])
        sent = made.lab.run("A", "cat", "/sys/class/net/wan2/statistics/tx_packets", check=False).stdout
        assert not [line for line in sent.splitlines() if int(line) > 20]


@pytest.mark.parametrize(
    ("others", "routes"),
    [(marking.CALICO, False), (marking.TAILSCALE, True)],
    ids=["calico", "tailscale"],
)
def test_beside_programs_with_marks_of_their_own(others: str, routes: bool) -> None:
    with Lab(home_server=True) as lab:
        marking.load(lab, others)
        if routes:
            marking.tailscale_routes(lab)
            marking.lead(lab, "0x40000/0xff0000", "unreachable", 5260)
        home.forward(lab)
        made = Scene(lab)
        start(lab, "A")
        plan = Plan(frames=60, pause=0.01, largest=300)
        flow = home_flow(lab, server_plan=Plan(frames=60, redirects=10, pause=0.01), client_plan=plan)
        flow.exact()
        lab.run("A", "iptables-legacy", "-t", "nat", "-F", "PREROUTING")
        alice, carol = made.clients(made.server("aol", write="whole"), ("alice", "alice"), ("carol", "carol"))
        for kind in ("file", "im"):
            outcome = Transfer(alice, carol, kind).outcome()
            assert outcome.first_attempt, outcome


def test_own_resets_reach_both_ends_where_marked_packets_are_unreachable() -> None:
    with Lab(home_server=True) as lab:
        for bit in (0x10000, 0x40000, 0x80000, 0x100000):
            marking.lead(lab, f"{bit:#x}/{bit:#x}", "unreachable")
        home.forward(lab)
        lab.run("A", *INSTALL)
        daemon = lab.start_alg("A")
        plan = Plan(frames=100, pause=0.02, largest=300)
        flow = home_flow(lab, server_plan=Plan(frames=100, redirects=20, pause=0.02), client_plan=plan)
        eventually(lambda: kernel_sets.entries(lab, "A", "nfreaim_skew"))
        daemon.kill()
        lab.run("A", "sh", "-c", "rm /run/nfreaim/flows/*")
        lab.start_alg("A")
        ended = {end["error"] for end in flow.results(20)}
        assert ended <= {"ConnectionResetError", "BrokenPipeError"}


@pytest.mark.parametrize("bridged", [0, 1], ids=["bridge", "bridge-calls-iptables"])
def test_joined_packets_across_a_bridge_are_translated_once(bridged: int) -> None:
    """Where bridges call iptables, all but the first segment of a joined packet pass PREROUTING twice."""
    with Lab(home_server=True) as lab:
        lab.run("A", "sysctl", "-qw", f"net.bridge.bridge-nf-call-iptables={bridged}")
        home.forward(lab)
        impair.count_invalid(lab)
        lab.start_alg("A")
        serving = Plan(frames=2000, redirects=60, write="coalesced")
        home_flow(lab, server_plan=serving, client_plan=Plan(seed=2, frames=400)).exact()
        assert impair.invalid(lab) == 0


MASKLESS_SAVE = "*mangle\n-A POSTROUTING -j CONNMARK --save-mark\nCOMMIT\n"


def test_beside_a_rule_that_writes_over_connmarks_nothing_is_announced_until_it_has_a_mask() -> None:
    with Lab() as lab:
        made = Scene(lab)
        marking.load(lab, MASKLESS_SAVE)
        daemon = made.restart()
        alice, carol = made.clients(made.server("aol", write="whole"), ("alice", "alice"), ("carol", "carol"))
        transfer = Transfer(alice, carol, "file", patience=1)
        assert announced(carol, transfer.cookie).address(rdv.RDV_IP) == ADDRESS["alice"]
        assert made.pinholes() == set()
        assert "no pinhole is opened, because none could work: iptables-legacy mangle" in daemon.log_text()
        told = nfreaim(lab, "A", "check", "--lan", "lan", "--wan", "wan")
        (line,) = [line for line in told.splitlines() if "no pinhole can work" in line]
        assert "--save-mark" in line
        assert " -> give it a mask" in line
        number = 1 if kernel_sets.NFT else 2  # behind ours, if that is in the same chain
        masked = f"POSTROUTING {number} -j CONNMARK --save-mark --mask 0xff"
        lab.run("A", *f"iptables-legacy -t mangle -R {masked}".split())
        lab.run("A", "iptables-legacy-save")
        saved = lab.run("A", "iptables-legacy-save", "-t", "mangle").stdout
        assert "--nfmask 0xff --ctmask 0xff" in saved
        assert "--ctmask 0xffffffff" not in saved
        daemon.wait_log("pinholes are opened")
        transfer = Transfer(alice, carol, "im")
        outcome = transfer.outcome()
        assert outcome.first_attempt, outcome


def test_check_names_collisions_and_the_masks_that_it_names_are_free() -> None:
    with Lab() as lab:
        marking.load(lab, "*mangle\n-A FORWARD -p udp -j MARK --set-xmark 0x10000000/0x30000000\nCOMMIT\n")
        marking.lead(lab, "0x4000000/0x4000000")
        words = ("check", "--lan", "lan", "--wan", "wan")
        told = [line for line in nfreaim(lab, "A", *words).splitlines() if "used by others" in line]
        assert len(told) == 2, told
        assert "connmark_mask: bits 0x4000000" in told[0]
        assert "fwmark 0x4000000/0x4000000 lookup 101" in told[0]
        assert "mark_mask: bits 0x10000000" in told[1]
        remedy = told[0].partition("in nfreaim.toml ")[2].partition(", which are free")[0]
        masks = remedy.replace(" and ", "\n")
        path = lab.log_file("settings").with_suffix(".toml")
        path.write_text(masks)
        again = nfreaim(lab, "A", *words, "--config", str(path))
        assert "used by others" not in again
        assert "ok   marks: nobody else uses" in again
        # The rules are installed with them, and a daemon with others is told so.
        lab.run("A", *"rules/nfreaim-rules install --lan lan --wan wan".split(), *options(masks))
        alg = lab.start_alg("A", ("--config", str(path)))
        assert alg.stop() == 0
        other = lab.start_alg("A", wait=False)
        assert other.process.wait(20) == 1
        assert "the installed rules are for mark_mask =" in other.log_text()
        assert "install them again with the same settings" in other.log_text()


def options(masks: str) -> list[str]:
    """Two lines of the settings as options of the rules."""
    pairs = [line.split(" = ") for line in masks.splitlines()]
    return [word for key, value in pairs for word in (f"--{key.replace('_', '-')}", value)]


def test_transfers_work_with_masks_of_the_operators_choice() -> None:
    with two_uplinks(marking.MASKED, "0x10000/0xff0000", "mark_mask = 0x40\nconnmark_mask = 0xf00\n") as made:
        saved = made.lab.run("A", "iptables-legacy-save").stdout
        assert "--mark 0x200/0x200" in saved
        transfers_work(made, marking.WAN2)
