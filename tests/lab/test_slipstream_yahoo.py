"""NAT slipstreaming by YMSG: a real browser's stand-in, curl, on a LAN host, and a hostile server.

The server is on the port that is read, announces a small MSS, and says what a YMSG server says.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.lab.browser import conversation, converse, hostile_listener, smuggle, upload
from tests.lab.capture import Capture
from tests.lab.impair import offloads_off
from tests.lab.net import ADDRESS
from tests.lab.scene import Scene, eventually, scene
from tests.lab.sockets import exactly
from tests.lab.yahoo import PORT, SETTINGS, YahooClient, online, transfer
from tests.yahoo.ymsg import offer, sign_on, url

WANTED = 6000  # what the attacks want to have opened
HELLO, CHALLENGE, ANSWER, WELCOME = sign_on()
OFFER = offer(url(ADDRESS["alice"], WANTED))
SESSION = HELLO + ANSWER + OFFER


@dataclass
class Target:
    """A router with nfreaim, two who have nothing to do with any attack, and *air*: all that reaches bob."""

    made: Scene
    clients: dict[str, YahooClient]
    air: Capture

    @contextlib.contextmanager
    def attack(self) -> Iterator[None]:
        """Nothing may open during what runs in here, and the daemon and the others go on."""
        yield
        assert transfer(self.clients["alice"], self.clients["carol"], 5555)().ok
        log = self.made.daemon.log_text()
        assert not re.findall(rf"pinhole opened: \S+ -> \S+:{WANTED} ", log)
        assert self.made.daemon.process.poll() is None
        assert "ERROR" not in log
        assert "Traceback" not in log


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    with scene(settings=SETTINGS + "[pinholes]\nrate_per_host = 10000\nper_flow = 1000\n") as made:
        offloads_off(made.lab)
        clients = online(made.lab, "alice", "carol")
        with Capture(made.lab, "bob", "eth0") as air:
            yield Target(made, clients, air)
        assert made.daemon.stop() == 0
        assert "failed_flows" not in made.daemon.log_text()


@pytest.mark.parametrize("early", [False, True], ids=["client first", "server first"])
@pytest.mark.parametrize("how", [[], ["-H", "Transfer-Encoding: chunked"], ["-X", "YMSG"]], ids=" ".join)
def test_upload_with_a_session_in_every_segment(target: Target, how: list[str], early: bool) -> None:
    lab = target.made.lab
    with target.attack(), hostile_listener(lab, PORT) as listener:

        def send(words: list[str]) -> None:
            upload(lab, listener, [*words, *how], CHALLENGE + WELCOME, early)

        smuggle(lab, target.air, SESSION, send, PORT)


SPEECHES = {
    "http": [b"POST / HTTP/1.1\r\nContent-Length: 999\r\n\r\n"],
    "method that begins as a packet": [b"YMSG / HTTP/1.1\r\n\r\n"],
    "tls": [b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03"],
    "turn": [b"\0\3\0\x64\x21\x12\xa4\x42transaction!"],
    "half a word": [b"YM", b"X\r\n"],
    "offer first": [OFFER],
    "answer first": [ANSWER],
}


@pytest.mark.parametrize("server_first", [False, True], ids=["client first", "server first"])
@pytest.mark.parametrize("pieces", SPEECHES.values(), ids=SPEECHES)
def test_session_within_another_protocol(target: Target, pieces: list[bytes], server_first: bool) -> None:
    with target.attack(), hostile_listener(target.made.lab, PORT) as listener:
        talk = [(piece, WELCOME) for piece in [*pieces, HELLO, ANSWER, OFFER]]
        converse(target.made.lab, listener, talk, CHALLENGE if server_first else b"")


def test_the_same_bytes_on_a_connection_of_their_own_do_open_a_pinhole(target: Target) -> None:
    """What a program, but no page, can do to its own host; if it did not, all of this would prove nothing."""
    wanted = f"{ADDRESS['alice']}:{WANTED + 1}"
    told, leaves = (offer(url(host, WANTED + 1)) for host in (ADDRESS["alice"], "203.0.113.1"))
    with target.attack(), hostile_listener(target.made.lab, PORT) as listener:
        talk = [(HELLO, CHALLENGE), (ANSWER, WELCOME)]
        with conversation(target.made.lab, listener, talk) as (client, server):
            client.sendall(told)
            assert exactly(server, len(leaves)) == leaves
            assert target.made.pinhole_of(wanted)
        eventually(lambda: not target.made.pinhole_of(wanted))
