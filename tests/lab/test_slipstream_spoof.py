"""Packets in other people's names: from another host of the LAN with the victim's address, and from outside.

The victims are alice's: a session with a pinhole open, and an idle one. A forger does not see their packets.
What connection tracking or the other end would have refused must change nothing, and what the LAN forges
reaches us before connection tracking has looked at it. Where a forged packet has the right numbers in part,
they are taken from a capture, in place of the luck that a forger would need.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import pytest

from tests.lab.capture import Capture
from tests.lab.forged import Forger, Sender
from tests.lab.net import ADDRESS, SERVER, WAN
from tests.lab.scene import eventually
from tests.lab.slipstream import ALICE, HOST_ONLINE, SERVER_PART, SIGN_ON, Hostile, proposal
from tests.lab.standin import Client, Transfer
from tests.tcp.packets import ACK, FIN, PSH_ACK, RST, SYN, Endpoint, mss, packet

OSCAR: Endpoint = (SERVER, 5190)
MIB = 1 << 20
KEEP_ALIVE = bytes.fromhex("2a05")  # how such a frame begins


@dataclass
class Victim:
    """One direction of a session: its ends as the forger's side of the router knows them, where the sender
    stands, and what it acknowledges."""

    source: Endpoint
    destination: Endpoint
    seq: int
    ack: int

    def forged(self, off: int, ack: int, flags: int = PSH_ACK, data: bytes = b"") -> bytes:
        """A packet of it, *off* bytes ahead of its place; *ack* is relative, too."""
        return packet(self.source, self.destination, self.seq + off, self.ack + ack, flags, data)


def numbers(hostile: Hostile, client: Client) -> tuple[int, int, int]:
    """Port, and both ends' next sequence numbers, of a client's control connection."""
    with Capture(hostile.made.lab, "A", "p-alice") as wire:
        client.call("keep_alive")

        def last() -> list[tuple[int, int, int]]:
            sent = [p for p in list(wire.packets) if not p.leaving and p.payload.startswith(KEEP_ALIVE)]
            return [(p.ports[0], p.seq + len(p.payload), p.ack) for p in sent]

        return eventually(last)[0]


class Place:
    """Where a forger sits, and whose packets it makes from there."""

    def __init__(self, hostile: Hostile, inside: bool) -> None:
        self.hostile, self.inside = hostile, inside

    def victim(self, client: Client) -> Victim:
        """Packets of this client from the LAN, or of its server from outside."""
        port, seq, ack = numbers(self.hostile, client)
        if self.inside:
            return Victim((ADDRESS["alice"], port), OSCAR, seq, ack)
        return Victim(OSCAR, (WAN["A"], port), ack, seq)

    def throw(self, packets: list[bytes]) -> None:
        """Send them all, and wait until the router has had them all."""
        lab = self.hostile.made.lab
        with contextlib.ExitStack() as stack:
            sender = stack.enter_context(Sender(lab, "amy" if self.inside else "bob"))
            wire = stack.enter_context(Capture(lab, "A", "p-amy" if self.inside else "wan"))
            for first in range(0, len(packets), 500):
                sender(*packets[first : first + 500])
                eventually(partial(self._came, wire, min(first + 500, len(packets))))

    def _came(self, wire: Capture, count: int) -> bool:
        return sum(not p.leaving for p in list(wire.packets)) >= count


@pytest.fixture(params=[True, False], ids=["from the LAN", "from outside"])
def place(hostile: Hostile, request: pytest.FixtureRequest) -> Place:
    return Place(hostile, request.param)


@pytest.fixture(scope="module")
def idle(hostile: Hostile) -> Iterator[Client]:
    """The other victim."""
    client = Client(hostile.made.lab, "alice", "Idle", first_port=5195)
    try:
        client.wait_ready()
        client.sign_on(hostile.server)
        yield client
    finally:
        client.stop()


@contextlib.contextmanager
def two_victims(place: Place, idle: Client) -> Iterator[list[Victim]]:
    """A session with a pinhole open and an idle one; both must be as before when this ends."""
    hostile = place.hostile
    with hostile.attack():
        transfer = Transfer(hostile.bystander, hostile.other, "file")
        pinholes = eventually(hostile.made.pinholes)
        yield [place.victim(hostile.bystander), place.victim(idle)]
        another = Transfer(idle, hostile.other, "file")  # read, like everything before it
        eventually(lambda: hostile.pinholes() == 2)
        assert pinholes < hostile.made.pinholes()
        for client, offered in ((idle, another), (hostile.bystander, transfer)):
            client.call("cancel", cookie=offered.cookie)
        eventually(lambda: not hostile.pinholes())


def spread(each: int) -> list[int]:
    """*each* places in every sixteenth of the sequence space, none of them nearer than 1 MiB; seeded."""
    chance = random.Random(each)
    sixteenth = 2**28
    return [
        MIB + part * sixteenth + chance.randrange(sixteenth - 2 * MIB)
        for part in range(16)
        for _ in range(each)
    ]


# In front of the window and behind it, and within the 4 MiB in which numbers may be those of a gap.
NEAR = [*range(-4 * MIB, -MIB, MIB // 4), *range(MIB, 4 * MIB, 6000)]


def test_blind_resets_over_the_sequence_space(place: Place, idle: Client) -> None:
    with two_victims(place, idle) as victims:
        for victim in victims:
            place.throw(
                [victim.forged(off, ack, RST | ACK) for off in spread(20) + NEAR for ack in (0, 12345)]
                + [victim.forged(off, 0, RST) for off in spread(20) + NEAR]
            )


def test_blind_data_over_the_sequence_space(place: Place, idle: Client) -> None:
    """Some hundred lie a little ahead: more than would be waited for, were they taken for a gap."""
    with two_victims(place, idle) as victims:
        chance = random.Random(7)
        for victim in victims:
            for data in (ALICE, b"\x2a\x04\0\0\0\0"):
                places = spread(20) + NEAR
                place.throw(
                    [victim.forged(at, chance.randrange(MIB, 2**32 - 8 * MIB), data=data) for at in places]
                )


def test_blind_ends_over_the_sequence_space(place: Place, idle: Client) -> None:
    with two_victims(place, idle) as victims:
        for victim in victims:
            place.throw([victim.forged(off, 0, FIN | ACK) for off in spread(20) + NEAR])


def test_blind_beginnings(place: Place, idle: Client) -> None:
    with two_victims(place, idle) as victims:
        for victim in victims:
            place.throw([victim.forged(off, 0, SYN) for off in spread(2)])
            place.throw([victim.forged(off, 0, SYN | ACK) for off in spread(2)])


WRONG = [2 * MIB, 2**31, -5 * MIB, -MIB]


@pytest.mark.parametrize(
    "make",
    [
        lambda victim, ack: victim.forged(0, ack, PSH_ACK, ALICE),
        lambda victim, ack: victim.forged(-40, ack, PSH_ACK, bytes(40) + ALICE),
        lambda victim, ack: victim.forged(0, ack, PSH_ACK, b"\xff" * 100),
        lambda victim, ack: victim.forged(0, ack, FIN | ACK),
        lambda victim, ack: victim.forged(0, ack, FIN | PSH_ACK, b"\x2a\x04\0\0\0\0"),
    ],
    ids=["proposal", "old bytes and a proposal", "no frame", "end", "sign-off and end"],
)
def test_packet_in_its_place_with_a_wrong_acknowledgement(
    hostile: Hostile, idle: Client, make: Callable[[Victim, int], bytes]
) -> None:
    """The luckiest a blind forger can be in one number: the other end refuses it for the other one."""
    place = Place(hostile, inside=True)
    with two_victims(place, idle) as victims:
        for victim in victims:
            place.throw([make(victim, ack) for ack in WRONG])


def test_bytes_without_an_acknowledgement_in_their_place(hostile: Hostile, idle: Client) -> None:
    place = Place(hostile, inside=True)
    with two_victims(place, idle) as victims:
        for victim in victims:
            place.throw([victim.forged(0, 0, 0x08, ALICE), victim.forged(0, 0, FIN, ALICE)])


@contextlib.contextmanager
def in_the_name_of(hostile: Hostile, name: str, arrives: bool = True) -> Iterator[None]:
    """A whole session in the name of *name* with a server outside that tells the forger all it needs.

    arrives  the router forwards the SYN, so the server has a part in it
    """
    own = (name, 34567)
    with (
        hostile.attack(),
        Forger(hostile.made.lab, "bob", ("203.0.113.67", 5190)) as server,
        Sender(hostile.made.lab, "amy") as forger,
        Capture(hostile.made.lab, "A", "p-amy") as wire,
    ):
        yield
        seq = 0x1000
        forger(packet(own, server.own, seq, 0, SYN, tcp_options=mss(1460)))
        if arrives:
            server.accept(tcp_options=mss(1460))
        seq += 1
        forger(packet(own, server.own, seq, server.seq, ACK))
        for mine, theirs in ((SIGN_ON, SIGN_ON), (HOST_ONLINE, HOST_ONLINE), (proposal(name), SERVER_PART)):
            if server.peer[1]:
                server.send(PSH_ACK, theirs, ack=seq)
            forger(packet(own, server.own, seq, server.seq, PSH_ACK, mine))
            seq += len(mine)
        eventually(lambda: sum(p.ports[0] == own[1] for p in list(wire.packets)) >= 5)


def test_session_in_another_hosts_name(hostile: Hostile) -> None:
    """The host answers what it did not ask for with a reset; from then on there is no connection."""
    with Capture(hostile.made.lab, "A", "p-alice") as wire:
        with in_the_name_of(hostile, ADDRESS["alice"]):
            pass
        assert any(not p.leaving and p.flags & RST and p.ports[0] == 34567 for p in wire.packets)


def test_session_in_the_name_of_nobody_here(hostile: Hostile) -> None:
    with in_the_name_of(hostile, "198.51.100.7"):
        pass


@pytest.mark.parametrize("name", ["10.0.0.1", "203.0.113.1"], ids=["inside", "outside"])
def test_session_in_the_name_of_the_router(hostile: Hostile, name: str) -> None:
    with in_the_name_of(hostile, name, arrives=False):  # it does not forward what claims to be its own
        pass
