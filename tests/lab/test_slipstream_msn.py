"""NAT slipstreaming by MSN: a real browser's stand-in, curl, on a LAN host, and a hostile server.

The server is on a port that is read, and says what a switchboard or a notification server says.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from tests.lab.browser import conversation, converse, hostile_listener, smuggle, upload
from tests.lab.capture import Capture
from tests.lab.impair import offloads_off
from tests.lab.inhabitants import Inhabitants
from tests.lab.msn_client import PURPLE, MsnClient
from tests.lab.msn_server import NS_PORT, SB_PORT, MsnServer
from tests.lab.net import ADDRESS, WAN
from tests.lab.scene import Scene, scene
from tests.lab.sockets import exactly
from tests.msn import msnftp, slp
from tests.msn.commands import command
from tests.msn.msnftp import Endpoint
from tests.msn.slp import Addresses, Dialogue

WANTED = 6000  # what the attacks want to have opened
NONCE = "{0216231B-E9E8-1F16-E7CD-90118D43EF66}"
SETTINGS = (
    'protocols = ["oscar", "msn"]\n[pinholes]\nrate_per_host = 10000\nper_flow = 1000\nper_host = 1000\n'
)


def offer(port: int = WANTED) -> bytes:
    """A listener of alice's, announced on a switchboard."""
    payload = msnftp.listening(33267, Endpoint(ADDRESS["alice"], port), 1).encode()
    return command("MSG", 3, "N", payload=payload).encode()


def call(port: int = WANTED) -> bytes:
    """The same on a notification server."""
    talk = Dialogue("alice@lab.test", "bob@lab.test", NONCE, NONCE)
    body = slp.transport_response(Addresses(ADDRESS["alice"], port), NONCE)
    text = replace(talk.answer(slp.RESPONSE, body), ended=False).encode()
    return command("UUN", 5, "bob@lab.test", 3, payload=text).encode()


@dataclass(frozen=True)
class Session:
    """What both ends say in turn until a client is signed on, and what then opens a pinhole."""

    port: int
    signs_on: tuple[tuple[bytes, bytes], ...]
    opens: bytes

    @property
    def said(self) -> bytes:
        """The client's part in one piece."""
        return b"".join(said for said, _ in self.signs_on) + self.opens

    @property
    def answer(self) -> bytes:
        """The server's part in one piece."""
        return b"".join(answer for _, answer in self.signs_on)


SESSIONS = {
    "switchboard, calling": Session(
        SB_PORT, ((b"USR 1 alice@lab.test abc\r\n", b"USR 1 OK alice@lab.test alice\r\n"),), offer()
    ),
    "switchboard, called": Session(
        SB_PORT,
        ((b"ANS 1 alice@lab.test abc 17\r\n", b"IRO 1 1 1 bob@lab.test bob\r\nANS 1 OK\r\n"),),
        offer(),
    ),
    "notification server": Session(
        NS_PORT,
        (
            (b"VER 1 MSNP18 CVR0\r\n", b"VER 1 MSNP18\r\n"),
            (b"USR 3 SSO I alice@lab.test\r\n", b"USR 3 SSO S KEY b\r\n"),
            (b"USR 4 SSO S t=a b\r\n", b"USR 4 OK alice@lab.test 1 0\r\n"),
        ),
        call(),
    ),
}
each = pytest.mark.parametrize("session", SESSIONS.values(), ids=SESSIONS)


@dataclass
class Target:
    """A router with nfreaim, two who have nothing to do with any attack, and *air*: all that reaches bob."""

    made: Scene
    alice: MsnClient
    other: MsnClient
    air: Capture

    @contextlib.contextmanager
    def attack(self) -> Iterator[None]:
        """Nothing may open during what runs in here, and the daemon and the others go on."""
        yield
        assert self.other.send(self.alice, b"still here").way == "direct"
        log = self.made.daemon.log_text()
        assert not re.findall(rf"pinhole opened: \S+ -> \S+:{WANTED} ", log)
        assert self.made.daemon.process.poll() is None
        assert "ERROR" not in log
        assert "Traceback" not in log


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    with scene(settings=SETTINGS) as made:
        offloads_off(made.lab)
        here = Inhabitants(made.lab)
        server = MsnServer(here)
        alice, carol = MsnClient(here, "alice", PURPLE), MsnClient(here, "carol", PURPLE)
        for client in (alice, carol):
            client.sign_on(server)
        with Capture(made.lab, "bob", "eth0") as air:
            yield Target(made, alice, carol, air)
        assert made.daemon.stop() == 0
        assert "failed_flows" not in made.daemon.log_text()


@each
@pytest.mark.parametrize("early", [False, True], ids=["client first", "server first"])
@pytest.mark.parametrize(
    "how",
    [
        [],
        ["-H", "Transfer-Encoding: chunked"],
        *(["-X", method] for method in ("VER", "USR", "ANS", "MSG")),
    ],
    ids=" ".join,
)
def test_upload_with_a_session_in_every_segment(
    target: Target, session: Session, how: list[str], early: bool
) -> None:
    lab = target.made.lab
    with target.attack(), hostile_listener(lab, session.port) as listener:

        def send(words: list[str]) -> None:
            upload(lab, listener, [*words, *how], session.answer, early)

        smuggle(lab, target.air, session.said, send, session.port)


BEFORE = {
    "tls": [b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03"],
    "websocket": [b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", b"\x82\xfe\0\x40\1\2\3\4"],
    "turn": [b"\0\3\0\x64\x21\x12\xa4\x42transaction!"],
    "ftp": [b"USER alice\r\n", b"PASS x\r\n"],
    "smtp": [b"EHLO x\r\n"],
    "http gateway": [b"POST /gateway/gateway.dll?Action=open HTTP/1.1\r\n\r\n"],
    "msnftp": [b"VER MSNFTP\r\n"],
    "ping first": [b"PNG\r\n"],
    "line end first": [b"\r\n"],
    "bare line feed": [b"VER 1 MSNP18 CVR0\n"],
    "zero byte first": [b"\0"],
    "half a word first": [b"VE", b"X\r\n"],
}


@each
@pytest.mark.parametrize("server_first", [False, True], ids=["client first", "server first"])
@pytest.mark.parametrize("before", BEFORE.values(), ids=BEFORE)
def test_session_within_another_protocol(
    target: Target, session: Session, before: list[bytes], server_first: bool
) -> None:
    lab = target.made.lab
    with target.attack(), hostile_listener(lab, session.port) as listener:
        talk = [(piece, session.answer) for piece in before]
        talk += [*session.signs_on, (session.opens, b""), (session.said, session.answer)]
        converse(lab, listener, talk, session.answer if server_first else b"")


@each
@pytest.mark.parametrize(
    "answer", [b"911 1\r\n", b"VER 1 0\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"USR 2 OK\r\n"]
)
def test_a_client_that_no_server_of_its_own_answers(target: Target, session: Session, answer: bytes) -> None:
    with target.attack(), hostile_listener(target.made.lab, session.port) as listener:
        talk = [*((said, answer) for said, _ in session.signs_on), (session.opens, b"")]
        converse(target.made.lab, listener, talk)


@each
def test_the_same_bytes_on_a_connection_of_their_own_do_open_a_pinhole(
    target: Target, session: Session
) -> None:
    """What a program, but no page, can do to its own host; if it did not, all of this would prove nothing."""
    port = WANTED + 1 + list(SESSIONS.values()).index(session)
    opens = (call if session.port == NS_PORT else offer)(port)
    lab = target.made.lab
    with (
        target.attack(),
        hostile_listener(lab, session.port) as listener,
        conversation(lab, listener, session.signs_on) as (client, server),
    ):
        client.sendall(opens)
        came = exactly(server, len(opens) + len(WAN["A"]) - len(ADDRESS["alice"]))
        assert f": {WAN['A']}\r\n".encode() in came
        assert target.made.pinhole_of(f"{ADDRESS['alice']}:{port}")
