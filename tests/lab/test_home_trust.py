"""Whose word counts for a server: programs that can be reached on its port, and name hosts of the LAN."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator

import pytest

from tests.lab import home
from tests.lab.home_talk import (
    SECOND,
    Claimant,
    RouterClaimant,
    listen_as,
    second_network,
    serve_udp,
)
from tests.lab.net import ADDRESS, LAN, WAN, Daemon, Lab, Variant
from tests.lab.scene import Scene, eventually, nfreaim

ALICE, AMY = ADDRESS["alice"], ADDRESS["amy"]
UPNP, PCP = 1900, 5351
SYSTEM, PLAIN, NOBODY = 113, 1001, 65534
NAMED = 'home_servers = ["10.0.0.6"]\n'
# A program that forwards ports on request keeps its rules in a chain of its own.
ON_REQUEST = (
    "-t nat -N MINIUPNPD",
    "-t nat -A PREROUTING -i wan -j MINIUPNPD",
    f"-t nat -A MINIUPNPD -p tcp -m tcp --dport 5190 -j DNAT --to-destination {AMY}:5190",
)
EVERYTHING = (f"-t nat -A PREROUTING -i wan -j DNAT --to-destination {AMY}",)
RANGE = (f"-t nat -A PREROUTING -i wan -p tcp --dport 5190:5199 -j DNAT --to-destination {AMY}",)
ACCEPT = (f"-A FORWARD -i wan -d {AMY} -p tcp --dport 5190 -j ACCEPT",)


def rules(lab: Lab, *lines: str) -> None:
    for line in lines:
        lab.run("A", "iptables-legacy", *line.split())


def said(daemon: Daemon) -> list[str]:
    """What the operator is told about servers that nobody vouches for."""
    return [line for line in daemon.log_text().splitlines() if "may not speak for others" in line]


@pytest.fixture(params=[1, 2], ids=["one process", "two workers"])
def workers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("NFREAIM_WORKERS", str(request.param))
    return int(request.param)


def test_operators_forward_and_a_client_across_our_bridge(workers: int) -> None:
    with Lab() as lab:
        home.forward(lab, inside=AMY)
        made = Scene(lab)
        made.restart()
        with Claimant(lab, "amy") as amy:
            assert not amy.names(ALICE), "alice has no connection to amy, and it would be seen"
            assert made.pinholes() == set()
            assert len(said(made.daemon)) == 1
            with amy.client("alice", AMY):
                eventually(lambda: amy.names(ALICE))
                assert {hole.inside for hole in made.pinholes()} == {f"{ALICE}:8123"}
                assert not amy.names(ADDRESS["hsrv"])
            assert amy.names(AMY, 8124), "a client on the server's own host is seen by nobody"
        assert made.daemon.stop() == 0


def test_what_a_bridge_does_not_show_is_not_demanded() -> None:
    with Lab() as lab:
        lab.run("A", "sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=0")
        home.forward(lab, inside=AMY)
        made = Scene(lab)
        made.restart()
        with Claimant(lab, "amy") as amy:
            assert amy.names(ALICE)


@pytest.mark.parametrize("variant", ["nft", "native-nft"])
def test_forwards_are_found_in_each_dialect(variant: Variant) -> None:
    with Lab(variant) as lab:
        lab.run("A", "sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=0")
        home.forward(lab, inside=AMY)
        made = Scene(lab)
        made.restart()
        with Claimant(lab, "amy") as amy:
            assert amy.names(ALICE)


@pytest.mark.parametrize("port", [UPNP, PCP])
def test_forwards_of_a_router_that_makes_them_on_request_prove_nothing(port: int, workers: int) -> None:
    with Lab() as lab:
        home.forward(lab, inside=AMY)
        made = Scene(lab)
        served = serve_udp(lab, port)
        made.restart()
        with Claimant(lab, "amy") as amy, amy.client("alice", AMY):
            for host in (ALICE, AMY):
                assert not amy.names(host)
            served.close()  # its rules stay
            assert not amy.names(ALICE, 8124)
        (line,) = said(made.daemon)
        what = "UPnP" if port == UPNP else "PCP"
        assert f"10.0.0.6:5190 may not speak for others: this router serves {what}" in line
        assert re.search(r'write home_servers = \["10.0.0.6"\] in /tmp/\S+\.toml$', line)
        assert made.pinholes() == set()
        assert made.daemon.stop() == 0
        made.restart(settings=NAMED)
        with serve_udp(lab, port), Claimant(lab, "amy") as amy:
            assert amy.names(ALICE), "the operator did what the line says"


def test_a_pause_of_upnp_makes_no_rule_the_operators() -> None:
    with Lab() as lab:
        home.forward(lab, inside=AMY)
        made = Scene(lab)
        served = serve_udp(lab, UPNP)
        made.restart()
        time.sleep(1.5)  # it looks every second
        served.close()
        with Claimant(lab, "amy") as amy, amy.client("alice", AMY):
            assert not amy.names(ALICE)


@pytest.mark.parametrize("lines", [EVERYTHING, RANGE, ON_REQUEST], ids=["DMZ", "range", "left by UPnP"])
def test_rules_that_make_nobody_a_server(lines: tuple[str, ...]) -> None:
    with Lab() as lab:
        rules(lab, *lines, *ACCEPT)
        made = Scene(lab)
        made.restart()
        with Claimant(lab, "amy") as amy, amy.client("alice", AMY):
            for host in (ALICE, AMY):
                assert not amy.names(host)
        (line,) = said(made.daemon)
        assert "no rule forwards exactly 203.0.113.1:5190 to it" in line
        assert made.pinholes() == set()


def test_odd_hosts_of_a_server_that_is_named() -> None:
    with Lab() as lab:
        home.forward(lab, inside=AMY)
        made = Scene(lab)
        made.restart(settings=NAMED)
        with Claimant(lab, "amy") as amy:
            for host in ("10.0.0.0", "10.0.0.255", LAN["A"], WAN["A"], "127.0.0.1", "203.0.113.9"):
                assert not amy.names(host), host
            assert not amy.names(ALICE, 8080)
            assert amy.names(ALICE)
            assert {hole.inside for hole in made.pinholes()} == {f"{ALICE}:8123"}


def test_another_port_than_the_named_one_is_not_meant() -> None:
    with Lab() as lab:
        rules(lab, *EVERYTHING, *ACCEPT)
        made = Scene(lab)
        made.restart(settings='home_servers = ["10.0.0.6:5191", "10.0.0.5"]\n')
        with Claimant(lab, "amy") as amy:
            assert not amy.names(ALICE)


def test_check_says_what_to_write() -> None:
    def found(settings: str = "") -> list[str]:
        path = lab.log_file("check").with_suffix(".toml")
        path.write_text(settings)
        printed = nfreaim(lab, "A", "check", "--lan", "lan", "--wan", "wan", "--config", str(path))
        lines = [line for line in printed.splitlines() if "speak for" in line or "no server" in line]
        return [line.replace(str(path), "FILE") for line in lines]

    with Lab() as lab:
        assert found() == []
        home.forward(lab, inside=AMY)
        inside = "10.0.0.6:5190"
        good = f"ok   {inside} is a server that may speak for its clients"
        assert found() == [good]
        with serve_udp(lab, UPNP):
            assert found(NAMED) == [good]
            (line,) = found()
        assert line.startswith(f"warn {inside} may not speak for others: this router serves UPnP")
        assert line.endswith(' -> write home_servers = ["10.0.0.6"] in FILE')
        rules(lab, "-t nat -A PREROUTING -i wan -j DNAT --to-destination 10.0.0.5")
        assert found()[0].endswith('if it is one, write home_servers = ["10.0.0.5"] in FILE')
        program = listen_as(lab, PLAIN)
        assert found()[-1] == (
            "warn a server on port 5190 of this router may not speak for others: user 1001 runs it, or can, "
            "who is no system user -> run it as a system user, or name its user in home_server_users in FILE"
        )
        assert found("home_server_users = [1001]\n")[-1].startswith("ok   a server on port 5190")
        program.kill()
        program.wait(10)
        listen_as(lab, SYSTEM)
        assert found()[-1].startswith("ok   a server on port 5190")


# --- on the router ---


@contextlib.contextmanager
def on_router(settings: str = "") -> Iterator[Scene]:
    with Lab() as lab:
        home.open_port(lab)
        made = Scene(lab)
        made.restart(settings=settings)
        yield made


@pytest.mark.parametrize("user", [NOBODY, PLAIN])
def test_a_plain_user_of_the_router_gets_nothing(user: int, workers: int) -> None:
    with on_router() as made, RouterClaimant(made.lab, user) as claimant:
        assert not claimant.names(ALICE)
        assert not claimant.names(ALICE, 8124)
        (line,) = said(made.daemon)
        assert f"user {user} runs it, or can, who is no system user" in line
        assert "home_server_users" in line
        assert made.pinholes() == set()


@pytest.mark.parametrize(
    ("user", "settings"),
    [
        (0, ""),
        (SYSTEM, ""),
        (PLAIN, "home_server_users = [1001]\n"),
        (NOBODY, 'home_server_users = ["nobody"]\n'),
    ],
)
def test_a_system_user_or_a_configured_one_is_the_operators(user: int, settings: str, workers: int) -> None:
    with on_router(settings) as made, RouterClaimant(made.lab, user) as claimant:
        assert claimant.names(ALICE)
        assert {hole.inside for hole in made.pinholes()} == {f"{ALICE}:8123"}


def test_a_listener_that_the_system_replaces_leaves_its_connection_behind() -> None:
    with on_router() as made, RouterClaimant(made.lab, NOBODY) as claimant:
        claimant.stop_listening()
        listen_as(made.lab, SYSTEM)
        assert not claimant.names(ALICE)


def test_a_plain_user_who_could_get_the_connection_spoils_it() -> None:
    with on_router() as made, RouterClaimant(made.lab, SYSTEM, WAN["A"]) as claimant:
        assert claimant.names(ALICE)
        listen_as(made.lab, PLAIN, LAN["A"])
        assert claimant.names(ALICE, 8124), "that one listens at another address"
        listen_as(made.lab, PLAIN, "::")  # it cannot be seen whether IPv4 is excluded
        eventually(lambda: not claimant.names(ALICE, 8125))


# --- routed clients ---


@contextlib.contextmanager
def routed(strict: int) -> Iterator[tuple[Scene, Claimant]]:
    """UPnP on the router, amy's server in one network, and alice in another."""
    with Lab() as lab, serve_udp(lab, UPNP):
        second_network(lab, "alice")
        rules(lab, "-I FORWARD -i lan2 -j ACCEPT")
        lab.run("A", "sysctl", "-qw", f"net.ipv4.conf.lan.rp_filter={strict}")
        home.forward(lab, inside=AMY)
        made = Scene(lab)
        made.daemons["A"] = lab.start_alg("A", ("--lan", "lan2", *start_options(lab)))
        with Claimant(lab, "amy") as amy:
            yield made, amy


def start_options(lab: Lab) -> tuple[str, ...]:
    path = lab.log_file("settings-A").with_suffix(".toml")
    path.write_text("")
    return "--config", str(path)


def test_a_routed_clients_own_connection_vouches_for_this_client_alone(workers: int) -> None:
    with routed(strict=1) as (made, amy):
        assert not amy.names(SECOND["alice"])
        with amy.client("alice", AMY):
            eventually(lambda: amy.names(SECOND["alice"]))
            for host in (AMY, "10.0.0.77", "10.0.1.6"):
                assert not amy.names(host)
        assert {hole.inside for hole in made.pinholes()} == {f"{SECOND['alice']}:8123"}


def test_a_connection_that_was_picked_up_proves_nothing() -> None:
    with routed(strict=1) as (made, amy), amy.client("alice", AMY) as client:
        made.lab.run("A", "conntrack", "-D", "-p", "tcp", "-s", SECOND["alice"])

        def assured() -> bool:
            client.sendall(b"z")
            return "ASSURED" in made.lab.run("A", "conntrack", "-L", "-s", SECOND["alice"]).stdout

        eventually(assured)
        assert not amy.names(SECOND["alice"])


def test_a_connection_that_the_servers_network_could_imitate_proves_nothing() -> None:
    with routed(strict=2) as (_, amy), amy.client("alice", AMY):
        assert not amy.names(SECOND["alice"])


def test_a_connection_across_the_bridge_could_be_imitated() -> None:
    with Lab() as lab, serve_udp(lab, UPNP):
        home.forward(lab, inside=AMY, hairpin=True)
        made = Scene(lab)
        made.restart()
        with Claimant(lab, "amy") as amy, amy.client("alice", AMY), amy.client("alice", WAN["A"]):
            assert not amy.names(ALICE)
