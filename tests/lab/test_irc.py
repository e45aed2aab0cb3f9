"""IRC's DCC between real clients (weechat) of a real server (ngircd), across two NAT routers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.lab.capture import Capture
from tests.lab.irc_client import IrcClient, Outcome
from tests.lab.irc_server import IrcServer
from tests.lab.net import ADDRESS, WAN, Lab
from tests.lab.scene import Scene, SeenPinhole, eventually, scene

PAIRS = (("alice", "bob"), ("alice", "carol"), ("carol", "alice"), ("alice", "amy"), ("bob", "alice"))
# Who listens is the first of each: on plain NAT nobody outside reaches it.
PLAIN_WORKS = {("alice", "amy"), ("bob", "alice")}
KINDS = {"file": "file.bin", "file with blanks": "a long file.bin", "chat": ""}
HOSTS = ("alice", "amy", "bob", "carol")
SETTINGS = 'protocols = ["oscar", "irc"]\n'
INSTALL = "rules/nfreaim-rules install --lan lan --wan wan --protocol oscar --protocol irc:6667".split()
SIZE = 3000


def online(lab: Lab, *hosts: str, ports: str = "") -> dict[str, IrcClient]:
    """Clients that are signed on, by host."""
    server = IrcServer(lab)
    clients = {host: IrcClient(lab, host, ports) for host in hosts}
    server.wait_ready()
    for client in clients.values():
        client.wait_ready()
    for client in clients.values():
        client.sign_on(server)
    return clients


def offer(sender: IrcClient, receiver: IrcClient, kind: str, patience: float = 30.0) -> Outcome:
    """A file or a chat from one to the other."""
    if kind == "chat":
        return sender.chat(receiver, patience)
    # A name for each, so that nothing is resumed or mistaken.
    name = f"{sender.nick}-{receiver.nick}-{KINDS[kind]}"
    return sender.send(receiver, name, os.urandom(SIZE), patience)


def outcomes(clients: dict[str, IrcClient], patience: float = 6.0) -> dict[tuple[str, str, str], Outcome]:
    """Every pair and kind, side by side; but two clients have one chat at a time, whoever began it.

    patience  seconds until an offer counts as failed
    """
    first = [(*pair, kind) for pair in PAIRS for kind in KINDS if kind != "chat" or pair < pair[::-1]]
    second = [(*pair, kind) for pair in PAIRS for kind in KINDS if (*pair, kind) not in first]
    with ThreadPoolExecutor(len(first)) as pool:

        def made(rows: list[tuple[str, str, str]]) -> dict[tuple[str, str, str], Outcome]:
            running = {
                row: pool.submit(offer, clients[row[0]], clients[row[1]], row[2], patience) for row in rows
            }
            return {row: future.result() for row, future in running.items()}

        return made(first) | made(second)


each = pytest.mark.parametrize(
    ("sender", "receiver", "kind"),
    [pytest.param(*pair, kind, id=f"{'-'.join(pair)}-{kind}") for pair in PAIRS for kind in KINDS],
)


@pytest.fixture(scope="module")
def plain() -> Iterator[dict[tuple[str, str, str], Outcome]]:
    with Lab("legacy", "nft") as lab:
        yield outcomes(online(lab, *HOSTS))


@pytest.fixture(scope="module")
def served() -> Iterator[dict[tuple[str, str, str], Outcome]]:
    with scene("A", "B", settings=SETTINGS, variants=("legacy", "nft")) as made:
        yield outcomes(online(made.lab, *HOSTS), patience=30.0)
        for daemon in made.daemons.values():
            assert daemon.stop() == 0
            assert "failed_flows" not in daemon.log_text()


@each
def test_plain_nat(sender: str, receiver: str, kind: str, plain: dict[tuple[str, str, str], Outcome]) -> None:
    outcome = plain[sender, receiver, kind]
    assert outcome.ok is ((sender, receiver) in PLAIN_WORKS), outcome


@each
def test_with_nfreaim_on_both_routers(
    sender: str, receiver: str, kind: str, served: dict[tuple[str, str, str], Outcome]
) -> None:
    outcome = served[sender, receiver, kind]
    assert outcome.ok, outcome


@contextmanager
def on_router_a(
    *hosts: str, ports: str = "", settings: str = ""
) -> Iterator[tuple[Scene, dict[str, IrcClient]]]:
    """nfreaim on router A, with rules that outlive it."""
    with Lab() as lab:
        lab.run("A", *INSTALL)
        made = Scene(lab)
        made.restart(settings=SETTINGS)
        yield made, online(lab, *hosts, ports=ports)


def test_neighbours_meet_on_their_own_lan() -> None:
    with (
        on_router_a("alice", "amy") as (made, clients),
        Capture(made.lab, "A", "p-amy") as beside,
        Capture(made.lab, "server", "eth0") as outside,
    ):
        assert offer(clients["alice"], clients["amy"], "file").ok
        told = [packet.payload for packet in beside.packets if b"\x01DCC SEND" in packet.payload]
        relayed = [packet.payload for packet in outside.packets if b"\x01DCC SEND" in packet.payload]
        assert told
        assert all(b" 167772165 " in payload for payload in told)  # 10.0.0.5
        assert relayed
        assert all(b" 3405803777 " in payload for payload in relayed)  # 203.0.113.1


def test_file_is_resumed_though_its_port_had_to_change() -> None:
    """Both hosts listen on port 5500, which only one of them can have outside."""
    with on_router_a("alice", "amy", "bob", ports="5500") as (made, clients):
        alice, amy, bob = (clients[host] for host in ("alice", "amy", "bob"))
        bob.ignore_offers()
        alice.offer(bob, "first.bin", b"1")
        eventually(lambda: made.pinhole_of(f"{ADDRESS['alice']}:5500"))
        bob.accept_offers()
        content = os.urandom(SIZE)
        bob.has_part("second.bin", content[:1000])
        with Capture(made.lab, "server", "eth0") as outside:
            assert amy.send(bob, "second.bin", content).ok
        pinhole = made.pinhole_of(f"{ADDRESS['amy']}:5500")
        assert pinhole is None or not pinhole.outside.endswith(":5500")
        said = b"".join(packet.payload for packet in outside.packets)
        assert b"\x01DCC RESUME second.bin 5500 1000" not in said
        assert b"\x01DCC ACCEPT second.bin 5500 1000" not in said
        assert b"\x01DCC ACCEPT second.bin 4" in said


def test_sign_off_closes_what_nobody_used() -> None:
    with on_router_a("alice", "bob", ports="5500") as (made, clients):
        clients["bob"].ignore_offers()
        clients["alice"].offer(clients["bob"], "file.bin", b"1")
        inside = f"{ADDRESS['alice']}:5500"
        assert eventually(lambda: made.pinhole_of(inside)) == SeenPinhole(f"{WAN['A']}:5500", inside)
        clients["alice"].quit()
        eventually(lambda: not made.pinholes())


def test_session_that_is_older_than_the_daemon_is_served_again() -> None:
    """Its lengths were changed before the crash; the talk goes on, and the next offer is served, too."""
    with on_router_a("alice", "carol", "bob") as (made, clients):
        alice, bob = clients["alice"], clients["bob"]
        assert offer(alice, bob, "file").ok
        made.wait_for_positions()
        made.daemon.kill()
        made.restart(settings=SETTINGS)
        alice.say("PING :still-there")
        bob.say("PING :still-there")
        assert alice.send(bob, "behind.bin", os.urandom(SIZE)).ok


def test_port_that_is_no_clients_stays_shut() -> None:
    with on_router_a("alice", "bob") as (made, clients):
        before = made.daemon.log_text().count("pinhole opened")
        for port in (22, 3389, 65536):
            clients["alice"].say(f"PRIVMSG bob :\x01DCC SEND file.bin 167772165 {port} 1\x01")
        clients["alice"].say("PRIVMSG bob :\x01DCC SEND file.bin 167772166 6000 1\x01")  # amy's address
        clients["alice"].say("PRIVMSG bob :that is all")
        eventually(lambda: "that is all" in clients["bob"].log("irc.lab.alice"))
        assert not made.pinholes()
        assert made.daemon.log_text().count("pinhole opened") == before
