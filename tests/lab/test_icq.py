"""ICQ's direct connections through real routers: opened, mapped back, kept, capped, off, forwarded."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.lab.icq_scene import UINS, status
from tests.lab.namespace import socket_in
from tests.lab.net import Lab
from tests.lab.scene import eventually
from tests.lab.standin import IcqClient, Server, icq_call

FORWARD = """
[[forward]]
host = "10.0.0.5"
ports = "4000-4009"
"""


@contextmanager
def online(lab: Lab, *hosts: str, mode: str = "oos", **write: object) -> Iterator[dict[str, IcqClient]]:
    """A server, and a client on each of these hosts."""
    server = Server(lab, mode, write or None)
    clients = {host: IcqClient(lab, host, *UINS[host]) for host in hosts}
    for standin in (server, *clients.values()):
        standin.wait_ready()
    for client in clients.values():
        client.sign_on(server)
    yield clients


def config(lab: Lab, text: str) -> tuple[str, str]:
    path = lab.log_file("config").with_suffix(".toml")
    path.write_text(text)
    return ("--config", str(path))


@pytest.mark.parametrize("mode", ["oos", "aol"])
@pytest.mark.parametrize("variant", ["legacy", "nft", "native-nft"])
def test_every_kind_between_every_pair(mode: str, variant: str) -> None:
    with Lab(variant, "nft") as lab:  # type: ignore[arg-type]
        if variant == "native-nft":
            accept = "ct mark and 0x2000000 == 0x2000000 ct status dnat accept"
            lab.run("A", "nft", "insert", "rule", "inet", "router", "forward", *accept.split())
        daemons = [lab.start_alg("A"), lab.start_alg("B")]
        with online(lab, "alice", "amy", "bob", "carol", mode=mode) as clients:
            for caller, listener, how, peer in (
                ("carol", "alice", "dial", "203.0.113.2"),
                ("alice", "carol", "dial", "203.0.113.1"),
                ("bob", "alice", "dial", "203.0.113.20"),
                ("bob", "amy", "dial", "203.0.113.20"),
                ("alice", "bob", "dial", "203.0.113.1"),
                ("amy", "alice", "dial", "10.0.0.6"),
                ("alice", "amy", "dial", "10.0.0.5"),
                ("carol", "alice", "ask_back", "203.0.113.2"),
                ("amy", "alice", "ask_back", "10.0.0.6"),
                ("carol", "alice", "chat", "203.0.113.2"),
                ("amy", "alice", "chat", "10.0.0.6"),
                ("carol", "alice", "dial", "203.0.113.2"),
            ):
                call = icq_call(clients[caller], clients[listener], how)
                assert (call.ok, call.peer) == (True, peer), (caller, listener, how, call)
        assert [daemon.stop() for daemon in daemons] == [0, 0]


@pytest.mark.parametrize("write", [{"name": "bytes"}, {"name": "random", "seed": 3}, {"name": "coalesced"}])
def test_however_the_server_cuts_what_it_writes(write: dict[str, object]) -> None:
    with Lab() as lab:
        lab.start_alg("A")
        with online(lab, "alice", "amy", "bob", mode="aol", **write) as clients:
            for caller, peer in (("bob", "203.0.113.20"), ("amy", "10.0.0.6")):
                for how in ("dial", "ask_back", "chat"):
                    call = icq_call(clients[caller], clients["alice"], how)
                    assert (call.ok, call.peer) == (True, peer), (caller, how, call)


def test_a_published_port_is_listed_moved_hidden_and_closed_with_its_connection() -> None:
    with Lab() as lab:
        daemon = lab.start_alg("A")
        with online(lab, "alice", "bob") as clients:
            alice = clients["alice"]
            (line,) = status(lab)
            assert re.fullmatch(
                r"pinhole 203\.0\.113\.1:4000 -> 10\.0\.0\.5:4000 for icq-direct of 10\.0\.0\.5:\d+, "
                r"while connected, oscar",
                line,
            ), line
            alice.call("publish", port=4050)
            daemon.wait_log("pinhole opened: 203.0.113.1:4050")
            daemon.wait_log("pinhole closed: 203.0.113.1:4000 -> 10.0.0.5:4000")
            alice.call("publish", port=0, kind=0)
            daemon.wait_log("no longer published")
            eventually(lambda: status(lab) == [])  # an answer may be half a second old
            alice.call("publish")
            daemon.wait_log("pinhole opened: 203.0.113.1:4000 -> 10.0.0.5:4000", 5.0)
            alice.call("sign_off", how="reset")
            daemon.wait_log("control connection lost")
            eventually(lambda: status(lab) == [])


def test_a_session_survives_a_crash_and_ends_with_its_connection() -> None:
    with Lab() as lab:
        lab.start_alg("A").kill()
        lab.run("A", "sh", "-c", "rules/nfreaim-rules install --lan lan --wan wan")
        first = lab.start_alg("A")
        with online(lab, "alice", "amy", "bob") as clients:
            assert icq_call(clients["bob"], clients["alice"]).ok
            before = status(lab)
            first.kill()
            assert icq_call(clients["bob"], clients["alice"]).ok, "nobody is needed for what is open"
            second = lab.start_alg("A")
            assert set(status(lab)) == set(before)
            assert icq_call(clients["bob"], clients["alice"]).ok
            clients["alice"].call("sign_off")
            second.wait_log("pinhole closed: 203.0.113.1:4000 -> 10.0.0.5:4000: signed off")
            eventually(lambda: len(status(lab)) == 1)
            assert second.stop() == 0
            assert status(lab) == []


def test_a_crash_during_which_the_client_left_leaves_nothing_open() -> None:
    with Lab() as lab:
        lab.run("A", "sh", "-c", "rules/nfreaim-rules install --lan lan --wan wan")
        first = lab.start_alg("A")
        with online(lab, "alice") as clients:
            first.kill()
            clients["alice"].call("sign_off", how="reset")
            second = lab.start_alg("A")
            second.wait_log("pinhole closed: 203.0.113.1:4000 -> 10.0.0.5:4000")
            assert status(lab) == []


@pytest.mark.parametrize(
    ("text", "served"),
    [
        ('icq_direct = "off"', []),
        ('icq_direct = ["10.0.0.6"]', ["10.0.0.6"]),
        ('icq_direct = ["10.0.0.5", "10.0.0.6"]', ["10.0.0.5", "10.0.0.6"]),
        ("[pinholes]\nicq_per_host = 1", ["10.0.0.5", "10.0.0.6"]),
    ],
)
def test_who_is_served(text: str, served: list[str]) -> None:
    with Lab() as lab:
        daemon = lab.start_alg("A", config(lab, text))
        with online(lab, "alice", "amy", "bob") as clients:
            second = IcqClient(lab, "alice", "100033", "md5", first_port=4100)
            second.wait_ready()
            second.sign_on("203.0.113.9:5190")
            if "per_host" in text:
                daemon.wait_log("1 session-long pinholes to one host (icq_per_host)")
            else:
                lines = 2 if "10.0.0.5" in served else 0
                assert sum("-> 10.0.0.5" in line for line in status(lab)) == lines
            found = {line.split()[3].partition(":")[0] for line in status(lab)}
            assert sorted(found) == served
            for host in ("alice", "amy"):
                call = icq_call(clients["bob"], clients[host])
                assert call.ok == (f"10.0.0.{5 if host == 'alice' else 6}" in served), (host, call)


LISTEN = """
import socket, sys
with socket.create_server(("0.0.0.0", int(sys.argv[1]))) as listener:
    print("ready", flush=True)
    listener.accept()[0].sendall(b"forwarded")
"""
FETCH = """
import socket, sys
try:
    print(socket.create_connection((sys.argv[1], int(sys.argv[2])), 2).makefile().read())
except OSError as error:
    print(type(error).__name__)
"""


@pytest.mark.parametrize("variant", ["legacy", "nft"])
def test_forwards_lead_to_their_host_and_are_gone_with_the_daemon(variant: str) -> None:
    with Lab(variant) as lab:  # type: ignore[arg-type]
        lab.run("A", "sh", "-c", "rules/nfreaim-rules install --lan lan --wan wan")
        before = lab.firewall_rules("A")
        daemon = lab.start_alg("A", config(lab, FORWARD))
        assert status(lab) == ["forward 4000-4009 -> 10.0.0.5"]
        for port, heard in (("4003", "forwarded"), ("4010", "TimeoutError")):
            listening = lab.spawn("alice", sys.executable, "-c", LISTEN, port, pipes=True)
            assert listening.stdout is not None
            listening.stdout.readline()
            assert lab.run("bob", sys.executable, "-c", FETCH, "203.0.113.1", port).stdout.strip() == heard
            listening.kill()
            listening.wait(5)
        with online(lab, "alice", "amy", "bob") as clients:
            lines = status(lab)
            assert any("203.0.113.1:4000 -> 10.0.0.5:4000" in line for line in lines), lines
            assert any("203.0.113.1:40000 -> 10.0.0.6:4000" in line for line in lines), lines
            for host in ("alice", "amy"):
                assert icq_call(clients["bob"], clients[host]).ok
        assert daemon.stop() == 0
        assert lab.firewall_rules("A") == before


def test_forwards_that_a_crash_left_follow_the_new_configuration() -> None:
    with Lab() as lab:
        lab.run("A", "sh", "-c", "rules/nfreaim-rules install --lan lan --wan wan")
        before = lab.firewall_rules("A")
        lab.start_alg("A", config(lab, FORWARD)).kill()
        assert len(status(lab)) == 1
        other = FORWARD.replace("10.0.0.5", "10.0.0.6").replace("4000-4009", "4005")
        daemon = lab.start_alg("A", config(lab, other))
        assert status(lab) == ["forward 4005 -> 10.0.0.6"]
        daemon.kill()
        daemon = lab.start_alg("A")
        assert status(lab) == []
        assert daemon.stop() == 0
        assert lab.firewall_rules("A") == before


def test_stranger_at_a_published_port_is_reset_unless_it_begins_like_a_client() -> None:
    with Lab() as lab:
        daemon = lab.start_alg("A")
        with online(lab, "alice", "bob") as clients:
            with socket_in(lab, "server") as stranger:
                stranger.settimeout(5.0)
                stranger.connect(("203.0.113.1", 4000))
                stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
                with pytest.raises(ConnectionResetError):
                    stranger.recv(1)
            daemon.wait_log("peer refused: 203.0.113.9:")
            for how in ("dial", "ask_back", "chat"):
                assert icq_call(clients["bob"], clients["alice"], how).ok, how
