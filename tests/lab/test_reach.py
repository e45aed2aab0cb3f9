"""What peers can reach: another router in front, a provider's port set, a routed block, a name that moves."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pytest

from tests.lab import home, impair
from tests.lab.front import BETWEEN, put_in_front
from tests.lab.net import ADDRESS, WAN, Lab
from tests.lab.scene import Scene, announced, eventually, nfreaim, scene, start
from tests.lab.standin import Client, Server, Transfer
from tests.oscar import rendezvous as rdv

SENT = f'outside_address = "{WAN["A"]}"\n'
RANGES = ["4928-4943", "9024-9039"]
BLOCK = "198.51.100.66"
NAME = "router-a.home.example"
PAIRS = (("bob", "alice"), ("alice", "bob"), ("carol", "alice"), ("alice", "carol"), ("alice", "amy"))


def at_home(lab: Lab, outside: str = WAN["A"]) -> dict[str, Client]:
    """Clients on every host, signed on at the server at home."""
    server = Server(lab, address=home.HOME, node="hsrv")
    clients = {host: Client(lab, host, f"{host}1") for host in ("alice", "amy", "bob", "carol")}
    server.wait_ready()
    for host, client in clients.items():
        client.wait_ready()
        inside = host in ("alice", "amy")
        client.sign_on(f"{home.HOME if inside else outside}:5190", services=True)
    return clients


def test_behind_a_router_that_forwards_everything_a_server_at_home_works_for_all() -> None:
    with Lab(home_server=True) as lab:
        put_in_front(lab)
        home.forward(lab, outside=BETWEEN)
        start(lab, "A", SENT)
        lab.start_alg("B")
        impair.count_invalid(lab)
        clients = at_home(lab)
        running = {
            (*pair, kind): Transfer(clients[pair[0]], clients[pair[1]], kind)
            for pair in PAIRS
            for kind in ("file", "im")
        }
        outcomes = {key: transfer.outcome() for key, transfer in running.items()}
        assert {key: one.reason for key, one in outcomes.items() if not one.first_attempt} == {}
        assert outcomes["alice", "amy", "file"].peer.startswith(ADDRESS["amy"])
        assert impair.invalid(lab) == 0


def test_behind_a_router_whose_address_nobody_said_nothing_is_announced_and_the_remedy_named() -> None:
    with Lab(home_server=True) as lab:
        put_in_front(lab)
        home.forward(lab, outside=BETWEEN)
        daemon = lab.start_alg("A")
        server = Server(lab, address=home.HOME, node="hsrv")
        other = Server(lab)
        alice, bob = Client(lab, "alice", "alice1"), Client(lab, "bob", "bob1")
        for one in (server, other, alice, bob):
            one.wait_ready()
        bob.start("sign_on", server=f"{WAN['A']}:5190")
        daemon.wait_log(f"left alone: peers cannot reach outside address {BETWEEN} (private); remedy: ")
        alice.sign_on(other)
        bob = Client(lab, "bob", "bob2")
        bob.wait_ready()
        bob.sign_on(other)
        offer = Transfer(alice, bob, "file", patience=1)
        assert announced(bob, offer.cookie).address(rdv.RDV_IP) == ADDRESS["alice"]
        assert "set outside_address to its public address" in daemon.log_text()
        assert "pinhole opened" not in daemon.log_text()


@pytest.mark.parametrize(("own", "kind"), [("192.0.0.2", "DS-Lite or 464XLAT"), ("100.64.0.2", "carrier")])
def test_an_address_of_the_providers_translator_is_not_announced(own: str, kind: str) -> None:
    with Lab() as lab:
        put_in_front(lab, own, own[:-1] + "1", forward=False)
        made = Scene(lab, {"A": lab.start_alg("A")})
        alice, bob = made.clients(made.server(), ("alice", "alice"), ("bob", "bob"))
        offer = Transfer(alice, bob, "file", patience=1)
        assert announced(bob, offer.cookie).address(rdv.RDV_IP) == ADDRESS["alice"]
        log = made.daemon.log_text()
        assert f"peers cannot reach outside address {own} ({kind}" in log
        assert "remedy: ask the provider for a public IPv4 address" in log
        assert "pinhole opened" not in log
        told = nfreaim(lab, "A", "check", "--lan", "lan", "--wan", "wan")
        assert f"warn outside address {own} on wan is {kind}" in told


def test_of_a_port_set_that_alone_arrives_no_other_port_is_announced() -> None:
    with scene("A", "B", settings=f"[pinholes]\nports = {RANGES}\nstrict = true\n") as made:
        # As a provider does: nothing else of the address belongs to this router.
        only = ",".join(RANGES).replace("-", ":")
        drop = f"-t raw -I PREROUTING -i wan -p tcp --syn -m multiport ! --dports {only} -j DROP"
        made.lab.run("A", "iptables-legacy", *drop.split())
        alice, bob, carol = made.clients(
            made.server(), ("alice", "alice", 5200), ("bob", "bob"), ("carol", "carol")
        )
        for peer in (bob, carol):
            assert Transfer(alice, peer, "file").outcome().first_attempt
            assert Transfer(alice, peer, "im").outcome().first_attempt
        opened = [line for line in made.daemon.log_text().splitlines() if "pinhole opened" in line]
        ports = {int(line.split(f"{WAN['A']}:")[1].split()[0]) for line in opened}
        assert ports
        assert ports <= {*range(4928, 4944), *range(9024, 9040)}


@pytest.mark.parametrize("variant", ["legacy", "nft"])
def test_an_address_of_a_routed_block_that_stands_on_no_interface(variant: str) -> None:
    with scene("A", "B", variants=(variant, "legacy")) as made:  # type: ignore[arg-type]
        lab = made.lab
        lab.run("inet", *f"ip route add {BLOCK}/32 via {WAN['A']}".split())
        snat = f"-t nat -I POSTROUTING -s {ADDRESS['alice']} -o wan -j SNAT --to-source {BLOCK}"
        lab.run("A", f"iptables-{variant}", *snat.split())
        alice, amy, bob, carol = made.clients(
            made.server(), ("alice", "alice", 5200), ("amy", "amy", 5200), ("bob", "bob"), ("carol", "carol")
        )
        for proposer, address in ((alice, BLOCK), (amy, WAN["A"])):
            for receiver in (bob, carol):
                transfer = Transfer(proposer, receiver, "file")
                assert transfer.outcome().first_attempt
                assert announced(receiver, transfer.cookie).address(rdv.RDV_IP) == address
        assert BLOCK not in lab.run("A", "ip", "-4", "address").stdout
        told = nfreaim(lab, "A", "check", "--lan", "lan", "--wan", "wan")
        assert f"ok   outside address {BLOCK}, which connections leave with and no interface has\n" in told


def test_forwards_leave_hosts_with_public_addresses_of_their_own_alone() -> None:
    """What the router only routes is no business of a forward, whose rules name no address."""
    forward = '[[forward]]\nhost = "10.0.0.5"\nports = "20000-20001"\n'
    with scene("A", settings=forward) as made:
        lab = made.lab
        lab.run("inet", *f"ip route add {BLOCK}/32 via {WAN['A']}".split())
        lab.run("A", *f"ip route add {BLOCK}/32 dev lan".split())
        lab.run("A", "iptables-legacy", *f"-A FORWARD -d {BLOCK} -j ACCEPT".split())
        lab.run("amy", *f"ip address add {BLOCK}/32 dev eth0".split())
        for node in ("alice", "amy"):
            lab.spawn(node, sys.executable, "-c", LISTEN, node)
        for address, host in ((WAN["A"], "alice"), (BLOCK, "amy")):
            eventually(partial(answers, lab, address, host))


def answers(lab: Lab, address: str, host: str) -> bool:
    return lab.run("bob", sys.executable, "-c", CALL, address).stdout == host


LISTEN = """
import socket, sys
listener = socket.create_server(("0.0.0.0", 20000))
while True:
    end, _ = listener.accept()
    end.sendall(sys.argv[1].encode())
    end.close()
"""
CALL = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], 20000), 2) as end:
        print(end.recv(100).decode(), end="")
except OSError as error:
    print(error, end="")
"""


def test_the_address_of_a_name_is_told_and_its_change_followed() -> None:
    with Lab() as lab:
        hosts = lab.dir / "hosts"
        named(hosts, WAN["A"])
        settings = lab.dir / "nfreaim.toml"
        settings.write_text(f'outside_address = "{NAME}"\n')
        log = lab.log_file("nfreaim-A")
        run = [sys.executable, "-m", "nfreaim", "run", "--lan", "lan", "--wan", "wan"]
        bound = ["sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"', str(hosts), *run]
        lab.spawn("A", *bound, "--config", str(settings), log=log)
        eventually(lambda: f"{NAME} stands for {WAN['A']}" in log.read_text())
        eventually(lambda: "ready" in log.read_text())
        made = Scene(lab)
        alice, bob = made.clients(made.server(), ("alice", "alice", 5200), ("bob", "bob"))
        transfer = Transfer(alice, bob, "file")
        assert transfer.outcome().first_attempt
        assert announced(bob, transfer.cookie).address(rdv.RDV_IP) == WAN["A"]
        named(hosts, BLOCK)
        eventually(lambda: f"{NAME} stands for {BLOCK}" in log.read_text(), 60)
        transfer = Transfer(alice, bob, "im", patience=1)
        assert announced(bob, transfer.cookie).address(rdv.RDV_IP) == BLOCK


def named(hosts: Path, address: str) -> None:
    """Let the machine's resolver say *address*; the file stays the same one, because it is mounted."""
    hosts.write_text(f"127.0.0.1 localhost\n{address} {NAME}\n")
