"""NAT slipstreaming by XMPP: a real browser's stand-in, curl, on a LAN host, and a hostile server.

The server is on the port that is read, announces a small MSS, and says what an XMPP server says. In each
segment of the upload that could begin with a session, one does; else the attack would prove nothing.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lab.capture import Capture
from tests.lab.impair import offloads_off
from tests.lab.namespace import socket_in
from tests.lab.net import ADDRESS, SERVER
from tests.lab.scene import Scene, eventually, scene
from tests.lab.xmpp_client import XmppClient
from tests.lab.xmpp_codec import exactly
from tests.lab.xmpp_server import PORT, XmppServer
from tests.xmpp.texts import OLD_SIGN_ON, S2C, SIGN_ON, query, streamhost

WANTED = 6000  # what the attacks want to have opened
SETTINGS = 'protocols = ["oscar", "xmpp"]\n'
OFFER = query(streamhost(port=WANTED))
SAID = [b"".join(text for way, text in turns if way != S2C) + OFFER * 2 for turns in (SIGN_ON, OLD_SIGN_ON)]
HEARD = [b"".join(text for way, text in turns if way == S2C) for turns in (SIGN_ON, OLD_SIGN_ON)]
MSS = 536
END = b"</end>"


@dataclass
class Target:
    """A router with nfreaim, two who have nothing to do with any attack, and *air*: all that reaches bob."""

    made: Scene
    alice: XmppClient
    carol: XmppClient
    air: Capture

    def unharmed(self) -> None:
        """Nothing has been opened, and the daemon and the others go on."""
        assert self.alice.send(self.carol, b"still here").direct
        log = self.made.daemon.log_text()
        assert not re.findall(rf"pinhole opened: \S+ -> \S+:{WANTED} ", log)
        assert self.made.daemon.process.poll() is None
        assert "ERROR" not in log
        assert "Traceback" not in log


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    with scene(settings=SETTINGS) as made:
        offloads_off(made.lab)
        server = XmppServer(made.lab)
        server.wait_ready()
        alice, carol = XmppClient(made.lab, "alice"), XmppClient(made.lab, "carol")
        for client in (alice, carol):
            client.sign_on(SERVER)
        with Capture(made.lab, "bob", "eth0") as air:
            yield Target(made, alice, carol, air)
        assert made.daemon.stop() == 0


def listen(target: Target) -> socket.socket:
    """The hostile server's socket on bob."""
    listener = socket_in(target.made.lab, "bob")
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, MSS)
    listener.bind((ADDRESS["bob"], PORT))
    listener.listen(8)
    return listener


@pytest.mark.parametrize("early", [False, True], ids=["answered-behind-it", "answered-at-once"])
@pytest.mark.parametrize("number", range(len(SAID)), ids=["sasl", "before-2004"])
def test_browser_that_uploads_a_session_opens_nothing(
    target: Target, number: int, early: bool, tmp_path: Path
) -> None:
    """The body is a session at every offset that a segment could begin with: those that end a tag."""
    body = tmp_path / "body"
    body.write_bytes(b" " * 700 + SAID[number] * 3 + END)
    url = f"http://{ADDRESS['bob']}:{PORT}/"
    words = f"-s -S --http0.9 --noproxy * --max-time 20 -H Expect: --data-binary @{body} --output - {url}"
    with listen(target) as listener:
        browser = target.made.lab.spawn("alice", "curl", *words.split(), pipes=True)
        stuck = threading.Timer(25.0, browser.kill)
        stuck.start()
        try:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(20.0)
                if early:
                    connection.sendall(HEARD[number])
                request = b""
                while not request.endswith(END):
                    request += connection.recv(65536)
                connection.sendall(HEARD[number])
                connection.shutdown(socket.SHUT_WR)
                out, _ = browser.communicate()
        finally:
            stuck.cancel()
    assert out == HEARD[number] * (1 + early), "what was not opened was not changed"
    assert SAID[number] in request
    target.unharmed()


@pytest.mark.parametrize("first", [b"\r\n", b"\0", b"<html>", b"GET / HTTP/1.1\r\n\r\n"])
def test_session_behind_other_bytes_in_segments_of_its_own_opens_nothing(
    target: Target, first: bytes
) -> None:
    since = len(target.air.packets)
    with listen(target) as listener, socket_in(target.made.lab, "alice") as client:
        client.connect((ADDRESS["bob"], PORT))
        server, _ = listener.accept()
        with server:
            server.settimeout(10.0)
            client.sendall(first)
            assert exactly(server, len(first)) == first
            for way, text in [*SIGN_ON, (0, OFFER)]:
                source, sink = (server, client) if way == S2C else (client, server)
                source.sendall(text)
                assert exactly(sink, len(text)) == text
    # The session must begin with a segment.
    eventually(lambda: SIGN_ON[0][1] in [packet.payload for packet in target.air.packets[since:]])
    target.unharmed()


def test_the_same_bytes_from_a_client_do_open(target: Target) -> None:
    """Or nothing here would prove anything. It is the last: behind it the port was opened."""
    with listen(target) as listener, socket_in(target.made.lab, "alice") as client:
        client.connect((ADDRESS["bob"], PORT))
        server, _ = listener.accept()
        with server:
            server.settimeout(10.0)
            for way, text in SIGN_ON:
                source, sink = (server, client) if way == S2C else (client, server)
                source.sendall(text)
                assert exactly(sink, len(text)) == text
            client.sendall(OFFER)
            leaves = OFFER.replace(b"10.0.0.5", b"203.0.113.1")
            assert exactly(server, len(leaves)) == leaves
    assert re.findall(rf"pinhole opened: \S+ -> \S+:{WANTED} ", target.made.daemon.log_text())
