"""MSN's pinholes over time: their switchboard closes, their client leaves, the daemon is killed."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.lab.inhabitants import Inhabitants
from tests.lab.link import WriteMode
from tests.lab.msn_client import MIRANDA, MSN4, OUTSIDE, PURPLE, MsnClient
from tests.lab.msn_server import MsnServer
from tests.lab.msn_talk import Kind
from tests.lab.namespace import socket_in
from tests.lab.net import ADDRESS, WAN, Lab
from tests.lab.scene import Scene, SeenPinhole, eventually
from tests.msn.fields import Message
from tests.msn.msnftp import Endpoint, fields_of
from tests.msn.slp import Addresses, Slp

# It holds long, so that a slow machine changes nothing.
SETTINGS = 'protocols = ["oscar", "msn"]\nhold_ms = 200\n'
INSTALL = "rules/nfreaim-rules install --lan lan --wan wan --protocol oscar --protocol msn:1863,1864".split()
HOSTS = ("alice", "bob", "amy")
SIZE = 5000


class Place:
    """A network with nfreaim on router A, whose rules outlive it, and a server outside."""

    def __init__(self, lab: Lab) -> None:
        lab.run("A", *INSTALL)
        # An operator who refuses what comes unasked: then a port that is silent is seen to be.
        lab.run("A", *"iptables-legacy -A INPUT -i wan -p tcp -j REJECT --reject-with tcp-reset".split())
        self.made = Scene(lab)
        self.made.restart(settings=SETTINGS)
        self.here = Inhabitants(lab)
        # Nobody has named the port of the switchboards but the notification server.
        self.server = MsnServer(self.here, ports=(1863, 2864))
        self.clients: list[MsnClient] = []
        self._numbers = itertools.count(1)

    def next_number(self) -> int:
        """A number that is new."""
        return next(self._numbers)

    def client(
        self,
        node: str,
        kind: Kind,
        port: int = 0,
        write: WriteMode | None = None,
        server: MsnServer | None = None,
    ) -> MsnClient:
        """A client that is signed on, under a name of its own."""
        made = MsnClient(self.here, node, kind, f"{node}{len(self.clients)}", port)
        made.me.write = write or WriteMode()
        made.sign_on(server or self.server)
        self.clients.append(made)
        return made

    def sign_off(self) -> None:
        """Everybody leaves."""
        for client in self.clients:
            client.sign_off()
        self.server.close_boards()

    def dialled(self, port: int) -> str:
        """What bob gets who connects to that port of the router."""
        with socket_in(self.made.lab, "bob") as made:
            made.settimeout(1.0)
            try:
                made.connect((WAN["A"], port))
            except OSError as error:
                return type(error).__name__
            return "connected"


@pytest.fixture(scope="module")
def network() -> Iterator[Place]:
    with Lab() as lab:
        yield (made := Place(lab))
        assert made.made.daemon.stop() == 0
        assert "failed_flows" not in made.made.daemon.log_text()


@pytest.fixture
def place(network: Place) -> Iterator[Place]:
    """The network, in which nobody is signed on before or after a test."""
    yield network
    network.sign_off()
    network.server.write = WriteMode()


def test_peers_meet_though_their_switchboard_has_closed(place: Place) -> None:
    alice, bob = place.client("alice", PURPLE, 5500), place.client("bob", PURPLE)
    go = bob.waits()
    sending = bob.offer(alice, os.urandom(SIZE))
    wanted = SeenPinhole(f"{WAN['A']}:5500", f"{ADDRESS['alice']}:5500")
    assert eventually(lambda: place.made.pinhole_of(wanted.inside)) == wanted
    place.server.close_boards()
    assert alice.says(bob, "did you see that?").ok  # the end of the other talk has been read before
    go()
    outcome = sending.result(20.0)
    assert (outcome.way, outcome.dialled) == ("direct", wanted.outside), outcome


@pytest.mark.parametrize("kind", [PURPLE, MSN4])
def test_sign_off_closes_what_nobody_used_and_its_port_is_silent(place: Place, kind: Kind) -> None:
    port = 5600 if kind is PURPLE else 5700
    alice, bob = place.client("alice", kind, port), place.client("bob", kind)
    sender, receiver = (bob, alice) if kind is PURPLE else (alice, bob)
    bob.waits()
    sender.offer(receiver, b"x")
    eventually(lambda: place.made.pinhole_of(f"{ADDRESS['alice']}:{port}"))
    place.server.close_boards()
    alice.sign_off()
    eventually(lambda: not place.made.pinhole_of(f"{ADDRESS['alice']}:{port}"))
    assert place.dialled(port) == "TimeoutError"
    assert place.dialled(port + 1) == "ConnectionRefusedError"


def test_ports_and_addresses_that_are_no_client_s_stay_shut(place: Place) -> None:
    alice, bob = place.client("alice", MSN4), place.client("bob", MSN4)
    talk = alice.talk(bob)
    before = place.made.daemon.log_text().count("pinhole opened")
    named = [(22, ""), (3389, ""), (6891, ADDRESS["amy"]), (6891, WAN["B"]), (6891, "127.0.0.1")]
    for port, address in named:
        alice.announces(talk, port, address)
    assert alice.says(bob, "that is all", talk).ok
    heard = [Endpoint.of(fields_of(Message.decode(said))) for said in place.server.said(b"AuthCookie: 1\r\n")]
    assert heard == [Endpoint(address or ADDRESS["alice"], port) for port, address in named]
    assert place.made.daemon.log_text().count("pinhole opened") == before


def test_a_file_goes_through_a_switchboard_whose_lengths_have_changed(place: Place) -> None:
    alice, bob = place.client("alice", PURPLE, 6100), place.client("bob", PURPLE)
    bob.me.cut_off = True
    outcome = bob.send(alice, os.urandom(20 * SIZE))
    assert outcome.way == "switchboard", outcome
    assert place.made.pinhole_of(f"{ADDRESS['alice']}:6100")
    # What bob has acknowledged is what alice has sent, not what became of it.
    assert alice.me.complaints == bob.me.complaints == []
    assert [said for said in place.server.said(b"Port: 6100") if WAN["A"].encode() in said]


def test_a_talk_that_is_older_than_the_daemon_goes_on(place: Place) -> None:
    """Its lengths were changed before the crash; texts that were said meanwhile arrive, and files, too."""
    alice, bob = place.client("alice", MSN4), place.client("bob", MSN4)
    talk = alice.talk(bob)
    assert alice.send(bob, os.urandom(SIZE), talk).way == "direct"
    place.made.wait_for_positions()
    place.made.daemon.kill()
    with ThreadPoolExecutor(2) as pool:
        meanwhile = pool.submit(alice.says, bob, "while it was away", talk)
        back = pool.submit(bob.says, alice, "and back", bob.talks[-1])
        place.made.restart(settings=SETTINGS)
        assert meanwhile.result().ok
        assert back.result().ok
    for port, where in ((7001, talk), (7002, None)):  # the old session leads to a new switchboard
        alice.me.port = port
        outcome = alice.send(bob, os.urandom(SIZE), where)
        assert (outcome.way, outcome.dialled) == ("direct", f"{WAN['A']}:{port}"), outcome
    assert alice.me.complaints == bob.me.complaints == []


def test_a_session_over_the_notification_server_is_opened_and_goes_on(place: Place) -> None:
    alice, bob = place.client("alice", PURPLE), place.client("bob", PURPLE)
    alice.calls(bob, 5950)
    assert place.made.pinhole_of(f"{ADDRESS['alice']}:5950")
    (told,) = [Slp.decode(said) for said in place.server.said(b"Port: 5950")]
    assert told.length is None
    assert Addresses.pairs(told.body) == [(WAN["A"], 5950)]
    # The session's lengths have changed, and its next commands are understood all the same.
    assert alice.send(bob, os.urandom(SIZE)).way == "direct"
    assert bob.says(alice, "are you there?").ok


@pytest.mark.parametrize(
    ("ports", "behind"), [((3863, 3864), 1863), ((1863, 1863), 0)], ids=["dispatch server", "one port"]
)
@pytest.mark.parametrize("kind", [MSN4, MIRANDA, PURPLE])
def test_servers_are_where_others_say_that_they_are(
    place: Place, kind: Kind, ports: tuple[int, int], behind: int
) -> None:
    number = place.next_number()
    address = f"203.0.113.{100 + number}"
    place.made.lab.run("server", "ip", "address", "add", f"{address}/24", "dev", "eth0")
    server = MsnServer(place.here, address=address, ports=ports, behind=behind)
    alice, bob = place.client("alice", kind, server=server), place.client("bob", kind, server=server)
    for sender, receiver in ((alice, bob), (bob, alice)):
        assert sender.send(receiver, os.urandom(SIZE)).way == "direct"


def test_display_pictures_are_a_service_of_their_own(place: Place) -> None:
    alice, bob = place.client("alice", PURPLE), place.client("bob", PURPLE)
    alice.me.picture = os.urandom(SIZE)
    assert bob.fetch(alice).way == "direct"
    assert f"-> {ADDRESS['alice']}:" in place.made.daemon.log_text()
    assert " for msn-object of " in place.made.daemon.log_text()
    assert place.made.daemon.stop() == 0
    place.made.restart(settings=f'{SETTINGS}[services]\ndeny = ["msn-object"]\n')
    place.sign_off()
    alice, bob = place.client("alice", PURPLE), place.client("bob", PURPLE)
    assert bob.fetch(alice).way == ""
    assert bob.send(alice, os.urandom(SIZE)).way == "direct"
    assert place.made.daemon.stop() == 0
    place.made.restart(settings=SETTINGS)


@pytest.mark.parametrize("write", ["random", "bytes", "coalesced"])
@pytest.mark.parametrize("kind", [MSN4, MIRANDA, PURPLE, OUTSIDE])
def test_commands_in_any_pieces_are_understood(place: Place, kind: Kind, write: str) -> None:
    place.server.write = WriteMode(write, seed=5)
    alice, bob, amy = (place.client(host, kind, write=WriteMode(write, seed=6)) for host in HOSTS)
    for sender, receiver in ((alice, bob), (bob, alice), (amy, bob), (alice, amy)):
        outcome = sender.send(receiver, os.urandom(SIZE))
        assert outcome.way == "direct", outcome
    assert outcome.dialled.startswith("10.0.0.")
    assert alice.me.complaints == bob.me.complaints == amy.me.complaints == []
    assert place.server.dropped == []


def test_an_address_that_was_learnt_from_the_server_is_opened(place: Place) -> None:
    alice, bob = place.client("alice", OUTSIDE, 5800), place.client("bob", OUTSIDE)
    assert alice.me.seen == WAN["A"]
    outcome = bob.send(alice, os.urandom(SIZE))
    assert (outcome.way, outcome.dialled) == ("direct", f"{WAN['A']}:5800")
    amy = place.client("amy", OUTSIDE, 5800)  # whose port alice has outside
    outcome = bob.send(amy, os.urandom(SIZE))
    assert outcome.way == "direct"
    assert outcome.dialled.startswith(f"{WAN['A']}:4")
    assert amy.me.complaints == bob.me.complaints == []
