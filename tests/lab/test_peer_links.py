"""Peer links through nfreaim on both routers: every pair, at the first attempt, beside each firewall."""

from __future__ import annotations

import re

import pytest

from tests.lab.net import ADDRESS, SECOND_SERVER, Variant
from tests.lab.scene import Scene, announced, nfreaim, scene
from tests.lab.standin import Client, Transfer

PAIRS = (("bob", "alice"), ("alice", "bob"), ("alice", "carol"), ("carol", "alice"), ("alice", "amy"))
HOSTS = ("alice", "amy", "bob", "carol")
BOTH_KINDS = ("file", "im")
# What conntrack finds no place for, before any firewall can drop it; and calls that came when there was no
# pinhole, or not yet.
UNWANTED = (
    "-t mangle -A PREROUTING -m conntrack --ctstate INVALID",
    "-t mangle -A INPUT -i wan -p tcp --syn",
)


def count_unwanted(scene: Scene) -> list[int]:
    """Packets that these rules have met, by router and rule."""
    counts = []
    for router in ("A", "B"):
        saved = scene.lab.run(router, "iptables-legacy-save", "-c", "-t", "mangle").stdout
        watching = [line for line in saved.splitlines() if "NFREAIM" not in line]
        counts += [int(line[1:].split(":")[0]) for line in watching if "INVALID" in line or "SYN" in line]
    return counts


def accept_pinholes_natively(scene: Scene, router: str) -> None:
    """Do what `nfreaim check` says."""
    said = nfreaim(scene.lab, router, "check", "--lan", "lan", "--wan", "wan")
    found = re.search(r"FAIL nftables chain \S+ router forward drops .* -> (nft .*)", said)
    assert found, said
    scene.lab.run(router, "sh", "-c", found[1])
    assert "no native nftables chain stops pinholes" in nfreaim(
        scene.lab, router, "check", "--lan", "lan", "--wan", "wan"
    )


@pytest.mark.parametrize("variant", ["legacy", "nft", "native-nft"])
def test_every_pair_connects_at_the_first_attempt(variant: Variant) -> None:
    combinations = [("oos", "libpurple"), ("aol", "winaim")]
    if variant == "legacy":
        combinations += [("oos", "winaim"), ("aol", "libpurple")]
    with scene("A", "B", variants=(variant, variant)) as made:
        lab = made.lab
        for router in ("A", "B"):
            for rule in UNWANTED:
                lab.run(router, "iptables-legacy", *rule.split())
            if variant == "native-nft":
                accept_pinholes_natively(made, router)
        servers = {"oos": made.server(), "aol": made.server("aol", SECOND_SERVER, "whole")}
        clients: dict[tuple[str, str, str], Client] = {}
        for mode, profile in combinations:
            names = [(host, f"{host} {mode} {profile}") for host in HOSTS]
            found = made.clients(servers[mode], *names, profile=profile)
            clients |= {(host, mode, profile): one for host, one in zip(HOSTS, found, strict=True)}
        running = {
            (*pair, kind, mode, profile): Transfer(
                clients[pair[0], mode, profile], clients[pair[1], mode, profile], kind
            )
            for pair in PAIRS
            for kind in BOTH_KINDS
            for mode, profile in combinations
        }
        outcomes = {key: transfer.outcome() for key, transfer in running.items()}
        bad = {key: outcome for key, outcome in outcomes.items() if not outcome.first_attempt}
        assert not bad
        for key, outcome in outcomes.items():
            expected = ADDRESS["amy"] if key[1] == "amy" else None
            assert expected in (None, outcome.peer.split(":")[0]), (key, outcome)
        assert count_unwanted(made) == [0, 0, 0, 0]


def test_two_hosts_that_announce_the_same_port_are_both_reached() -> None:
    with scene() as made:
        server = made.server()
        alice, amy, bob, carol = made.clients(
            server, ("alice", "alice"), ("amy", "amy"), ("bob", "bob"), ("carol", "carol")
        )
        bob.call("policy", delay=0.5)
        carol.call("policy", delay=0.5)
        both = [Transfer(alice, bob, "file"), Transfer(amy, carol, "file")]
        outcomes = [transfer.outcome() for transfer in both]
        assert all(outcome.first_attempt for outcome in outcomes), outcomes
        pinholes = made.pinholes()
        assert {pinhole.inside for pinhole in pinholes} == {"10.0.0.5:5190", "10.0.0.6:5190"}
        assert len({pinhole.outside for pinhole in pinholes}) == 2
        ports = {announced(bob, both[0].cookie).number(5), announced(carol, both[1].cookie).number(5)}
        assert ports == {int(pinhole.outside.split(":")[1]) for pinhole in pinholes}
        assert 5190 in ports
        assert any(40000 <= port <= 40999 for port in ports), ports
