"""Networks and interfaces that come and go while the daemon runs: served within seconds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.lab import kernel_sets
from tests.lab.home_talk import SECOND, second_network
from tests.lab.net import ADDRESS, CORE, Daemon, Lab
from tests.lab.scene import eventually
from tests.lab.standin import Client, Server, Transfer


def networks(lab: Lab) -> set[str]:
    """The inside networks, as the kernel's set holds them."""
    return set(kernel_sets.entries(lab, "A", "nfreaim_lan"))


def rename(lab: Lab, old: str, new: str) -> None:
    """An interface goes, and comes back under another name with the same addresses and routes."""
    lab.run("A", "ip", "link", "set", old, "down")
    lab.run("A", "ip", "link", "set", old, "name", new)
    lab.run("A", "ip", "link", "set", new, "up")


def gateway(lab: Lab, interface: str) -> None:
    """Router A's way to the Internet leads by this interface."""
    lab.run("A", "ip", "route", "replace", "default", "via", CORE, "dev", interface)


@contextmanager
def offering(lab: Lab, *hosts: str) -> Iterator[list[Client]]:
    """A server outside, bob, and clients on these hosts who are signed on."""
    server = Server(lab)
    clients = [Client(lab, host, f"{host}1") for host in (*hosts, "bob")]
    for standin in (server, *clients):
        standin.wait_ready()
    for client in clients:
        client.sign_on(server)
    yield clients
    for standin in (*clients, server):
        standin.stop()


def serves(lab: Lab, host: str) -> None:
    with offering(lab, host) as (client, bob):
        outcome = Transfer(client, bob, "file").outcome()
        assert outcome.first_attempt, outcome.reason


@pytest.mark.parametrize("lan", ["lan2", "lan+"])
def test_a_lan_that_comes_after_the_daemon(lan: str) -> None:
    with Lab() as lab:
        daemon: Daemon = lab.start_alg("A", ("--lan", lan))
        assert networks(lab) == {"10.0.0.0/24"}
        second_network(lab, "alice")
        lab.run("A", "iptables-legacy", "-I", "FORWARD", "-i", "lan2", "-j", "ACCEPT")
        eventually(lambda: networks(lab) == {"10.0.0.0/24", "10.0.1.0/24"})
        daemon.wait_log("inside network 10.0.1.0/24 on lan2 came")
        serves(lab, "alice")
        assert daemon.stop() == 0


def test_a_second_network_on_an_interface_comes_and_goes() -> None:
    with Lab() as lab:
        daemon = lab.start_alg("A")
        lab.run("A", "ip", "address", "add", "10.0.1.1/24", "dev", "lan")
        lab.run("alice", "ip", "address", "flush", "dev", "eth0")
        lab.run("alice", "ip", "address", "add", f"{SECOND['alice']}/24", "dev", "eth0")
        lab.run("alice", "ip", "route", "add", "default", "via", "10.0.1.1")
        eventually(lambda: "10.0.1.0/24" in networks(lab))
        serves(lab, "alice")
        lab.run("A", "ip", "address", "del", "10.0.1.1/24", "dev", "lan")
        eventually(lambda: networks(lab) == {"10.0.0.0/24"})
        daemon.wait_log("inside network 10.0.1.0/24 is gone")
        assert daemon.stop() == 0


def test_the_only_lan_goes_and_nobody_is_accused() -> None:
    with Lab() as lab:
        daemon = lab.start_alg("A")
        lab.run("A", "ip", "link", "set", "lan", "down")
        eventually(lambda: networks(lab) == set())
        lab.run("A", "sleep", "5")  # the watch looks every other second
        lab.run("A", "ip", "link", "set", "lan", "up")
        eventually(lambda: networks(lab) == {"10.0.0.0/24"})
        serves(lab, "amy")
        assert "somebody else changed our rules" not in daemon.log_text()
        assert daemon.stop() == 0


def test_a_link_that_is_down_for_a_moment_stays_served() -> None:
    with Lab() as lab:
        daemon = lab.start_alg("A")
        for _ in range(3):
            lab.run("A", "ip", "link", "set", "lan", "down")
            lab.run("A", "sleep", "1.2")  # longer than the pause between two looks
            assert networks(lab) == {"10.0.0.0/24"}
            lab.run("A", "ip", "link", "set", "lan", "up")
        serves(lab, "amy")
        assert "inside network" not in daemon.log_text()
        assert daemon.stop() == 0


def test_entries_of_others_in_the_set_do_not_stay() -> None:
    with Lab() as lab:
        daemon = lab.start_alg("A")
        lab.run("A", "sh", "-c", kernel_sets.change("add", "nfreaim_lan", "203.0.113.0/24"))
        lab.run("A", "ip", "address", "add", "10.0.2.1/24", "dev", "lan")
        eventually(lambda: networks(lab) == {"10.0.0.0/24", "10.0.2.0/24"})
        assert daemon.stop() == 0


def test_an_uplink_that_comes_back_under_another_name() -> None:
    with Lab() as lab:
        forward = "FORWARD -o ppp+ -j ACCEPT", "FORWARD -i ppp+ -m conntrack --ctstate ESTABLISHED -j ACCEPT"
        for rule in (*(f"-I {it}" for it in forward), "-t nat -A POSTROUTING -o ppp+ -j MASQUERADE"):
            lab.run("A", "iptables-legacy", *rule.split())
        rename(lab, "wan", "ppp0")
        gateway(lab, "ppp0")
        daemon = lab.start_alg("A", ("--wan", "ppp+"))
        serves(lab, "alice")
        rename(lab, "ppp0", "ppp1")
        gateway(lab, "ppp1")
        serves(lab, "amy")
        assert ADDRESS["amy"] in daemon.log_text()
        assert daemon.stop() == 0
