"""The golden packets of MSN Messenger, through the helper: the listed bytes change, however they come."""

from __future__ import annotations

import random

import pytest

from nfreaim.core.address import Endpoint
from nfreaim.core.greeting import match
from nfreaim.helpers.msn.first_bytes import greetings
from tests.golden.msn import MOVED, UNNUMBERED, Packet, packets
from tests.unit.helper_session import C2S, S2C
from tests.unit.msn_session import INSIDE, NEIGHBOUR, NS_CLIENT, NS_SERVER, OUTSIDE, SERVER, MsnNat, Session

GOLDEN = packets()
PEERS = [one for one in GOLDEN.values() if one.direction == "peer"]
MESSAGES = [one for one in GOLDEN.values() if one.direction != "peer"]
each = pytest.mark.parametrize("packet", MESSAGES, ids=lambda packet: packet.name)


def session(packet: Packet) -> Session:
    """A connection on which *packet* may come."""
    name = packet.name
    inside = Endpoint(NEIGHBOUR if name == "F5" else INSIDE, 40123)
    nat = MsnNat(moved=dict([MOVED[name]] if name in MOVED else []), inside=inside)
    if packet.direction.startswith("server-inside"):
        nat.server_inside = True
        nat.inside, nat.outside = Endpoint("10.0.0.9", 1863), Endpoint("203.0.113.20", 4000)
        nat.forwards = {Endpoint("10.0.0.9", 1864): 1864}
    if name in ("F11", "P7"):
        port = 6891 if name == "F11" else 44397
        nat.pinholes[Endpoint(OUTSIDE, port)] = Endpoint(INSIDE, port)
    made = Session(nat)
    if name == "S3":
        for direction, text in (
            (C2S, NS_CLIENT[0]),
            (S2C, NS_SERVER[0]),
            (C2S, b"USR 2 MD5 I a@lab.test\r\n"),
        ):
            made.feed(direction, text)
        return made
    made = made.on_ns() if name[0] in "NSR" else made.on_sb()
    if name == "P6":
        made.say(GOLDEN["P1"].before)
    return made


def left(packet: Packet, *cuts: int) -> bytes:
    """What leaves of *packet*."""
    made = session(packet)
    outgoing = packet.direction == "out"
    return (made.say if outgoing else made.hear)(packet.before, *cuts)


@each
def test_whole(packet: Packet) -> None:
    assert left(packet) == (packet.before if packet.name in UNNUMBERED else packet.after)


@each
def test_every_cut_and_byte_by_byte(packet: Packet) -> None:
    whole, size = left(packet), len(packet.before)
    for cut in range(1, size, 1 + size // 150):
        assert left(packet, cut) == whole, cut
    assert left(packet, *range(1, size)) == whole
    generator = random.Random(packet.name)
    for _ in range(5):
        assert left(packet, *sorted(generator.sample(range(1, size), 5))) == whole


def test_frames_of_version_2_are_counted_and_open_nothing() -> None:
    for name in ("W1", "W2", "W5"):
        made = session(GOLDEN[name])
        made.say(GOLDEN[name].before)
        assert made.nat.counts["numbered_left"] == 1
        assert (made.nat.pinholes, made.nat.expected) == ({}, [])


def test_frame_of_version_2_whose_length_stays_is_edited() -> None:
    """The client knows the outside address, and keeps its port: nothing changes but for the pinhole."""
    made = Session(MsnNat()).on_sb()
    assert made.say(GOLDEN["W2"].before) == GOLDEN["W2"].before
    assert made.nat.pinholes == {Endpoint(OUTSIDE, 3312): Endpoint(INSIDE, 3312)}
    moved = Session(MsnNat(moved={3312: 4001})).on_sb()
    assert moved.say(GOLDEN["W2"].before) == GOLDEN["W2"].before.replace(
        b"troP-lanretxE4vPI: 2133", b"troP-lanretxE4vPI: 1004"
    )


def test_only_the_call_names_a_server() -> None:
    made = session(GOLDEN["R1"])
    made.hear(GOLDEN["R1"].before)
    assert made.nat.watched == [Endpoint(SERVER, 1864)]


@pytest.mark.parametrize("packet", PEERS, ids=lambda packet: packet.name)
def test_first_bytes_of_peers(packet: Packet) -> None:
    service = "msn-file" if packet.name in ("D1", "D2") else "msn-ftp"
    for size in range(len(packet.before) + 1):
        assert match(packet.before[:size], greetings(service)) is not False, size
    assert match(packet.before, greetings(service)) is True
    for wrong in (
        b"\x16\x03\x01\x02\0\x01",
        b"GET / HTTP/1.1\r\n",
        b"VER MSNP18 CVR0 and more than that\r\n",
    ):
        assert match(wrong + b"x" * 40, greetings(service)) is False
