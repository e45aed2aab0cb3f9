"""The lab's MSN stand-ins say what the golden packets hold: byte by byte, but for random identifiers.

No lab: server and clients are on the loopback interface, and believe that they are elsewhere.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable, Iterator

import pytest

from tests.golden.msn import packets
from tests.lab import msn_transfer
from tests.lab.inhabitants import Inhabitants, Serve, Streams
from tests.lab.msn_client import DEAF, MIRANDA, MSN4, OUTSIDE, PURPLE, SHY, MsnClient, Outcome
from tests.lab.msn_server import LARGEST, MsnServer
from tests.lab.msn_talk import Kind, Person
from tests.lab.msn_transfer import Listener
from tests.msn.commands import commands_of
from tests.msn.fields import Message, text

GOLDEN = packets()
PRIVATE, PUBLIC = "10.0.0.5", "203.0.113.1"
# What differs from one transfer to the next: GUIDs, cookies, names, sizes; in a header the identifiers.
_RANDOM = re.compile(
    rb"\{[0-9A-F-]{36}\}(?=\r\nCSeq|\r\nMax|\r\nIPv4)|(?<=Cookie: )\d+|(?<=-File: )\S+|(?<=-FileSize: )\d+"
)
_FRAME = re.compile(rb"(\r\n\r\n\0{4}).{4}(.{24}).{8}", re.DOTALL)


class _Nowhere:
    def ns(self, node: str) -> str:
        raise NotImplementedError(node)

    def at_close(self, end: Callable[[], None]) -> None:
        """The test ends it."""


class Loopback(Inhabitants):
    """Whatever address and port somebody listens on is one of the loopback interface."""

    def __init__(self) -> None:
        super().__init__(_Nowhere())
        self._ports: dict[int, int] = {}

    async def connect(self, node: str, address: str, port: int, seconds: float = 10.0) -> Streams:
        return await super().connect(node, "127.0.0.1", self._ports[port], seconds)

    async def listen(self, node: str, address: str, port: int, serve: Serve) -> tuple[asyncio.Server, int]:
        listener, real = await super().listen(node, "127.0.0.1", 0, serve)
        self._ports[port or real] = real
        return listener, port or real

    def _socket(self, node: str) -> socket.socket:
        return socket.socket()


@pytest.fixture
def server() -> Iterator[MsnServer]:
    made = Loopback()
    yield MsnServer(made)
    made.close()


def signed_on(server: MsnServer, name: str, kind: Kind, port: int = 0) -> MsnClient:
    """A client with alice's addresses."""
    client = MsnClient(server.here, "", kind, name, port)
    client.sign_on(server)
    client.me.own, client.me.seen = PRIVATE, PUBLIC
    return client


def plain(payload: bytes) -> bytes:
    """A message without what is random in it."""
    return _FRAME.sub(rb"\1\2", _RANDOM.sub(b"", payload))


def golden(name: str) -> bytes:
    """The message in a golden packet, likewise."""
    (one,) = commands_of(GOLDEN[name].before, GOLDEN[name].direction == "out")
    return plain(one.payload or b"")


def exchanged(
    server: MsnServer, sender: Kind, receiver: Kind, port: int, port_of: str = "alice1"
) -> tuple[list[bytes], Outcome]:
    """All that was relayed while alice, or who is *port_of*, had a listener on *port*."""
    ports = {port_of: port}
    alice = signed_on(server, "alice1", sender, ports.get("alice1", 0))
    bob = signed_on(server, "bob1", receiver, ports.get("bob1", 0))
    outcome = alice.send(bob, b"x" * 5000)
    assert outcome.ok, outcome
    assert alice.me.complaints == bob.me.complaints == []
    return [plain(payload) for _, payload in server.relayed], outcome


def mirrored(payload: bytes) -> bytes:
    """A message that goes the other way."""
    other = {b"alice1": b"bob1", b"bob1": b"alice1"}
    return re.sub(rb"alice1|bob1", lambda name: other[name[0]], payload)


@pytest.mark.parametrize(
    ("sender", "receiver", "port", "port_of", "names"),
    [
        (PURPLE, PURPLE, 44397, "bob1", ["P8", "mirrored P1"]),
        (PURPLE, OUTSIDE, 6891, "bob1", ["P8", "mirrored P4"]),
        (PURPLE, DEAF, 6891, "alice1", ["P8", "mirrored P9", "P11"]),
        (MSN4, MSN4, 6891, "alice1", ["F1", "F3", "F4"]),
        (MIRANDA, MSN4, 6891, "alice1", ["F1", "F3", "F6"]),
        (SHY, MSN4, 6891, "alice1", ["F2"]),
    ],
)
def test_what_is_said_is_as_recorded(
    server: MsnServer, sender: Kind, receiver: Kind, port: int, port_of: str, names: list[str]
) -> None:
    relayed, outcome = exchanged(server, sender, receiver, port, port_of)
    assert outcome.way == "direct"
    for name in names:
        wanted = golden(name.split()[-1])
        assert (mirrored(wanted) if "mirrored" in name else wanted) in relayed, (name, relayed)


def test_an_acknowledgement_is_as_recorded(server: MsnServer) -> None:
    relayed, _ = exchanged(server, PURPLE, PURPLE, 44397)
    wanted = golden("P6")
    assert len(wanted) in {len(payload) for payload in relayed if b"\x02\0\0\0" in payload}


def test_a_file_that_nobody_comes_for_takes_the_switchboard(
    server: MsnServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nobody(me: Person, pairs: object, at_once: bool) -> None:
        return None

    monkeypatch.setattr(msn_transfer, "dial", nobody)
    _, outcome = exchanged(server, PURPLE, PURPLE, 0)
    assert (outcome.way, outcome.dialled) == ("switchboard", "")
    assert server.dropped == []


@pytest.mark.parametrize(("kind", "way"), [(PURPLE, ""), (OUTSIDE, "switchboard")])
def test_a_connection_that_is_refused_leaves_libpurple_waiting_for_ever(
    server: MsnServer, monkeypatch: pytest.MonkeyPatch, kind: Kind, way: str
) -> None:
    real = Listener.open

    async def closed(me: Person, first: int = 0) -> Listener:
        made = await real(me, first)
        made.close()
        return made

    monkeypatch.setattr(Listener, "open", closed)
    alice, bob = signed_on(server, "alice1", kind), signed_on(server, "bob1", kind)
    outcome = alice.send(bob, b"x")
    assert outcome.way == way
    assert ("waits for ever" in outcome.reason) is (kind is PURPLE)


@pytest.mark.parametrize("kind", [PURPLE, MSN4])
def test_a_file_can_be_refused(server: MsnServer, kind: Kind) -> None:
    alice, bob = signed_on(server, "alice1", kind), signed_on(server, "bob1", kind)
    bob.me.refuses = True
    assert not alice.send(bob, b"x").ok
    if kind is MSN4:
        assert golden("F9") in [plain(payload) for _, payload in server.relayed]


def test_a_switchboard_closes_on_a_long_message(server: MsnServer) -> None:
    alice, bob = signed_on(server, "alice1", PURPLE), signed_on(server, "bob1", PURPLE)
    talk = alice.talk(bob)
    room = LARGEST - len(text("").encode())
    assert alice.says(bob, "x" * room, talk).ok
    assert not alice.says(bob, "y" * (room + 1), talk).ok
    assert server.dropped == [f"alice1@lab.test: a message of {LARGEST + 1} bytes"]


def test_everybody_talks_to_everybody(server: MsnServer) -> None:
    clients = [
        signed_on(server, f"c{at}", kind) for at, kind in enumerate((MSN4, SHY, MIRANDA, OUTSIDE, PURPLE))
    ]
    for one in clients:
        for other in clients:
            if one is not other:
                assert one.says(other, f"from {one.me.mail} to {other.me.mail}").ok
    assert server.dropped == []
    assert Message.decode(server.relayed[-1][1]).content_type == "text/plain"
