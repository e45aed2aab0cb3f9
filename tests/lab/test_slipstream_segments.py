"""Segments and fragments that no kernel would send, so that we and the receiver read different things.

A client by hand on the LAN, or a server by hand outside; the other end is a kernel that must receive what TCP
makes of it. What the client opens for its own host by a whole session is its own affair; here it never speaks
one from the first byte on.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.lab.capture import Capture
from tests.lab.forged import Forger
from tests.lab.namespace import socket_in
from tests.lab.net import ADDRESS
from tests.lab.scene import eventually
from tests.lab.slipstream import HOST_ONLINE, SERVER_PART, SIGN_ON, Hostile, proposal, same
from tests.lab.sockets import exactly
from tests.tcp.packets import ACK, FIN, PSH_ACK, RST, SYN, URG, cut, fragment, mss

CLIENT, SERVER = ("10.0.0.66", 40666), ("203.0.113.66", 5190)
HTTP = b"POST / HTTP/1.1\r\nHost: x\r\n\r\n"
MALLORY = proposal(CLIENT[0])
SESSION = SIGN_ON + HOST_ONLINE + MALLORY
# As long as the session, and not one.
OTHER = HTTP.ljust(len(SESSION), b"*")
MIB = 1 << 20


class Talk:
    """A client by hand, and the socket of the server that it is connected to."""

    def __init__(self, client: Forger, server: socket.socket) -> None:
        self.client, self.server = client, server

    def say(self, data: bytes) -> None:
        """The client sends; the server's kernel receives exactly that, and answers with its own part."""
        self.client.send(PSH_ACK, data)
        assert same(exactly(self.server, len(data)), data)
        before = len(self.client.got)
        self.server.sendall(SERVER_PART)
        self.client.await_bytes(before + len(SERVER_PART))
        assert same(self.client.got[before:], SERVER_PART)
        self.client(self.client.made(ACK))

    def session(self) -> None:
        """Every part of a session, each in its segment."""
        for part in (SIGN_ON, HOST_ONLINE, MALLORY, SESSION):
            self.say(part)

    def silent(self) -> None:
        """Nothing of what was sent has reached the server's program."""
        self.server.setblocking(False)
        with pytest.raises(BlockingIOError):
            self.server.recv(1)
        self.server.settimeout(10.0)


_ports = iter(range(40666, 41666))


@contextlib.contextmanager
def connecting(hostile: Hostile) -> Iterator[tuple[Forger, socket.socket]]:
    """A client by hand, not connected yet, and the socket that its server listens on."""
    own = (CLIENT[0], next(_ports))
    with (
        hostile.attack(),
        hostile.listen() as listener,
        Forger(hostile.made.lab, "amy", own, (ADDRESS["bob"], 5190)) as client,
    ):
        yield client, listener


@contextlib.contextmanager
def talking(hostile: Hostile, third: bytes = b"") -> Iterator[Talk]:
    """The same, connected; *third* are data of the third packet of the handshake."""
    with connecting(hostile) as (client, listener):
        client.connect()
        client.send(ACK, third)
        server, _ = listener.accept()
        with server:
            server.settimeout(10.0)
            yield Talk(client, server)


def passed(hostile: Hostile, talk: Talk, what: bytes) -> None:
    """A packet with these bytes has reached the server's wire."""
    port = talk.client.own[1]
    eventually(lambda: any(what in p.payload for p in hostile.air.packets if p.ports[0] == port))


# --- a client by hand --------------------------------------------------------------------------------------


def test_session_in_segments_behind_another_first_byte(hostile: Hostile) -> None:
    with talking(hostile) as talk:
        talk.say(HTTP)
        talk.session()


@pytest.mark.parametrize("session_wins", [False, True], ids=["first copy", "last copy"])
def test_fragments_that_overlap(hostile: Hostile, session_wins: bool) -> None:
    """Whichever copy a receiver believes: the kernel throws both away, before anybody reads them."""
    with talking(hostile) as talk, Capture(hostile.made.lab, "A", "p-amy") as wire:
        one, two = (OTHER, SESSION) if session_wins else (SESSION, OTHER)
        whole, again = talk.client.made(PSH_ACK, one), talk.client.made(PSH_ACK, two)
        talk.client(
            fragment(whole, 77, 0, whole[20:60], more=True),
            fragment(again, 77, 16, again[36:76], more=True),
            fragment(again, 77, 56, again[76:], more=False),
        )
        talk.say(HTTP)
        talk.session()
        eventually(lambda: len([p for p in wire.packets if p.ident == 77]) >= 3)


def test_tiny_fragments_with_a_session_at_a_boundary(hostile: Hostile) -> None:
    with talking(hostile) as talk, Capture(hostile.made.lab, "A", "p-amy") as wire:
        data = HTTP[:12] + SIGN_ON + HOST_ONLINE + MALLORY  # 20 bytes of TCP, then 12: a boundary of 8
        pieces = cut(talk.client.made(PSH_ACK, data), 78, 8)
        assert any(piece[20:].startswith(SIGN_ON[:8]) for piece in pieces)
        talk.client(*reversed(pieces))
        assert same(exactly(talk.server, len(data)), data)
        talk.client.seq += len(data)
        talk.session()
        eventually(lambda: len([p for p in wire.packets if p.ident == 78]) >= len(pieces))


def test_retransmission_with_a_session_in_place_of_other_bytes(hostile: Hostile) -> None:
    with talking(hostile) as talk:
        talk.say(OTHER)
        talk.client(talk.client.made(PSH_ACK, SESSION, off=-len(SESSION)))
        passed(hostile, talk, SIGN_ON)
        talk.silent()
        talk.session()


def test_retransmission_with_other_bytes_in_place_of_a_sign_on(hostile: Hostile) -> None:
    with talking(hostile) as talk:
        talk.say(SIGN_ON)
        longer = HTTP + SESSION  # its first bytes are old, the rest is new
        talk.client(talk.client.made(PSH_ACK, longer, off=-len(SIGN_ON)))
        talk.client.seq += len(longer) - len(SIGN_ON)
        new = longer[len(SIGN_ON) :]
        assert same(exactly(talk.server, len(new)), new)
        talk.session()


def test_session_behind_a_hole_that_other_bytes_fill(hostile: Hostile) -> None:
    with talking(hostile) as talk:
        before = hostile.made.queued()
        talk.client(talk.client.made(PSH_ACK, SESSION, off=len(HTTP)))
        talk.client(talk.client.made(PSH_ACK, SESSION, off=3))
        talk.say(HTTP)
        talk.session()
        assert hostile.made.queued() >= before + 3


def test_urgent_data_that_the_receiver_takes_out_of_the_stream(hostile: Hostile) -> None:
    with talking(hostile) as talk:
        # Its program reads a session from its first byte on: the one before is urgent, and comes apart.
        talk.client.send(PSH_ACK | URG, b"!" + SIGN_ON, urgent=1)
        eventually(lambda: select.select([], [], [talk.server], 0)[2])
        assert talk.server.recv(1, socket.MSG_OOB) == b"!"
        assert exactly(talk.server, len(SIGN_ON)) == SIGN_ON
        talk.session()


@pytest.mark.parametrize("early", [HTTP, SIGN_ON], ids=["other bytes", "sign-on"])
def test_data_in_the_syn(hostile: Hostile, early: bytes) -> None:
    with connecting(hostile) as (client, listener):
        client(client.made(SYN, early, tcp_options=mss(1460)))
        answer = client.await_packet(lambda flags, _: flags == SYN | ACK)
        client.seq, client.ack, client.got = client.seq + 1, answer.seq + 1, b""
        client.send(ACK)
        server, _ = listener.accept()
        with server:
            server.settimeout(10.0)
            Talk(client, server).session()


def test_data_before_the_answer_to_the_syn(hostile: Hostile) -> None:
    with connecting(hostile) as (client, listener):
        before = hostile.made.queued()
        client(client.made(SYN, tcp_options=mss(1460)), client.made(PSH_ACK, SIGN_ON, off=1, ack=1))
        answer = client.await_packet(lambda flags, _: flags == SYN | ACK)
        client.seq, client.ack, client.got = client.seq + 1, answer.seq + 1, b""
        client.send(ACK)
        server, _ = listener.accept()
        with server:
            server.settimeout(10.0)
            talk = Talk(client, server)
            talk.say(HTTP)
            talk.session()
        assert hostile.made.queued() >= before + 2


def test_data_in_the_third_packet_of_the_handshake(hostile: Hostile) -> None:
    with talking(hostile, third=HTTP) as talk:
        assert exactly(talk.server, len(HTTP)) == HTTP
        talk.session()


@pytest.mark.parametrize("first", [SIGN_ON, HTTP], ids=["sign-on", "other bytes"])
def test_first_bytes_whose_checksum_is_wrong(hostile: Hostile, first: bytes) -> None:
    """The receiver has never seen them, and gets others in their place."""
    with talking(hostile) as talk:
        before = hostile.made.queued()
        talk.client(talk.client.made(PSH_ACK, first, damage=1))
        eventually(lambda: hostile.made.queued() > before)
        talk.silent()
        if first == HTTP:
            talk.session()
        else:
            talk.say(HTTP)
            talk.session()


def test_sequence_jumps(hostile: Hostile) -> None:
    with talking(hostile) as talk:
        before = hostile.made.queued()
        jumps = [1, 1460, MIB, 3 * MIB, 5 * MIB, 2**30, 2**31 - 1, 2**31, -MIB, -5 * MIB]
        for jump in jumps:
            talk.client(talk.client.made(PSH_ACK, SESSION, off=jump))
        eventually(lambda: hostile.made.queued() >= before + len(jumps))
        talk.silent()
        talk.say(HTTP)
        talk.session()


def test_session_that_goes_on_behind_a_reset(hostile: Hostile) -> None:
    """Nobody reads on behind a reset; so nothing may be opened there, however perfect the session was."""
    with talking(hostile) as talk:
        for part in (SIGN_ON, HOST_ONLINE):
            talk.say(part)
        talk.client(talk.client.made(RST | ACK))
        with pytest.raises(ConnectionResetError):
            talk.server.recv(1)
        before = hostile.made.queued()
        talk.client(talk.client.made(PSH_ACK, MALLORY))
        eventually(lambda: hostile.made.queued() > before)
        assert not hostile.pinholes()


# --- a server by hand --------------------------------------------------------------------------------------


@contextlib.contextmanager
def serving(hostile: Hostile) -> Iterator[tuple[Forger, socket.socket, threading.Thread]]:
    """A server by hand, and alice's socket that is about to connect to it."""
    with (
        hostile.attack(),
        Forger(hostile.made.lab, "bob", SERVER) as server,
        socket_in(hostile.made.lab, "alice") as client,
    ):
        dialling = threading.Thread(target=lambda: client.connect(SERVER))
        dialling.start()
        yield server, client, dialling


@contextlib.contextmanager
def served(hostile: Hostile) -> Iterator[tuple[Forger, socket.socket]]:
    """The same, connected."""
    with serving(hostile) as (server, client, dialling):
        server.accept(tcp_options=mss(1460))
        dialling.join()
        yield server, client


def converse(server: Forger, client: socket.socket) -> None:
    """The client speaks HTTP, then a session that a page has put there; all arrives, and is answered."""
    for part in (HTTP, SIGN_ON, HOST_ONLINE, proposal(ADDRESS["alice"])):
        before = len(server.got)
        client.sendall(part)
        server.await_bytes(before + len(part))
        assert same(server.got[before:], part)
        server.send(PSH_ACK, SERVER_PART)
        assert same(exactly(client, len(SERVER_PART)), SERVER_PART)


def test_server_that_answers_the_syn_with_a_session(hostile: Hostile) -> None:
    with serving(hostile) as (server, client, dialling):
        syn = server.await_packet(lambda flags, _: flags & (SYN | ACK) == SYN)
        server.peer = syn.source
        server.ack = syn.seq + 1
        server(server.made(SYN | ACK, SERVER_PART, tcp_options=mss(1460)))
        server.seq += 1
        dialling.join()
        converse(server, client)


def test_server_that_answers_the_syn_with_a_syn(hostile: Hostile) -> None:
    """Both ends think that the other one is the server."""
    with serving(hostile) as (server, client, dialling):
        syn = server.await_packet(lambda flags, _: flags & (SYN | ACK) == SYN)
        server.peer = syn.source
        server.ack = syn.seq + 1
        server.send(SYN, tcp_options=mss(1460))
        server.await_packet(lambda flags, _: flags & (SYN | ACK) == SYN | ACK)
        server(server.made(SYN | ACK, off=-1))
        dialling.join()
        converse(server, client)


@pytest.mark.parametrize("session_wins", [False, True], ids=["first copy", "last copy"])
def test_server_whose_fragments_overlap(hostile: Hostile, session_wins: bool) -> None:
    with served(hostile) as (server, client), Capture(hostile.made.lab, "A", "wan") as wire:
        one, two = (OTHER, SESSION) if session_wins else (SESSION, OTHER)
        whole, again = server.made(PSH_ACK, one), server.made(PSH_ACK, two)
        server(
            fragment(whole, 79, 0, whole[20:60], more=True),
            fragment(again, 79, 16, again[36:76], more=True),
            fragment(again, 79, 56, again[76:], more=False),
        )
        converse(server, client)
        eventually(lambda: len([p for p in wire.packets if p.ident == 79]) >= 3)


def test_server_that_sends_tiny_fragments(hostile: Hostile) -> None:
    with served(hostile) as (server, client):
        data = server.made(PSH_ACK, SESSION)
        for number in range(80, 90):  # repeated, as TCP does
            for piece in cut(data, number, 8):
                server(piece)
                time.sleep(0.001)
            if select.select([client], [], [], 1.0)[0]:
                break
        else:
            pytest.fail("nothing has reached the client")
        server.seq += len(SESSION)
        assert same(exactly(client, len(SESSION)), SESSION)
        converse(server, client)


def test_server_that_repeats_its_bytes_as_others(hostile: Hostile) -> None:
    with served(hostile) as (server, client):
        server(server.made(PSH_ACK, SESSION, off=len(HTTP)))  # behind a gap
        server.send(PSH_ACK, OTHER)
        assert exactly(client, len(HTTP)) == HTTP
        rest = exactly(client, len(OTHER) - len(HTTP))
        assert rest in (OTHER[len(HTTP) :], SESSION[: len(rest)])
        server(server.made(PSH_ACK, SESSION, off=-len(SESSION)))
        converse_from(server, client)


def converse_from(server: Forger, client: socket.socket) -> None:
    """The same, after bytes that may still be on their way: those are skipped."""
    client.sendall(HTTP)
    server.await_bytes(len(HTTP))
    server.send(PSH_ACK, SERVER_PART)
    data = b""
    while not data.endswith(SERVER_PART):
        data += exactly(client, 1)
    converse(server, client)


def test_server_that_sends_urgent_data_jumps_and_then_a_reset(hostile: Hostile) -> None:
    with served(hostile) as (server, client):
        server.send(PSH_ACK | URG, b"!" + SERVER_PART, urgent=1)
        assert exactly(client, len(SERVER_PART)) == SERVER_PART
        for jump in (MIB, 5 * MIB, 2**31, -5 * MIB):
            server(server.made(PSH_ACK, SESSION, off=jump), server.made(RST | ACK, off=jump))
        converse(server, client)
        server(server.made(RST | ACK), server.made(PSH_ACK, SERVER_PART), server.made(FIN | ACK))
        with pytest.raises(ConnectionResetError):
            client.recv(1)
