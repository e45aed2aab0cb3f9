"""Pinholes of MSN Messenger on a real router: who gets through, how long they stay, and what comes then.

Both ends of the control connections are sockets of this process: what they say is the subject of other tests.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
from collections.abc import Iterator

import pytest

from tests.lab import kernel_sets
from tests.lab.namespace import socket_in
from tests.lab.net import ADDRESS, SERVER, WAN
from tests.lab.scene import Scene, eventually, nfreaim, scene
from tests.lab.sockets import exactly

OUTSIDE, ALICE = WAN["A"], ADDRESS["alice"]
FOO = b"\4\0\0\0foo\0" + b"\x30\0\0\0" + bytes(48)


class Talk:
    """One connection of alice's to the server, on a port."""

    def __init__(self, made: Scene, port: int) -> None:
        self._listener = socket_in(made.lab, "server")
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind((SERVER, port))
        self._listener.listen(1)
        self.client = socket_in(made.lab, "alice")
        self.client.connect((SERVER, port))
        self.server, _ = self._listener.accept()
        self.server.settimeout(10.0)

    def say(self, data: bytes, arrives: bytes = b"") -> None:
        self.client.sendall(data)
        assert exactly(self.server, len(arrives or data)) == (arrives or data)

    def hear(self, data: bytes) -> None:
        self.server.sendall(data)
        assert exactly(self.client, len(data)) == data

    def close(self) -> None:
        self.client.close()
        self.server.close()
        self._listener.close()


@pytest.fixture(scope="module")
def made() -> Iterator[Scene]:
    with scene(settings='protocols = ["oscar", "msn"]\n') as running:
        yield running


@contextlib.contextmanager
def signed_on(made: Scene) -> Iterator[tuple[Talk, Talk]]:
    """A session and a conversation of alice's."""
    session, talk = Talk(made, 1863), Talk(made, 1864)
    with contextlib.closing(session), contextlib.closing(talk):
        session.say(b"VER 1 MSNP8 CVR0\r\n")
        session.hear(b"VER 1 MSNP8\r\n")
        session.say(b"USR 2 MD5 I alice1@lab.test\r\n")
        session.hear(b"USR 2 OK alice1@lab.test alice 1\r\n")
        talk.say(b"USR 1 alice1@lab.test token\r\n")
        talk.hear(b"USR 1 OK alice1@lab.test alice\r\n")
        yield session, talk


def accept(address: str, port: int) -> bytes:
    payload = (
        b"MIME-Version: 1.0\r\nContent-Type: text/x-msmsgsinvite; charset=UTF-8\r\n\r\n"
        b"Invitation-Command: ACCEPT\r\nInvitation-Cookie: %d\r\nIP-Address: %s\r\nPort: %d\r\n"
        b"AuthCookie: 7\r\n\r\n" % (port, address.encode(), port)
    )
    return b"MSG 2 N %d\r\n" % len(payload) + payload


def slp(address: str, port: int) -> bytes:
    """A message of P2P version 1 in which somebody listens."""
    body = (
        b"Bridge: TCPv1\r\nListening: true\r\nNonce: {0216231B-E9E8-1F16-E7CD-90118D43EF66}\r\n"
        b"IPv4External-Addrs: %s\r\nIPv4External-Port: %d\r\n\r\n\0" % (address.encode(), port)
    )
    text = (
        b"MSNSLP/1.0 200 OK\r\nTo: <msnmsgr:b@lab.test>\r\nFrom: <msnmsgr:a@lab.test>\r\n"
        b"Call-ID: {A54D2E1E-3C40-3C8D-90B8-35445084824B}\r\n"
        b"Content-Type: application/x-msnmsgr-transrespbody\r\nContent-Length: %d\r\n\r\n" % len(body)
    ) + body
    header = struct.pack("<IIQQIIIIQ", 0, 9, 0, len(text), len(text), 0, 7, 0, 0)
    payload = (
        b"MIME-Version: 1.0\r\nContent-Type: application/x-msnmsgrp2p\r\nP2P-Dest: b@lab.test\r\n\r\n"
        + header
        + text
        + bytes(4)
    )
    return b"MSG 3 D %d\r\n" % len(payload) + payload


def announce(made: Scene, talk: Talk, port: int) -> None:
    talk.say(accept(ALICE, port), accept(OUTSIDE, port))
    assert made.pinhole_of(f"{ALICE}:{port}") is not None


def reach(made: Scene, port: int) -> str:
    """What becomes of a connection from bob to the router's port."""
    with socket_in(made.lab, "bob") as caller:
        caller.settimeout(0.7)
        try:
            caller.connect((OUTSIDE, port))
        except TimeoutError:
            return "no answer"
        except ConnectionRefusedError:
            return "refused"
        return "connected"


def shut(made: Scene) -> str:
    return kernel_sets.saved(made.lab, "A", "nfreaim_shut")


def test_peer_that_greets_gets_through(made: Scene) -> None:
    with signed_on(made) as (_, talk), socket_in(made.lab, "alice") as listening:
        listening.bind((ALICE, 6891))
        listening.listen(1)
        announce(made, talk, 6891)
        with socket_in(made.lab, "bob") as peer:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer.connect((OUTSIDE, 6891))
            inside, _ = listening.accept()
            inside.settimeout(10.0)
            for piece in (b"VER", b" MSN", b"FTP\r\n"):
                peer.sendall(piece)
            assert exactly(inside, 12) == b"VER MSNFTP\r\n"
            inside.sendall(b"VER MSNFTP\r\n")
            assert exactly(peer, 12) == b"VER MSNFTP\r\n"
            inside.close()


def test_direct_connection_greets_in_four_segments(made: Scene) -> None:
    """As libpurple sends it."""
    with signed_on(made) as (_, talk), socket_in(made.lab, "alice") as listening:
        listening.bind((ALICE, 6896))
        listening.listen(1)
        talk.say(slp(ALICE, 6896), slp(OUTSIDE, 6896))
        with socket_in(made.lab, "bob") as peer:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer.connect((OUTSIDE, 6896))
            inside, _ = listening.accept()
            inside.settimeout(10.0)
            for low, high in ((0, 4), (4, 8), (8, 12), (12, 60)):
                peer.sendall(FOO[low:high])
                assert exactly(inside, high - low) == FOO[low:high]
            inside.sendall(FOO)
            assert exactly(peer, len(FOO)) == FOO
            inside.close()


def test_pinhole_outlives_its_switchboard_and_not_the_session(made: Scene) -> None:
    with signed_on(made) as (session, talk):
        announce(made, talk, 6892)
        talk.close()
        eventually(lambda: re.search(r" \d+ s +\d+ s ", nfreaim(made.lab, "A", "status")))
        left = nfreaim(made.lab, "A", "status")
        assert made.pinhole_of(f"{ALICE}:6892") is not None, left
        session.close()
        eventually(lambda: made.pinhole_of(f"{ALICE}:6892") is None)
    assert f"{OUTSIDE},tcp:6892" in shut(made)


def test_late_peer_gets_no_answer_unless_somebody_has_the_port_by_then(made: Scene) -> None:
    made.lab.run("A", *"iptables-legacy -I INPUT -i wan -p tcp -j ACCEPT".split())
    assert reach(made, 6893) == "refused"
    with signed_on(made) as (session, talk):
        announce(made, talk, 6894)
        talk.close()
        session.close()
        eventually(lambda: f"{OUTSIDE},tcp:6894" in shut(made))
        assert reach(made, 6894) == "no answer"
    with socket_in(made.lab, "A") as own:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        own.bind((OUTSIDE, 6894))
        own.listen(1)
        eventually(lambda: f"{OUTSIDE},tcp:6894" not in shut(made))
        assert reach(made, 6894) == "connected"
    with signed_on(made) as (session, talk):
        announce(made, talk, 6895)
        session.close()
        talk.close()
        eventually(lambda: f"{OUTSIDE},tcp:6895" in shut(made))
    with signed_on(made) as (_, talk), socket_in(made.lab, "alice") as listening:
        listening.bind((ALICE, 6895))
        listening.listen(1)
        announce(made, talk, 6895)
        assert f"{OUTSIDE},tcp:6895" not in shut(made)
        assert reach(made, 6895) == "connected"
