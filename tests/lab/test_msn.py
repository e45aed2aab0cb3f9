"""MSN's file transfers between clients of three generations, across two NAT routers.

A listener is reached if its own router serves it, if it is outside, or if both are on one LAN; else P2P takes
the switchboard after 5 s, and MSNFTP fails.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from tests.lab.inhabitants import Inhabitants
from tests.lab.msn_client import KINDS, MsnClient, Outcome
from tests.lab.msn_server import MsnServer
from tests.lab.net import BEHIND, SERVER, Lab
from tests.lab.scene import Scene

PAIRS = (("alice", "bob"), ("bob", "alice"), ("alice", "carol"), ("carol", "alice"), ("alice", "amy"))
HOSTS = ("alice", "amy", "bob", "carol")
SETTINGS = 'protocols = ["oscar", "msn"]\n'
SIZE = 5000
# Who listens when this kind sends a file to another client of its kind.
SENDER_LISTENS = {"msn4", "miranda", "deaf"}

Row = tuple[str, str, str]


@dataclass
class Found:
    """All outcomes of one network, by kind, sender and receiver; whether texts came; what was odd."""

    routers: tuple[str, ...]
    outcomes: dict[Row, Outcome]
    texts: dict[tuple[str, str], bool]
    odd: list[str]


def way(routers: tuple[str, ...], kind: str, sender: str, receiver: str) -> str:
    """How a file has to come: "direct", "switchboard", or "" for not at all."""
    listener, other = (sender, receiver) if kind in SENDER_LISTENS else (receiver, sender)
    router = BEHIND.get(listener)
    if router is None or router in routers or router == BEHIND.get(other):
        return "direct"
    return "switchboard" if KINDS[kind].p2p else ""


def rows(routers: tuple[str, ...]) -> list[Row]:
    """What is tried: everything but what would listen in vain for 15 s."""
    every = [(kind, *pair) for kind in KINDS for pair in PAIRS]
    return [row for row in every if row[0] != "deaf" or way(routers, *row) == "direct"]


def everything(lab: Lab, routers: tuple[str, ...]) -> Found:
    """Try all of it, side by side."""
    here = Inhabitants(lab)
    # By a name, as a real server does: then its usual port has to do.
    server = MsnServer(here, announced="m1.example.test")
    here.names["m1.example.test"] = SERVER
    clients = {
        (kind, host): MsnClient(here, host, KINDS[kind], f"{host}-{kind}") for kind in KINDS for host in HOSTS
    }
    for client in clients.values():
        client.sign_on(server)
    tried = rows(routers)
    with ThreadPoolExecutor(len(tried)) as pool:
        sent = {
            row: pool.submit(clients[row[0], row[1]].send, clients[row[0], row[2]], os.urandom(SIZE))
            for row in tried
        }
        # Between two generations, so that every dialect is read.
        said = {
            pair: pool.submit(clients["msn4", pair[0]].says, clients["purple", pair[1]], " to ".join(pair))
            for pair in PAIRS
        }
        outcomes = {row: future.result() for row, future in sent.items()}
        texts = {pair: future.result().ok for pair, future in said.items()}
    odd = [f"{one.me.mail}: {text}" for one in clients.values() for text in one.me.complaints]
    return Found(routers, outcomes, texts, odd + server.dropped + [repr(one) for one in here.failures])


@pytest.fixture(
    scope="module", params=[(), ("A",), ("B",), ("A", "B")], ids=["plain NAT", "on A", "on B", "on A and B"]
)
def found(request: pytest.FixtureRequest) -> Iterator[Found]:
    with Lab("legacy", "nft") as lab:
        made = Scene(lab)
        for router in request.param:
            made.restart(router, SETTINGS, wait=False)
        for daemon in made.daemons.values():
            daemon.wait_ready()
        yield everything(lab, request.param)
        for daemon in made.daemons.values():
            assert daemon.stop() == 0
            assert "failed_flows" not in daemon.log_text()


@pytest.mark.parametrize("kind", KINDS)
def test_files_come_by_the_way_that_is_open(found: Found, kind: str) -> None:
    outcomes = {row: outcome for row, outcome in found.outcomes.items() if row[0] == kind}
    assert outcomes
    for row, outcome in outcomes.items():
        assert outcome.way == way(found.routers, *row), (row, outcome)


def test_neighbours_stay_on_their_lan(found: Found) -> None:
    dialled = [one.dialled for row, one in found.outcomes.items() if row[1:] == ("alice", "amy")]
    assert len(dialled) == len(KINDS)
    assert [endpoint for endpoint in dialled if not endpoint.startswith("10.0.0.")] == []


def test_texts_come_and_nobody_receives_what_it_does_not_understand(found: Found) -> None:
    assert found.texts == dict.fromkeys(PAIRS, True)
    assert found.odd == []
