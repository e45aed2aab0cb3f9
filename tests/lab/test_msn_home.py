"""An MSN server behind router A, or on it: who is outside talks to who is inside, and files come directly."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.lab import home
from tests.lab.inhabitants import Inhabitants
from tests.lab.msn_client import MSN4, OUTSIDE, PURPLE, MsnClient
from tests.lab.msn_server import NS_PORT, SB_PORT, MsnServer
from tests.lab.msn_talk import Kind
from tests.lab.net import ADDRESS, LAN, WAN, Lab
from tests.lab.scene import Scene

PAIRS = (("alice", "bob"), ("bob", "alice"), ("alice", "carol"), ("carol", "alice"), ("alice", "amy"))
HOSTS = ("alice", "amy", "bob", "carol")
INSIDE = ("alice", "amy")
KINDS = {"msn4": MSN4, "purple": PURPLE, "outside": OUTSIDE}
SETTINGS = 'protocols = ["oscar", "msn"]\n'
SIZE = 5000


@contextmanager
def network(*routers: str) -> Iterator[Scene]:
    """Both routers' firewalls as the operator wants them, when nfreaim starts on *routers*."""
    with Lab("legacy", "nft", home_server=True) as lab:
        made = Scene(lab)
        yield made
        for router in routers:
            assert made.daemons[router].stop() == 0
            assert "failed_flows" not in made.daemons[router].log_text()


def started(made: Scene, *routers: str, settings: str = SETTINGS) -> None:
    """nfreaim runs on these routers."""
    for router in routers:
        made.restart(router, settings, wait=False)
    for daemon in made.daemons.values():
        daemon.wait_ready()


def everybody(here: Inhabitants, kind: Kind, near: str, far: str = WAN["A"]) -> dict[str, MsnClient]:
    """A client of this kind on every host; those inside know the server by another address."""
    clients = {host: MsnClient(here, host, kind, f"{host}-{kind.dialects[0]}") for host in HOSTS}
    for host, client in clients.items():
        client.sign_on(f"{near if host in INSIDE else far}:{NS_PORT}")
    return clients


def all_directly(clients: dict[str, MsnClient]) -> None:
    """Everybody talks to everybody, and files take no other way than between the two hosts."""
    offers = {pair: clients[pair[0]].offer(clients[pair[1]], os.urandom(SIZE)) for pair in PAIRS}
    for sender, receiver in PAIRS:
        said = clients[sender].says(clients[receiver], f"{sender} to {receiver}")
        assert said.ok, (sender, receiver, said)
    outcomes = {pair: offer.result(60.0) for pair, offer in offers.items()}
    assert {pair: one for pair, one in outcomes.items() if one.way != "direct"} == {}
    assert outcomes["alice", "amy"].dialled.startswith("10.0.0.")
    assert [one.me.complaints for one in clients.values()] == [[]] * len(HOSTS)


@pytest.fixture(scope="module")
def at_home() -> Iterator[tuple[Scene, MsnServer]]:
    with network("A", "B") as made:
        for port in (NS_PORT, SB_PORT):
            home.forward(made.lab, port=port)
        started(made, "A", "B")
        yield made, MsnServer(Inhabitants(made.lab), "hsrv", home.HOME)


@pytest.mark.parametrize("kind", KINDS)
def test_everybody_reaches_everybody(at_home: tuple[Scene, MsnServer], kind: str) -> None:
    made, server = at_home
    all_directly(everybody(server.here, KINDS[kind], home.HOME))
    assert server.dropped == []
    told = {f"msn: pinhole opened: {WAN['A']}:", f"-> {ADDRESS['alice']}:"}
    assert all(word in made.daemon.log_text() for word in told)


def test_a_server_on_the_router_and_one_with_a_name_and_another_port_outside() -> None:
    with network("A") as made:
        for port in (NS_PORT, SB_PORT):
            home.open_port(made.lab, port=port)
        # A second server, behind the router, whose switchboards stand on another port outside.
        outside, inside = home.shrinking(made.lab)
        home.forward(made.lab, outside=outside, inside=inside, port=NS_PORT)
        home.forward(made.lab, outside=outside, inside=inside, port=8864, to_port=SB_PORT)
        started(made, "A", settings=f'{SETTINGS}server_names = ["msn.example.test"]\n')
        here = Inhabitants(made.lab)
        MsnServer(here, "A", "0.0.0.0", announced=LAN["A"])
        clients = everybody(here, PURPLE, LAN["A"])
        for sender, receiver in (("alice", "bob"), ("bob", "alice"), ("carol", "alice"), ("alice", "amy")):
            outcome = clients[sender].send(clients[receiver], os.urandom(SIZE))
            assert outcome.way == "direct", (sender, receiver, outcome)
        here.names["msn.example.test"] = inside  # which is out of reach for those outside
        MsnServer(here, "hsrv", inside, announced="msn.example.test")
        clients = {host: MsnClient(here, host, MSN4, f"{host}-4") for host in ("alice", "bob")}
        clients["alice"].sign_on(f"{inside}:{NS_PORT}")
        clients["bob"].sign_on(f"{outside}:{NS_PORT}")
        for sender, receiver in (("alice", "bob"), ("bob", "alice")):
            assert clients[sender].says(clients[receiver], f"from {sender}").ok
