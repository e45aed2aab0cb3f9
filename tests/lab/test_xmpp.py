"""XMPP's bytestreams between stand-in clients of a real server (prosody), across two NAT routers.

The server is outside, or at home behind router A, which forwards its port.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count

import pytest

from tests.lab import home
from tests.lab.capture import Capture
from tests.lab.namespace import socket_in
from tests.lab.net import ADDRESS, SERVER, WAN, Lab
from tests.lab.scene import INSTALL, Scene, SeenPinhole, eventually, scene
from tests.lab.sockets import HTTP
from tests.lab.xmpp_client import Kind, Outcome, XmppClient
from tests.lab.xmpp_codec import exactly
from tests.lab.xmpp_server import PORT, XmppServer
from tests.xmpp.texts import ANSWER, FEATURES, HEADER, TLS

PAIRS = (("alice", "bob"), ("alice", "carol"), ("carol", "alice"), ("alice", "amy"), ("bob", "alice"))
KINDS: tuple[Kind, ...] = ("query", "jingle")
# On plain NAT only these reach each other; by Jingle alice reaches bob, who offers his address, too.
PLAIN_DIRECT = {
    *(("alice", "amy", kind) for kind in KINDS),
    *(("bob", "alice", kind) for kind in KINDS),
    ("alice", "bob", "jingle"),
}
HOSTS = ("alice", "amy", "bob", "carol")
SETTINGS = 'protocols = ["oscar", "xmpp"]\n'
RULES = (*INSTALL, "--protocol", "oscar", "--protocol", f"xmpp:{PORT}")
SIZE = 50_000
Row = tuple[str, str, Kind]
ROWS: list[Row] = [(*pair, kind) for pair in PAIRS for kind in KINDS]


def online(lab: Lab, *hosts: str, at_home: bool = False, ports: int = 0) -> dict[str, XmppClient]:
    """Clients that are signed on, by host; they listen on consecutive *ports*, or on any."""
    server = XmppServer(lab, "hsrv", home.HOME) if at_home else XmppServer(lab)
    server.wait_ready()
    clients = {host: XmppClient(lab, host, count(ports) if ports else ()) for host in hosts}
    for host, client in clients.items():
        outside = WAN["A"] if host in ("bob", "carol") else home.HOME
        client.sign_on(outside if at_home else SERVER)
    return clients


def outcomes(clients: dict[str, XmppClient], rows: Iterable[Row] = ROWS) -> dict[Row, Outcome]:
    """Every row, side by side."""
    with ThreadPoolExecutor(16) as pool:
        running = {
            row: pool.submit(clients[row[0]].send, clients[row[1]], os.urandom(SIZE), row[2]) for row in rows
        }
        return {row: future.result() for row, future in running.items()}


@pytest.fixture(scope="module")
def plain() -> Iterator[dict[Row, Outcome]]:
    with Lab("legacy", "nft") as lab:
        yield outcomes(online(lab, *HOSTS))


@pytest.fixture(scope="module")
def served() -> Iterator[dict[Row, Outcome]]:
    with scene("A", "B", settings=SETTINGS, variants=("legacy", "nft")) as made:
        yield outcomes(online(made.lab, *HOSTS))
        for daemon in made.daemons.values():
            assert daemon.stop() == 0
            assert "failed_flows" not in daemon.log_text()
            assert "malformed_flows" not in daemon.log_text()


@pytest.mark.parametrize("row", ROWS, ids="-".join)
def test_plain_nat(row: Row, plain: dict[Row, Outcome]) -> None:
    assert plain[row].ok, plain[row]
    assert plain[row].direct is (row in PLAIN_DIRECT), plain[row]


@pytest.mark.parametrize("row", ROWS, ids="-".join)
def test_with_nfreaim_on_both_routers(row: Row, served: dict[Row, Outcome]) -> None:
    assert served[row].ok, served[row]
    assert served[row].direct, served[row]
    if row[:2] == ("alice", "amy"):
        assert served[row].peer.startswith(ADDRESS["amy"])


# --- a server at home ---------------------------------------------------------------------------------------


@contextmanager
def at_home(*hosts: str, settings: str = "") -> Iterator[tuple[Scene, dict[str, XmppClient]]]:
    with Lab("nft", "legacy", home_server=True) as lab:
        home.forward(lab, port=PORT)
        made = Scene(lab)
        for router in ("A", "B"):
            made.restart(router, SETTINGS + settings)
        yield made, online(lab, *hosts, at_home=True)


def test_server_at_home_serves_all_pairs() -> None:
    with at_home(*HOSTS) as (made, clients):
        found = outcomes(clients, [row for row in ROWS if row[:2] != ("alice", "bob")])
        found |= outcomes(clients, [row for row in ROWS if row[:2] == ("alice", "bob")])
        log = made.daemon.log_text()
        assert {row: one for row, one in found.items() if not (one.ok and one.direct)} == {}, log
        assert found["alice", "amy", "query"].peer.startswith(ADDRESS["amy"])
        # Who is told is the only one that may come.
        carol = clients["carol"]
        carol.ignores = True
        clients["alice"].offer(carol, 6000)
        hole = eventually(lambda: made.pinhole_of(f"{ADDRESS['alice']}:6000"))
        assert hole == SeenPinhole(f"{WAN['A']}:6000", f"{ADDRESS['alice']}:6000", WAN["B"])
        assert [daemon.stop() for daemon in made.daemons.values()] == [0, 0]


def test_server_at_home_that_nobody_vouches_for_opens_nothing() -> None:
    """The forward is of all ports, so it says nothing about a server; what the log says then helps."""
    with Lab(home_server=True) as lab:
        to = f"-t nat -A PREROUTING -i wan -j DNAT --to-destination {home.HOME}"
        accept = f"-A FORWARD -i wan -d {home.HOME} -p tcp --dport {PORT} -j ACCEPT"
        for rule in (to, accept):
            lab.run("A", "iptables-legacy", *rule.split())
        made = Scene(lab)
        made.restart(settings=SETTINGS)
        clients = online(lab, "alice", "bob", at_home=True)
        bob = clients["bob"]
        bob.ignores = True
        clients["alice"].offer(bob, 6000)
        eventually(lambda: bob.offered == [(ADDRESS["alice"], 6000)])
        assert not made.pinholes()
        assert f"{home.HOME}:{PORT} may not speak for others" in made.daemon.log_text()


# --- a router with rules that outlive its daemon ------------------------------------------------------------


@pytest.fixture(scope="module")
def router() -> Iterator[tuple[Scene, dict[str, XmppClient]]]:
    with Lab() as lab:
        lab.run("A", *RULES)
        made = Scene(lab)
        made.restart(settings=SETTINGS)
        yield made, online(lab, *HOSTS, ports=5500)


def test_neighbours_meet_on_their_own_lan(router: tuple[Scene, dict[str, XmppClient]]) -> None:
    made, clients = router
    with Capture(made.lab, "A", "p-amy") as beside, Capture(made.lab, "server", "eth0") as outside:
        assert clients["alice"].send(clients["amy"], b"x" * 3000).direct
        eventually(lambda: any(b"streamhost-used" in packet.payload for packet in outside.packets))
    told = [packet.payload for packet in beside.packets if b"<streamhost " in packet.payload]
    relayed = [packet.payload for packet in outside.packets if b"<streamhost " in packet.payload]
    assert told
    assert all(b"'10.0.0.5'" in payload for payload in told)
    assert relayed
    assert all(b"'203.0.113.1'" in payload for payload in relayed)


def test_what_is_no_clients_stays_shut(router: tuple[Scene, dict[str, XmppClient]]) -> None:
    made, clients = router
    alice, bob = clients["alice"], clients["bob"]
    before, heard = made.daemon.log_text().count("pinhole opened"), len(bob.offered)
    bob.ignores = True
    offers = [(22, ""), (3389, ""), (6000, ADDRESS["amy"]), (6000, "203.0.113.9"), (6000, "127.0.1.1")]
    for port, address in offers:
        alice.offer(bob, port, address)
    eventually(lambda: len(bob.offered) == heard + len(offers))
    assert set(bob.offered[heard:]) == {(address or ADDRESS["alice"], port) for port, address in offers}
    bob.ignores = False
    assert made.daemon.log_text().count("pinhole opened") == before
    assert not [hole for hole in made.pinholes() if hole.inside.endswith((":22", ":3389", ":6000"))]


def test_client_that_offers_the_routers_address(router: tuple[Scene, dict[str, XmppClient]]) -> None:
    made, clients = router
    alice, bob = clients["alice"], clients["bob"]
    bob.ignores = True
    alice.offer(bob, 6001, WAN["A"])
    eventually(lambda: made.pinhole_of(f"{ADDRESS['alice']}:6001"))
    eventually(lambda: bob.offered[-1] == (WAN["A"], 6001))
    bob.ignores = False


def test_peer_that_does_not_begin_as_socks5_is_sent_away(router: tuple[Scene, dict[str, XmppClient]]) -> None:
    made, clients = router
    alice, carol = clients["alice"], clients["carol"]
    listener = socket_in(made.lab, "alice")
    listener.bind((ADDRESS["alice"], 7000))
    listener.listen(4)
    carol.ignores = True
    with listener:
        alice.offer(carol, 7000)
        eventually(lambda: made.pinhole_of(f"{ADDRESS['alice']}:7000"))
        for first in (HTTP, b"\5\1\0"):
            with socket_in(made.lab, "bob") as peer:
                peer.connect((WAN["A"], 7000))
                link, _ = listener.accept()
                with link:
                    peer.sendall(first)
                    if first == HTTP:
                        with pytest.raises(ConnectionResetError):
                            link.recv(1)
                    else:
                        assert exactly(link, len(first)) == first
    carol.ignores = False


def test_sign_off_closes_what_nobody_used(router: tuple[Scene, dict[str, XmppClient]]) -> None:
    made, clients = router
    amy = XmppClient(made.lab, "amy", ())
    clients["amy"].sign_off()
    amy.sign_on(SERVER)
    clients["amy"] = amy
    clients["carol"].ignores = True
    amy.offer(clients["carol"], 7100)
    eventually(lambda: "10.0.0.6:7100 for xmpp-file" in made.daemon.log_text())
    amy.sign_off()
    eventually(lambda: made.pinhole_of(f"{ADDRESS['amy']}:7100") is None)
    clients["carol"].ignores = False


def test_flow_that_turns_to_tls_leaves_the_queue(router: tuple[Scene, dict[str, XmppClient]]) -> None:
    made, _ = router
    listener = socket_in(made.lab, "bob")
    with listener:
        listener.bind((ADDRESS["bob"], PORT))
        listener.listen(1)
        with socket_in(made.lab, "alice") as client:
            client.connect((ADDRESS["bob"], PORT))
            server, _ = listener.accept()
            with server:
                server.settimeout(10.0)
                for source, sink, text in (
                    (client, server, HEADER),
                    (server, client, ANSWER + FEATURES),
                    (client, server, b"<starttls %b/>" % TLS),
                    (server, client, b"<proceed %b/>" % TLS),
                ):
                    source.sendall(text)
                    assert exactly(sink, len(text)) == text
                flow = f"{ADDRESS['alice']},tcp:{client.getsockname()[1]},{ADDRESS['bob']}"
                eventually(lambda: flow in made.offloaded())
                queued = made.queued()
                for source, sink in ((client, server), (server, client)) * 20:
                    source.sendall(b"\x16\x03\x03" + bytes(400))
                    exactly(sink, 403)
                assert made.queued() == queued


def test_session_that_is_older_than_the_daemon_is_served_again(
    router: tuple[Scene, dict[str, XmppClient]],
) -> None:
    """Its lengths were changed before the crash; the talk goes on, and the next offer is served, too."""
    made, clients = router
    alice, bob = clients["alice"], clients["bob"]
    assert alice.send(bob, b"x" * 3000).direct
    positions, seen = made.lab.dir / "run-A" / "nfreaim" / "flows" / "places", b""
    while (now := positions.read_bytes()) != seen:
        seen = now
        time.sleep(1.0)
    made.daemon.kill()
    made.restart(settings=SETTINGS)
    for client in (alice, bob):
        client.say("<presence><status>still here</status></presence>")
    assert alice.send(bob, os.urandom(SIZE)).direct
    assert "read again, nothing was missed" in made.daemon.log_text()
