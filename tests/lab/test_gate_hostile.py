"""Strangers at an open port: with something in reserve, half open, or with the proposer's help."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.attacks import network, wire
from tests.attacks.forged_session import MD5
from tests.lab.forged import Forger, Sender
from tests.lab.namespace import socket_in
from tests.lab.net import ADDRESS
from tests.lab.scene import Scene, eventually, scene
from tests.lab.sockets import exactly
from tests.lab.standin import Client
from tests.oscar import peer_headers as peer
from tests.oscar import rendezvous as rdv
from tests.tcp.packets import ACK, SYN, mss, packet

COOKIE = b"4711471\0"
HEADER = peer.oft_header(peer.ACK, COOKIE, 1, 0, "f.bin")
CLIENT_HELLO = bytes.fromhex("16030100f8010000f40303") + bytes(242)
HTTP = b"GET / HTTP/1.1\r\nHost: 203.0.113.1\r\n\r\n"
STRANGER, NOBODY = "203.0.113.66", "203.0.113.67"  # one by hand on node server; the other is nowhere
UNKNOWN = rdv.capability(0x13EE)  # of no service that anybody knows


@pytest.fixture(scope="module")
def made() -> Iterator[Scene]:
    with scene(settings="[pinholes]\nrate_per_host = 1000\n") as one:
        yield one
        assert "ERROR" not in one.daemon.log_text()
        assert one.daemon.stop() == 0


@pytest.fixture(scope="module")
def alice(made: Scene) -> Client:
    alice, bob = made.clients(made.server(), ("alice", "Alice"), ("bob", "Bobby"))
    bob.call("policy", action="ignore")
    return alice


def say(client: Client, kind: int, inner: bytes = b"", service: bytes = rdv.SEND_FILE) -> None:
    body = wire.body_to_server("Bobby", COOKIE, kind, inner, service)
    client.call("send_snac", family=4, subtype=6, body=body.hex())


@contextmanager
def offered(made: Scene, client: Client, port: int, secure: bool = False) -> Iterator[socket.socket]:
    """A listener on alice, whose port is offered, and its pinhole; cancelled in the end."""
    with network.listen(made.lab, "alice", port, "0.0.0.0") as listener:
        listener.settimeout(5.0)
        say(client, rdv.PROPOSE, wire.offer(ADDRESS["alice"], port, secure))
        eventually(lambda: made.pinhole_of(f"{ADDRESS['alice']}:{port}"))
        try:
            yield listener
        finally:
            say(client, rdv.CANCEL)
            eventually(lambda: not made.pinholes())


def real_peer(made: Scene, listener: socket.socket, port: int, first: bytes = HEADER) -> None:
    """bob connects, says what was promised, and alice's side hears it, whose FIN is what acknowledges it."""
    with socket_in(made.lab, "bob") as caller:
        caller.connect((network.ROUTER, port))
        host = None
        while host is None:
            one, whose = listener.accept()
            if whose == caller.getsockname():
                host = one
            else:
                one.close()
        with host:
            host.settimeout(5.0)
            host.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
            caller.sendall(first)
            assert exactly(host, len(first)) == first


def reserved(stranger: Forger) -> None:
    """A SYN that alice's kernel drops without an answer."""
    stranger(stranger.made(SYN, tcp_options=mss(1460) + MD5))
    time.sleep(0.2)


def completes(stranger: Forger) -> bool:
    """Whether a plain SYN of the same ports is answered."""
    stranger(stranger.made(SYN, tcp_options=mss(1460)))
    try:
        stranger.await_packet(lambda flags, _: flags == SYN | ACK, 2.0)
    except AssertionError:
        return False
    return True


@pytest.mark.parametrize("secure", [False, True], ids=["gated", "tls"])
def test_connection_in_reserve_does_not_complete_after_the_pinhole_has_closed(
    made: Scene, alice: Client, secure: bool
) -> None:
    port = 6100 + secure
    with (
        network.listen(made.lab, "alice", port, "0.0.0.0"),
        Forger(made.lab, "server", (STRANGER, 40000 + port), (network.ROUTER, port)) as stranger,
    ):
        say(alice, rdv.PROPOSE, wire.offer(ADDRESS["alice"], port, secure))
        eventually(lambda: made.pinhole_of(f"{ADDRESS['alice']}:{port}"))
        reserved(stranger)
        say(alice, rdv.CANCEL)
        eventually(lambda: not made.pinholes())
        time.sleep(0.5)
        assert not completes(stranger)


@pytest.mark.parametrize("secure", [False, True], ids=["gated", "tls"])
def test_connection_in_reserve_does_not_complete_after_the_pinhole_was_claimed(
    made: Scene, alice: Client, secure: bool
) -> None:
    port = 6110 + secure
    with (
        offered(made, alice, port, secure) as listener,
        Forger(made.lab, "server", (STRANGER, 40000 + port), (network.ROUTER, port)) as stranger,
    ):
        reserved(stranger)
        real_peer(made, listener, port, CLIENT_HELLO if secure else HEADER)
        eventually(lambda: f"pinhole claimed: {network.ROUTER}:{port}" in made.daemon.log_text())
        time.sleep(0.5)
        assert not completes(stranger)


def test_real_peer_gets_in_beside_more_half_open_connections_than_the_gate_counts(
    made: Scene, alice: Client
) -> None:
    port, count = 6120, 4200
    with offered(made, alice, port) as listener, Sender(made.lab, "server") as stranger:
        target = network.ROUTER, port
        for number in range(count):
            source = NOBODY, 1024 + number
            stranger(packet(source, target, number << 8, 0, SYN, tcp_options=mss(1460)))
            if number % 100 == 99:
                time.sleep(0.05)
        real_peer(made, listener, port)


def test_proposer_cannot_switch_the_gate_off(made: Scene, alice: Client) -> None:
    """An offer that speaks of TLS: what is no TLS is refused like anywhere."""
    port = 6130
    with offered(made, alice, port, secure=True) as listener, socket_in(made.lab, "bob") as caller:
        caller.connect((network.ROUTER, port))
        host, _ = listener.accept()
        caller.sendall(HTTP)
        with host, pytest.raises(ConnectionResetError):
            caller.recv(100)


def test_service_that_nobody_knows_gets_no_pinhole(made: Scene, alice: Client) -> None:
    inner = wire.offer(ADDRESS["alice"], 6140)
    say(alice, rdv.PROPOSE, inner, UNKNOWN)
    time.sleep(1.0)
    found = made.pinholes()
    say(alice, rdv.CANCEL, service=UNKNOWN)
    assert found == set()
