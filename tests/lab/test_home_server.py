"""A server behind the router, or on it: outside and inside clients sign on, and reach each other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab import home, impair, kernel_sets
from tests.lab.flows import home_flow
from tests.lab.net import ADDRESS, LAN, SERVER, WAN, Lab, LabError, Variant
from tests.lab.standin import Client, Server, Transfer
from tests.lab.stream import Plan

# A native firewall accepts pinholes only by a line of its own; `nfreaim check` prints it.
NATIVE_ACCEPT = (
    "insert rule inet router forward ct mark and 0x2000000 == 0x2000000 ct status dnat accept".split()
)
PAIRS = (("bob", "alice"), ("alice", "bob"), ("alice", "carol"), ("carol", "alice"), ("alice", "amy"))
INSIDE = ("alice", "amy")


def serve(lab: Lab, place: str, write: dict[str, Any]) -> tuple[Server, str]:
    """The stand-in server at *place* (hsrv, or A for the router), and its name on the LAN."""
    if lab.variants["A"] == "native-nft":
        lab.run("A", "nft", *NATIVE_ACCEPT)
    if place == "hsrv":
        home.forward(lab)
        return Server(lab, address=home.HOME, node="hsrv", write=write), f"{home.HOME}:5190"
    home.open_port(lab)
    inside = f"{LAN['A']}:5190"
    return Server(lab, address="0.0.0.0", node="A", announce=inside, write=write), inside


def sign_on(lab: Lab, server: Server, inside: str, outside: str = WAN["A"]) -> dict[str, Client]:
    """A client on every host, signed on with one service connection each."""
    clients = {host: Client(lab, host, f"{host}1") for host in ("alice", "amy", "bob", "carol")}
    server.wait_ready()
    for host, client in clients.items():
        client.wait_ready()
        client.sign_on(inside if host in INSIDE else f"{outside}:5190", services=True)
    return clients


@pytest.mark.parametrize(
    ("place", "variant", "write"),
    [
        ("hsrv", "legacy", {"name": "oos"}),
        ("hsrv", "nft", {"name": "random", "seed": 3}),
        ("hsrv", "native-nft", {"name": "coalesced"}),
        ("hsrv", "legacy", {"name": "whole"}),
        ("hsrv", "nft", {"name": "oos", "nagle": True}),
        ("A", "legacy", {"name": "oos"}),
        ("A", "nft", {"name": "coalesced"}),
        ("A", "native-nft", {"name": "oos", "nagle": True}),
    ],
)
def test_everybody_signs_on_and_every_first_attempt_works(
    place: str, variant: Variant, write: dict[str, Any]
) -> None:
    with Lab(variant, "nft", home_server=True) as lab:
        before = lab.firewall_rules("A")
        server, inside = serve(lab, place, write)
        configured = lab.firewall_rules("A")
        daemons = [lab.start_alg(router) for router in ("A", "B")]
        impair.count_invalid(lab)
        clients = sign_on(lab, server, inside)
        running = {
            (*pair, kind): Transfer(clients[pair[0]], clients[pair[1]], kind)
            for pair in PAIRS
            for kind in ("file", "im")
        }
        outcomes = {key: transfer.outcome() for key, transfer in running.items()}
        log = daemons[0].log_text()
        assert {key: (one.ok, one.reason) for key, one in outcomes.items() if not one.first_attempt} == {}, (
            log
        )
        # Inside clients of one server stay on their LAN.
        assert outcomes["alice", "amy", "file"].peer.startswith(ADDRESS["amy"])
        assert impair.invalid(lab) == 0
        lab.run("A", "iptables-legacy", "-t", "mangle", "-F", "PREROUTING")
        lab.run("A", "iptables-legacy", "-t", "mangle", "-F", "OUTPUT")
        assert [daemon.stop() for daemon in daemons] == [0, 0]
        assert lab.firewall_rules("A") == configured != before


@pytest.mark.parametrize("place", ["hsrv", "A"])
def test_without_nfreaim_bob_is_sent_to_an_address_he_cannot_reach(place: str) -> None:
    with Lab(home_server=True) as lab:
        server, _ = serve(lab, place, {"name": "oos"})
        bob = Client(lab, "bob", "bob1")
        for standin in (server, bob):
            standin.wait_ready()
        with pytest.raises(LabError, match="TimeoutError"):
            bob.sign_on(f"{WAN['A']}:5190")


def test_hairpin_clients_are_left_to_the_kernel() -> None:
    with Lab(home_server=True) as lab:
        home.forward(lab, hairpin=True)
        server = Server(lab, address=home.HOME, node="hsrv")
        daemon = lab.start_alg("A")
        clients = {host: Client(lab, host, f"{host}1") for host in ("alice", "amy")}
        server.wait_ready()
        for client in clients.values():
            client.wait_ready()
            client.sign_on(f"{WAN['A']}:5190", services=True)
        assert Transfer(clients["alice"], clients["amy"], "file").outcome().ok
        assert not any(lab.queue_state("A").values()), "their packets have no business in the queue"
        assert daemon.stop() == 0


@pytest.mark.parametrize("addresses", [home.growing, home.shrinking])
def test_redirects_that_grow_and_shrink_lead_back_to_where_the_client_came_from(addresses: Any) -> None:
    with Lab(home_server=True) as lab:
        outside, inside = addresses(lab)
        home.forward(lab, outside=outside, inside=inside)
        daemon = lab.start_alg("A")
        server = Server(lab, address=inside, node="hsrv")
        server.wait_ready()
        bob = Client(lab, "bob", "bob1")
        bob.wait_ready()
        bob.sign_on(f"{outside}:5190", services=True)
        server.stop()  # and now the same addresses byte by byte, both ways at once
        for write in ("whole", "oos", "random"):
            ended, calling = home_flow(
                lab, outside, inside, server_plan=Plan(redirects=20, write=write)
            ).exact()
            assert (calling["rewritten"], calling["left"]) == (20, 0), (write, ended)
        assert daemon.stop() == 0


# --- holding ---


@pytest.fixture(scope="module")
def at_home() -> Iterator[Lab]:
    """A forwarded home server's network with nfreaim on router A, which holds long: a slow machine changes
    nothing."""
    with Lab(home_server=True) as lab:
        home.forward(lab)
        impair.count_invalid(lab)
        patient = lab.dir / "nfreaim.toml"
        patient.write_text("hold_ms = 200\n")
        lab.start_alg("A", ("--config", str(patient)))
        yield lab
        assert impair.invalid(lab) == 0


@pytest.mark.parametrize("nagle", [False, True])
@pytest.mark.parametrize("write", ["whole", "oos", "coalesced", "random"])
def test_cut_frames_are_rewritten_in_whole_and_nothing_else_changes(
    at_home: Lab, write: str, nagle: bool
) -> None:
    plan = Plan(redirects=20, write=write, nagle=nagle)
    _, client = home_flow(at_home, server_plan=plan).exact()
    assert (client["rewritten"], client["left"]) == (20, 0)


def test_frame_whose_end_comes_within_the_hold_time_is_rewritten(at_home: Lab) -> None:
    plan = Plan(frames=20, redirects=20, write="halves", inner=0.005)
    _, client = home_flow(at_home, server_plan=plan).exact()
    assert client["rewritten"] > 0


def test_frame_whose_end_comes_too_late_leaves_as_it_came(at_home: Lab) -> None:
    plan = Plan(frames=4, redirects=4, write="halves", inner=0.5)
    _, client = home_flow(at_home, server_plan=plan).exact()
    assert (client["rewritten"], client["left"]) == (0, 4)


# --- servers on other ports ---


def test_redirect_to_another_port_is_followed_and_other_ports_are_not_touched() -> None:
    with Lab() as lab:
        daemon = lab.start_alg("A")
        split = f"{SERVER}:5191"
        server = Server(lab, announce=split, also=split)
        clients = {host: Client(lab, host, f"{host}1") for host in ("alice", "bob")}
        server.wait_ready()
        for client in clients.values():
            client.wait_ready()
        alice = clients["alice"]
        alice.sign_on(split)  # she was told so by her user, not by a server that we read
        assert not any(lab.queue_state("A").values())
        for client in clients.values():
            client.sign_on(server)
        members = kernel_sets.saved(lab, "A", "nfreaim_srv")
        entry = rf'^add nfreaim_srv {SERVER},tcp:5191,10.0.0.5 timeout 1[5-8]\d comment "nfreaim oscar"$'
        assert re.search(entry, members, re.MULTILINE), members
        assert Transfer(alice, clients["bob"], "file").outcome().first_attempt
        assert daemon.stop() == 0
