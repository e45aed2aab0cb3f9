"""NAT slipstreaming by IRC's DCC: a real browser's stand-in, curl, on a LAN host, and a hostile server.

The server is on the port that is read, announces a small MSS, and says what an IRC server says. In each
segment of the upload that could begin with a session, one does; else the attack would prove nothing.
"""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.lab.browser import conversation, converse, hostile_listener, smuggle, upload
from tests.lab.capture import Capture
from tests.lab.impair import offloads_off
from tests.lab.irc_client import IrcClient
from tests.lab.irc_server import PORT, IrcServer
from tests.lab.net import ADDRESS
from tests.lab.scene import Scene, eventually, scene
from tests.lab.sockets import exactly

WANTED = 6000  # what the attacks want to have opened
SIGN_ON = b"NICK alice\r\nUSER alice 0 * :alice\r\n"
OFFER = b"PRIVMSG bob :\x01DCC SEND x 167772165 %d 1\x01\r\n" % WANTED
SESSION = SIGN_ON + OFFER
WELCOME = b":irc.example.test 001 alice :Welcome\r\n:irc.example.test 376 alice :End\r\n"
SETTINGS = (
    'protocols = ["oscar", "irc"]\n[pinholes]\nrate_per_host = 10000\nper_flow = 1000\nper_host = 1000\n'
)


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
        return hostile_listener(self.made.lab, PORT)


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
    with target.attack(), target.listen() as listener:

        def send(words: list[str]) -> None:
            upload(target.made.lab, listener, [*words, *how], WELCOME, early)

        smuggle(target.made.lab, target.air, SESSION, send, PORT)


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
    with target.attack(), target.listen() as listener:
        talk = [(piece, WELCOME) for piece in [*pieces, OFFER]]
        converse(target.made.lab, listener, talk, WELCOME if server_first else b"")


def test_the_same_bytes_on_a_connection_of_their_own_do_open_a_pinhole(target: Target) -> None:
    """What a program, but no page, can do to its own host; if it did not, all of this would prove nothing."""
    wanted = f"{ADDRESS['alice']}:{WANTED + 1}"
    offer = OFFER.replace(b"%d" % WANTED, b"%d" % (WANTED + 1))
    with target.attack(), target.listen() as listener:
        with conversation(target.made.lab, listener, [(SIGN_ON, WELCOME)]) as (client, server):
            client.sendall(offer)
            assert exactly(server, len(offer) + 1) == offer.replace(b"167772165", b"3405803777")
            assert target.made.pinhole_of(wanted)
        eventually(lambda: not target.made.pinhole_of(wanted))
