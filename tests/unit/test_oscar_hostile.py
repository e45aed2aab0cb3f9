"""OSCAR flows that somebody made up: sessions behind other first bytes, and hosts that work together.

Packets of the LAN are seen before connection tracking has looked at them; their source proves nothing.
"""

from __future__ import annotations

import pytest

from nfreaim.core.address import Endpoint
from tests.golden import load
from tests.oscar.messages import addressed, proposal
from tests.oscar.signon import CLIENT_SIGNON, HOST_ONLINE, SIGNON
from tests.tcp.packets import packed
from tests.unit.oscar_fixtures import Wire

GOLDEN = load()
PROPOSAL = GOLDEN["send-file-proposal"].data

STUN = bytes.fromhex("0001 0048 2112a442") + b"transaction!" + bytes.fromhex("0006 0044")
FIRST = {
    "http": b"POST /upload HTTP/1.1\r\nHost: 203.0.113.9:5190\r\n\r\n",
    "http 2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "tls": bytes.fromhex("1603010200010001fc0303"),
    "websocket": b"GET /chat HTTP/1.1\r\nUpgrade: websocket\r\n\r\n",
    "stun": STUN,
    "turn": b"\0\x03" + STUN[2:],
    "ice over tcp": b"\0\x5c" + STUN,
    # RFC 4571 puts two bytes of length first: those of a frame's beginning, if the message is that long.
    "ice whose length reads as a frame": b"\x2a\x01" + STUN,
    "sip": b"REGISTER sip:203.0.113.9 SIP/2.0\r\n\r\n",
    "smtp": b"EHLO [10.0.0.5]\r\n",
    "ftp": b"USER anonymous\r\n",
    "irc": b"NICK x\r\n",
    "gopher": b"\r\n",
    "one zero byte": b"\0",
    "one byte of a frame twice": b"\x2a",
    "a frame's beginning twice": b"\x2a\x01",
    "another frame": b"\x2a\x02\0\0\0\x04\0\0\0\x01",
    "another version": b"\x2a\x01\0\0\0\x04\0\0\0\x02",
    "sign-on frame that is too short": b"\x2a\x01\0\0\0\x03\0\0\x01",
}


@pytest.mark.parametrize("server_first", [False, True], ids=["client first", "server first"])
@pytest.mark.parametrize("what", FIRST)
def test_session_behind_other_first_bytes_opens_nothing(what: str, server_first: bool) -> None:
    wire = Wire().handshake()
    if server_first:
        assert wire.server(SIGNON + HOST_ONLINE) == SIGNON + HOST_ONLINE
    # What looks like a session has segments of its own, as MSS and window games make them, or one for all.
    assert wire.client(FIRST[what], [len(FIRST[what]) - 1]) == FIRST[what]
    for data in (CLIENT_SIGNON, PROPOSAL, CLIENT_SIGNON + PROPOSAL):
        assert wire.client(data) == data
        assert wire.server(SIGNON + HOST_ONLINE) == SIGNON + HOST_ONLINE
    assert wire.client(PROPOSAL) == PROPOSAL
    assert not wire.stored.reading.reads
    assert wire.router.kernel.offloaded == [wire.flow_id]
    assert not wire.router.watcher.opens


def test_session_that_only_the_server_speaks_opens_nothing() -> None:
    wire = Wire().handshake()
    forged = SIGNON + HOST_ONLINE + CLIENT_SIGNON + PROPOSAL + GOLDEN["aim-proposal"].data
    assert wire.server(forged) == forged
    assert wire.client(PROPOSAL) == PROPOSAL
    assert not wire.stored.reading.reads
    assert not wire.router.watcher.opens


def test_session_that_only_the_client_speaks_opens_nothing() -> None:
    wire = Wire().handshake()
    echoed = CLIENT_SIGNON + HOST_ONLINE + PROPOSAL
    assert wire.client(echoed) == echoed
    assert not wire.router.watcher.opens
    # A server that returns whatever it is sent begins with a sign-on frame, too, but has listed no families.
    assert wire.server(CLIENT_SIGNON) == CLIENT_SIGNON
    assert wire.client(PROPOSAL) == PROPOSAL
    assert not wire.router.watcher.opens


def test_perfect_session_with_a_hostile_server_opens_ports_of_its_own_host_only() -> None:
    wire = Wire().sign_on()
    others = ["10.0.0.6", "10.0.0.1", "203.0.113.2", "127.0.0.1", "0.0.0.0", "255.255.255.255", "8.8.8.8"]
    for address in others:
        frame = proposal(addressed(2, 3, address=packed(address), port=6000))
        assert wire.client(frame) == frame
    for port in (0, 1, 22, 445, 1023):
        frame = proposal(addressed(2, 3, port=port))
        assert wire.client(frame) == frame
    assert not wire.router.watcher.opens
    wire.client(proposal(addressed(2, 3, port=6000)))
    assert [pinhole.inside for pinhole in wire.router.watcher.opens] == [Endpoint("10.0.0.5", 6000)]


def test_hostile_server_that_relays_forged_proposals_opens_nothing() -> None:
    wire = Wire().sign_on()
    for address in ("10.0.0.5", "10.0.0.6", "203.0.113.1"):
        frame = proposal(addressed(2, 3, 4, address=packed(address), port=6000), subtype=7)
        assert wire.server(frame) == frame
    assert not wire.router.watcher.opens
