"""ICQ's direct connections of users of a server at home: inside users are called by outside ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from nfreaim.marks import DEFAULT
from tests.lab import home
from tests.lab.icq_scene import UINS, status
from tests.lab.namespace import socket_in
from tests.lab.net import LAN, WAN, Daemon, Lab, Variant
from tests.lab.scene import Scene, eventually
from tests.lab.standin import IcqClient, Server, icq_call

NATIVE_ACCEPT = f"ct mark and {DEFAULT.pinhole:#x} == {DEFAULT.pinhole:#x} ct status dnat accept"
INSIDE = ("alice", "amy")
CALLS = (
    ("carol", "alice", "dial", "203.0.113.2"),
    ("bob", "alice", "dial", "203.0.113.20"),
    ("bob", "amy", "dial", "203.0.113.20"),
    ("alice", "carol", "dial", "203.0.113.1"),
    ("alice", "bob", "dial", "203.0.113.1"),
    ("amy", "alice", "dial", "10.0.0.6"),
    ("carol", "alice", "ask_back", "203.0.113.2"),
    ("bob", "amy", "ask_back", "203.0.113.20"),
    ("carol", "alice", "chat", "203.0.113.2"),
    ("bob", "amy", "chat", "203.0.113.20"),
    ("amy", "alice", "chat", "10.0.0.6"),
)


def serve(lab: Lab, place: str, mode: str, write: dict[str, object]) -> tuple[Server, str]:
    """The stand-in server at *place* (hsrv, or A for the router), and its name on the LAN."""
    if place == "hsrv":
        home.forward(lab)
        server = Server(lab, mode, write, address=home.HOME, node="hsrv")
        return server, f"{home.HOME}:5190"
    home.open_port(lab)
    inside = f"{LAN['A']}:5190"
    return Server(lab, mode, write, address="0.0.0.0", node="A", announce=inside), inside


@contextmanager
def online(
    lab: Lab, *hosts: str, place: str = "hsrv", mode: str = "oos", name: str = "oos"
) -> Iterator[tuple[Server, dict[str, IcqClient]]]:
    """A server at home, and a client on each of these hosts."""
    server, inside = serve(lab, place, mode, {"name": name})
    clients = {host: IcqClient(lab, host, *UINS[host]) for host in hosts}
    for standin in (server, *clients.values()):
        standin.wait_ready()
    for host, client in clients.items():
        client.sign_on(inside if host in INSIDE else f"{WAN['A']}:5190")
    yield server, clients


@pytest.mark.parametrize(
    ("place", "variant", "mode", "name"),
    [
        ("hsrv", "legacy", "oos", "oos"),
        ("hsrv", "nft", "aol", "coalesced"),
        ("hsrv", "native-nft", "oos", "random"),
        ("A", "legacy", "aol", "oos"),
        ("A", "nft", "oos", "whole"),
    ],
)
def test_every_kind_between_inside_and_outside(place: str, variant: Variant, mode: str, name: str) -> None:
    with Lab(variant, "nft", home_server=True) as lab:
        if variant == "native-nft":
            lab.run("A", "nft", "insert", "rule", "inet", "router", "forward", *NATIVE_ACCEPT.split())
        daemons = [lab.start_alg("A"), lab.start_alg("B")]
        with online(lab, "alice", "amy", "bob", "carol", place=place, mode=mode, name=name) as (_, clients):
            for caller, listener, how, peer in CALLS:
                call = icq_call(clients[caller], clients[listener], how)
                text = daemons[0].log_text()
                assert (call.ok, call.peer) == (True, peer), (caller, listener, how, call, text)
        assert [daemon.stop() for daemon in daemons] == [0, 0]


def opened(lab: Lab) -> list[str]:
    """What stands open to inside hosts: "outside -> inside"."""
    return [line.split(" for ")[0].removeprefix("pinhole ") for line in status(lab)]


def admitted(lab: Lab) -> set[str]:
    """The addresses that may use any pinhole."""
    peers = [pinhole.peer for pinhole in Scene(lab).pinholes() if pinhole.outside.startswith(WAN["A"])]
    return {peer for each in peers for peer in ([each] if each else ["0.0.0.0/1", "128.0.0.0/1"])}


def test_what_an_inside_user_published_stands_as_long_as_somebody_outside_may_call() -> None:
    with Lab(home_server=True) as lab:
        daemon = lab.start_alg("A")
        with online(lab, "alice", "bob", "carol") as (_, clients):
            alice = clients["alice"]
            eventually(lambda: opened(lab) == ["203.0.113.1:4000 -> 10.0.0.5:4000"])
            assert icq_call(clients["bob"], alice).ok
            assert admitted(lab) == {"203.0.113.20", "203.0.113.2"}
            alice.call("publish", port=4050)
            eventually(lambda: opened(lab) == ["203.0.113.1:4050 -> 10.0.0.5:4050"])
            alice.call("publish", port=0, kind=0)
            daemon.wait_log("no longer published")
            eventually(lambda: opened(lab) == [])
            alice.call("publish")
            eventually(lambda: opened(lab) == ["203.0.113.1:4000 -> 10.0.0.5:4000"])
            clients["carol"].call("sign_off")
            eventually(lambda: admitted(lab) == {"203.0.113.20"})
            assert icq_call(clients["bob"], alice).ok
            alice.call("sign_off")
            daemon.wait_log("pinhole closed: 203.0.113.1:4000 -> 10.0.0.5:4000: signed off")
            eventually(lambda: opened(lab) == [])
        assert daemon.stop() == 0


def test_it_goes_with_the_last_flow_that_was_told_of_it() -> None:
    with Lab(home_server=True) as lab:
        daemon: Daemon = lab.start_alg("A")
        with online(lab, "alice", "bob") as (_, clients):
            eventually(lambda: len(opened(lab)) == 1)
            clients["bob"].call("sign_off", how="reset")
            daemon.wait_log("control connection lost")
            eventually(lambda: opened(lab) == [])


def test_an_account_outside_that_names_an_inside_host_opens_it_for_those_alone_who_are_told() -> None:
    """open-oscar-server repeats what its clients write, and says nothing of where they are."""
    with Lab(home_server=True) as lab:
        settings = lab.dir / "nfreaim.toml"
        settings.write_text(f'home_servers = ["{home.HOME}"]')  # else amy would have to be its client
        daemon = lab.start_alg("A", ("--config", str(settings)))
        with online(lab, "bob", "carol") as (_, clients):
            clients["carol"].call("publish", port=4500, address="10.0.0.6")
            daemon.wait_log("pinhole opened: 203.0.113.1:4500 -> 10.0.0.6:4500")
            assert admitted(lab) == {"203.0.113.20"}
            with socket_in(lab, "server") as stranger:
                stranger.settimeout(2.0)
                with pytest.raises(TimeoutError):
                    stranger.connect((WAN["A"], 4500))
            clients["carol"].call("sign_off")
            eventually(lambda: opened(lab) == [])


def test_a_server_that_nobody_vouches_for_opens_nothing() -> None:
    with Lab(home_server=True) as lab:
        for rule in (
            f"-t nat -A PREROUTING -i wan -j DNAT --to-destination {home.HOME}",
            f"-A FORWARD -i wan -d {home.HOME} -p tcp --dport 5190 -j ACCEPT",
        ):
            lab.run("A", "iptables-legacy", *rule.split())
        daemon = lab.start_alg("A")
        server = Server(lab, address=home.HOME, node="hsrv")
        alice, bob = (IcqClient(lab, host, *UINS[host]) for host in ("alice", "bob"))
        for standin in (server, alice, bob):
            standin.wait_ready()
        alice.sign_on(f"{home.HOME}:5190")
        bob.sign_on(f"{WAN['A']}:5190")
        daemon.wait_log("may not speak for 10.0.0.5")
        assert opened(lab) == []
        assert not icq_call(bob, alice).ok
