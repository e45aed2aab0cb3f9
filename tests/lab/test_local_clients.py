"""Clients on router A itself: served for the users of `local_clients`, and for nobody else."""

from __future__ import annotations

import re
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import pytest

from tests.lab import impair, kernel_sets
from tests.lab.flows import Flow
from tests.lab.forged import Sender
from tests.lab.holder import listening
from tests.lab.irc_offers import AMYS_INSIDE, AMYS_OUTSIDE, amy_offers, number_of
from tests.lab.namespace import socket_in
from tests.lab.net import ADDRESS, SERVER, WAN, Lab
from tests.lab.scene import INSTALL, Scene, announced, eventually, nfreaim
from tests.lab.standin import Client, Server, Transfer, by_user
from tests.lab.stream import Plan
from tests.tcp.packets import SYN, packet

ALICE = ADDRESS["alice"]
NOBODY = "203.0.113.77"  # answers nothing
ANN, BEN = 1001, 1002
P = WAN["A"]
SETTINGS = f"local_clients = [{ANN}]\n"
IRC = 'protocols = ["oscar", "irc"]\n'
HIDDEN = "10.0.77.1"
IRC_SERVER = f"{SERVER}:6667"
CONNECT = f"""
made = socket.socket()
made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes((1, 0, 0, 0, 0, 0, 0, 0)))
made.bind(("{P}", 34567))
made.connect(("{SERVER}", 5190))
made.send(b"x" * 8)
made.close()
"""


def online(lab: Lab, server: Server, *who: tuple[str, str, int, int]) -> list[Client]:
    """Clients that are signed on: node, name, first port to listen on, user."""
    clients = [Client(lab, node, name, "libpurple", port, user) for node, name, port, user in who]
    for end in (server, *clients):
        end.wait_ready()
    for client in clients:
        client.sign_on(server)
    return clients


def local(lab: Lab) -> list[str]:
    """The flows of clients on the router, as the kernel's set has them."""
    return kernel_sets.entries(lab, "A", "nfreaim_local")


def has_seen(lab: Lab, count: int) -> bool:
    """Whether so many packets from the LAN went to servers."""
    if kernel_sets.NFT:
        listed = lab.run("A", *"nft list chain ip nfreaim prerouting_raw".split()).stdout
        return f"iifname @lan counter packets {count} " in listed
    saved = lab.run("A", "iptables-legacy-save", "-c", "-t", "raw").stdout
    rule = r"-A PREROUTING -i lan .* --dports 5190 -j NFREAIM\n"
    return re.findall(rf"\[(\d+):\d+\] {rule}", saved) == [str(count)]


@pytest.mark.parametrize("workers", [1, 2], ids=["one process", "two workers"])
def test_client_of_a_listed_user_is_served_like_one_of_the_lan(
    workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NFREAIM_WORKERS", str(workers))
    with Lab() as lab:
        made = Scene(lab)
        made.restart(settings=SETTINGS)
        impair.count_invalid(lab)
        server = Server(lab)
        ann, bob, alice = online(
            lab, server, ("A", "ann1", 5500, ANN), ("bob", "bob1", 5190, 0), ("alice", "alice1", 5500, 0)
        )
        for kind in ("file", "im"):
            for sender, receiver in ((ann, bob), (bob, ann), (ann, alice), (alice, ann)):
                outcome = Transfer(sender, receiver, kind, size=200_000).outcome()
                assert outcome.first_attempt, (kind, sender.name, receiver.name, outcome)
        assert impair.invalid(lab) == 0
        assert made.daemon.stop() == 0


def test_client_is_served_after_a_kill_and_a_stranger_at_its_pinhole_is_refused() -> None:
    with Lab("nft") as lab:
        made = Scene(lab)
        first = made.restart(settings=SETTINGS)
        server = Server(lab)
        ann, bob = online(lab, server, ("A", "ann1", 5500, ANN), ("bob", "bob1", 5190, 0))
        bob.call("policy", action="ignore")
        Transfer(ann, bob, "file")
        (hole,) = eventually(made.pinholes)
        assert hole.outside == hole.inside == f"{P}:5500"
        first.kill()
        made.restart(settings=SETTINGS)
        # Somebody else's use of our bit verifies nothing.
        lab.run("A", *"iptables-legacy -t mangle -I OUTPUT -j MARK --set-xmark 0x10000000/0x10000000".split())
        with socket_in(lab, "bob") as stranger:
            stranger.connect((P, 5500))
            stranger.sendall(b"GET / HTTP/1.0\r\n\r\n")
            with pytest.raises(ConnectionResetError):  # behind what the client says first
                stranger.makefile("rb").read()
        assert f"to {hole.inside} did not say what was expected of it" in made.daemon.log_text()
        bob.call("policy", action="accept")
        for kind in ("file", "im"):
            for sender, receiver in ((ann, bob), (bob, ann)):
                outcome = Transfer(sender, receiver, kind).outcome()
                assert outcome.first_attempt, (kind, sender.name, receiver.name, outcome)
        ann.stop()
        eventually(lambda: not made.pinholes())
        assert made.daemon.stop() == 0


def test_native_firewall_is_named_until_it_has_the_line_that_check_prints() -> None:
    with Lab("native-nft") as lab:
        made = Scene(lab)
        made.restart(settings=SETTINGS)
        server = Server(lab)
        ann, bob = online(lab, server, ("A", "ann1", 5500, ANN), ("bob", "bob1", 5190, 0))
        made.daemon.wait_log("input drops the connections of pinholes to this router")
        path = lab.dir / "check.toml"
        path.write_text(SETTINGS)
        told = nfreaim(lab, "A", "check", "--lan", "lan", "--wan", "wan", "--config", str(path)).splitlines()
        (line,) = [line for line in told if "drops pinhole connections to clients on this router" in line]
        lab.run("A", "sh", "-c", line.partition(" -> ")[2])
        assert Transfer(ann, bob, "file").outcome().first_attempt


def test_client_of_any_other_user_is_neither_queued_nor_served() -> None:
    with Lab() as lab:
        made = Scene(lab)
        lab.run("A", *INSTALL)
        before = lab.firewall_rules("A")
        made.restart()
        server = Server(lab)
        ann, bob = online(lab, server, ("A", "ann1", 5500, ANN), ("bob", "bob1", 5190, 0))
        bob.call("policy", action="ignore")

        def arrives_unread(sender: Client) -> None:
            announced(bob, Transfer(sender, bob, "file").cookie)
            assert (made.queued(), made.pinholes()) == (0, set())

        arrives_unread(ann)
        off = "from_local_clients" if kernel_sets.NFT else "NFREAIM_LOCAL"
        assert off not in lab.firewall_rules("A"), "off by default"
        made.daemon.stop()
        ann.stop()
        made.restart(settings=SETTINGS)
        (ben,) = online(lab, server, ("A", "ben1", 5600, BEN))
        arrives_unread(ben)
        assert local(lab) == []
        lab.run("A", *INSTALL)  # as the rules' unit does, without what the configuration says
        named = f"elements = {{ {ANN} }}" if kernel_sets.NFT else f"--uid-owner {ANN} "
        eventually(lambda: named in lab.firewall_rules("A"))
        made.daemon.stop()
        made.restart()
        made.daemon.stop()
        assert lab.firewall_rules("A") == before, "what the configuration does not name any more is gone"


def test_packets_of_a_lan_host_in_the_routers_name_are_not_taken_for_its_clients() -> None:
    with Lab() as lab, Sender(lab, "alice") as forge:
        made = Scene(lab)
        for settings, queued in (("", 2), (SETTINGS, 1)):
            made.restart(settings=settings)
            for source in (P, ALICE):
                forge(packet((source, 34567), (NOBODY, 5190), 1000, 0, SYN))
            eventually(partial(has_seen, lab, 2))
            assert made.queued() == queued
            assert made.daemon.stop() == 0


def test_connection_of_another_user_between_the_same_ends_is_not_taken_for_the_earlier_one() -> None:
    with Lab() as lab, listening(lab, 0, 5190, node="server"):
        made = Scene(lab)
        made.restart(settings=SETTINGS)
        program = "import socket\n" + CONNECT
        for user, found in ((ANN, [f"{P},tcp:34567,{SERVER}"]), (BEN, [])):
            lab.run("A", *by_user(user), sys.executable, "-c", program)
            assert local(lab) == found
        assert made.queued() > 0
        seen = made.queued()
        lab.run("A", *by_user(BEN), sys.executable, "-c", program)
        assert made.queued() == seen


def offers(lab: Lab, plan: Plan, named: str, becomes: str, user: int = ANN) -> Flow:
    """A connection of a client on the router to an IRC server, which names a pinhole of amy's."""
    both = replace(plan, dialect="irc")
    serving = replace(both, listen=IRC_SERVER, named=AMYS_OUTSIDE, expects=(named, becomes))
    calling = replace(both, connect=IRC_SERVER, named=named, expects=(AMYS_OUTSIDE, AMYS_INSIDE), seed=2)
    return Flow(lab, ("server", serving), ("A", calling), user)


def test_offer_of_a_port_at_which_another_user_listens_opens_nothing() -> None:
    with Lab() as lab:
        made = Scene(lab)
        made.restart(settings=SETTINGS + IRC)
        plan = Plan(frames=4, redirects=2, stays=True)
        place = f"{number_of(P)} 5500"
        for user, reason in ((0, f"nobody listens at {P}:5500"), (BEN, f"user {BEN} listens at {P}:5500")):
            with listening(lab, user or ANN, 5500 if user else 5501):
                server, _ = offers(lab, plan, place, "never").exact()
                assert server["left"] == 2
            assert reason in made.daemon.log_text()
        assert "pinhole opened" not in made.daemon.log_text()
        with listening(lab, ANN, 5500):
            offers(lab, plan, place, "never").exact()
        assert f"pinhole opened: {P}:5500 -> {P}:5500" in made.daemon.log_text()


def test_lengths_change_both_ways_and_kills_change_no_byte() -> None:
    with Lab() as lab, ExitStack() as stack:
        # A client with another address than the one that its connections leave with
        lab.run("A", *f"ip address add {HIDDEN}/32 dev wan".split())
        lab.run("A", *f"ip route add {SERVER}/32 dev wan src {HIDDEN}".split())
        stack.enter_context(listening(lab, ANN, 5500, address=HIDDEN))
        made = Scene(lab)
        made.restart(settings=SETTINGS + IRC)
        impair.count_invalid(lab)
        amy_offers(lab, made.daemon)
        named, becomes = f"{number_of(HIDDEN)} 5500", f"{number_of(P)} 5500"
        # Joined packets, which the kernel cuts up for the queue
        plan = Plan(frames=2000, redirects=8, write="coalesced", stays=True)
        server, client = offers(lab, plan, named, becomes).exact()
        assert (server["rewritten"], client["rewritten"]) == (8, 8)
        for number in range(3):
            eventually(lambda: not made.pinhole_of(f"{HIDDEN}:5500"))
            plan = Plan(frames=40, redirects=20, pause=0.02, largest=100, write="halves", inner=0.005)
            flow = offers(lab, plan, named, becomes)
            eventually(lambda: made.pinhole_of(f"{HIDDEN}:5500"))
            time.sleep(0.05 * number)  # somewhere else in a line each time
            made.daemon.kill()
            made.restart(settings=SETTINGS + IRC)
            server, client = flow.exact()
            assert server["rewritten"] > 0
        impair.lose(lab, 5)
        plan = Plan(frames=80, redirects=8, largest=100, pause=0.005, stays=True)
        server, client = offers(lab, plan, named, becomes).exact()
        assert server["rewritten"] + server["left"] == client["rewritten"] + client["left"] == 8
        assert impair.lost(lab) > 0
        assert impair.invalid(lab) == 0
        assert made.daemon.stop() == 0
