"""NAT slipstreaming by IRC's DCC: a real browser's stand-in, curl, on a LAN host, and a hostile server.

The server is on the port that is read, announces a small MSS, and says what an IRC server says. In each
segment of the upload that could begin with a session, one does; else the attack would prove nothing.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lab.capture import Capture
from tests.lab.impair import offloads_off
from tests.lab.irc_client import IrcClient
from tests.lab.irc_server import PORT, IrcServer
from tests.lab.namespace import socket_in
from tests.lab.net import ADDRESS
from tests.lab.scene import Scene, eventually, scene
from tests.lab.slipstream import same
from tests.lab.sockets import exactly

WANTED = 6000  # what the attacks want to have opened
SIGN_ON = b"NICK alice\r\nUSER alice 0 * :alice\r\n"
OFFER = b"PRIVMSG bob :\x01DCC SEND x 167772165 %d 1\x01\r\n" % WANTED
SESSION = SIGN_ON + OFFER
WELCOME = b":irc.example.test 001 alice :Welcome\r\n:irc.example.test 376 alice :End\r\n"
SETTINGS = (
    'protocols = ["oscar", "irc"]\n[pinholes]\nrate_per_host = 10000\nper_flow = 1000\nper_host = 1000\n'
)
SIZE = 8000  # of an upload, in bytes
# Any four bytes of it tell where in the upload they stand.
RULER = b"".join(struct.pack("!BBH", 0xFE, 0xFD, at // 4) for at in range(0, SIZE, 4))


@dataclass
class Target:
    """A router with nfreaim, two who have nothing to do with any attack, and *air*: all that reaches bob."""

    made: Scene
    alice: IrcClient
    other: IrcClient
    air: Capture
    attacks: int = 0

    @contextlib.contextmanager
    def attack(self) -> Iterator[None]:
        """Nothing may open during what runs in here, and the daemon and the others go on."""
        yield
        self.attacks += 1
        assert self.alice.send(self.other, f"file{self.attacks}.bin", b"still here").ok
        log = self.made.daemon.log_text()
        assert not re.findall(rf"pinhole opened: \S+ -> \S+:{WANTED} ", log)
        assert self.made.daemon.process.poll() is None
        assert "ERROR" not in log
        assert "Traceback" not in log

    def listen(self) -> socket.socket:
        """The hostile server's socket on bob."""
        listener = socket_in(self.made.lab, "bob")
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
        listener.bind((ADDRESS["bob"], PORT))
        listener.listen(8)
        return listener

    def segments(self, since: int) -> list[bytes]:
        """What each segment towards the hostile server carried, of those behind number *since* of the air."""
        packets = self.air.packets[since:]
        return [p.payload for p in packets if not p.leaving and p.ports[1] == PORT and p.payload]


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    with scene(settings=SETTINGS) as made:
        offloads_off(made.lab)
        server = IrcServer(made.lab)
        alice, carol = IrcClient(made.lab, "alice"), IrcClient(made.lab, "carol")
        server.wait_ready()
        for client in (alice, carol):
            client.wait_ready()
            client.sign_on(server)
        with Capture(made.lab, "bob", "eth0") as air:
            yield Target(made, alice, carol, air)
        assert made.daemon.stop() == 0
        assert "failed_flows" not in made.daemon.log_text()


def upload(target: Target, listener: socket.socket, words: list[str], early: bool) -> None:
    """Let curl on alice make a request, which a welcome follows; *early*: one comes before it, too."""
    options = "-s -S --http0.9 --noproxy * --max-time 20 -H Expect: --output -".split()
    url = f"http://{ADDRESS['bob']}:{PORT}/upload"
    browser = target.made.lab.spawn("alice", "curl", *options, *words, url, pipes=True)
    stuck = threading.Timer(25.0, browser.kill)
    stuck.start()
    try:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(20.0)
            if early:
                connection.sendall(WELCOME)
            request = b""
            while not ended(request):
                request += connection.recv(65536)
            connection.sendall(WELCOME)
            connection.shutdown(socket.SHUT_WR)
            out, _ = browser.communicate()
    finally:
        stuck.cancel()
    assert same(out, WELCOME * (1 + early))


def ended(request: bytes) -> bool:
    """Whether this is all of a request."""
    head, behind, body = request.partition(b"\r\n\r\n")
    if not behind:
        return False
    if b"chunked" in head:
        return body.endswith(b"\r\n0\r\n\r\n")
    return len(body) >= int(head.lower().split(b"content-length:")[1].split()[0])


@pytest.mark.parametrize("early", [False, True], ids=["client first", "server first"])
@pytest.mark.parametrize(
    "how",
    [
        [],
        ["-H", "Transfer-Encoding: chunked"],
        *(["-X", method] for method in ("NICK", "USER", "PASS", "CAP")),
        ["-X", "NICK", "-H", "USER: alice 0 * :alice"],
    ],
    ids=" ".join,
)
def test_upload_with_a_session_in_every_segment(target: Target, how: list[str], early: bool) -> None:
    path = Path(target.made.lab.dir) / "upload.bin"
    words = ["--data-binary", f"@{path}", *how]
    with target.attack(), target.listen() as listener:
        path.write_bytes(RULER)
        mark = len(target.air.packets)
        upload(target, listener, words, early)
        eventually(lambda: sum(map(len, target.segments(mark))) >= SIZE)
        starts = {RULER.find(data[:8]) for data in target.segments(mark)} - {-1}
        assert starts, "no segment begins amid the upload"
        crafted = bytearray(RULER)
        for at in sorted(starts):
            crafted[at : at + len(SESSION)] = SESSION
        path.write_bytes(crafted[:SIZE])
        mark = len(target.air.packets)
        upload(target, listener, words, early)
        eventually(lambda: any(data.startswith(SIGN_ON) for data in target.segments(mark)))


SPEECHES = {
    "tls": [b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", SESSION],
    "websocket": [b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", b"\x82\xfe\0\x40\1\2\3\4", SESSION],
    "turn": [b"\0\3\0\x64\x21\x12\xa4\x42transaction!", SESSION],
    "ftp": [b"USER alice\r\n", b"PASS x\r\n", b"CWD NICK alice\r\n", OFFER, SESSION],
    "smtp": [b"EHLO x\r\n", SESSION],
    "offer first": [OFFER, SESSION],
    "line end first": [b"\r\n", SESSION],
    "zero byte first": [b"\0", SESSION],
    "half a word first": [b"NI", b"X\r\n", SESSION],
    "welcome from the client": [WELCOME, SESSION],
}


@pytest.mark.parametrize("server_first", [False, True], ids=["client first", "server first"])
@pytest.mark.parametrize("pieces", SPEECHES.values(), ids=SPEECHES)
def test_session_within_another_protocol(target: Target, pieces: list[bytes], server_first: bool) -> None:
    with target.attack(), target.listen() as listener, socket_in(target.made.lab, "alice") as client:
        client.connect((ADDRESS["bob"], PORT))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(10.0)
            if server_first:
                connection.sendall(WELCOME)
                assert exactly(client, len(WELCOME)) == WELCOME
            for piece in [
                *pieces,
                OFFER,
            ]:  # each has arrived before the next one leaves: a segment of its own
                client.sendall(piece)
                assert same(exactly(connection, len(piece)), piece)
                connection.sendall(WELCOME)
                assert same(exactly(client, len(WELCOME)), WELCOME)


def test_the_same_bytes_on_a_connection_of_their_own_do_open_a_pinhole(target: Target) -> None:
    """What a program, but no page, can do to its own host; if it did not, all of this would prove nothing."""
    wanted = f"{ADDRESS['alice']}:{WANTED + 1}"
    offer = OFFER.replace(b"%d" % WANTED, b"%d" % (WANTED + 1))
    with target.attack(), target.listen() as listener, socket_in(target.made.lab, "alice") as client:
        client.connect((ADDRESS["bob"], PORT))
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(10.0)
            client.sendall(SIGN_ON)
            assert exactly(connection, len(SIGN_ON)) == SIGN_ON
            connection.sendall(WELCOME)
            assert exactly(client, len(WELCOME)) == WELCOME
            client.sendall(offer)
            assert exactly(connection, len(offer) + 1) == offer.replace(b"167772165", b"3405803777")
            assert target.made.pinhole_of(wanted)
        client.close()
        eventually(lambda: not target.made.pinhole_of(wanted))
