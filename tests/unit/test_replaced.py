"""A living flow gives way to a new connection of its client, and to no forged handshake of the same ends."""

from __future__ import annotations

import pytest

from nfreaim.core.address import Endpoint
from nfreaim.core.tcp.segment import ACK, FIN, RST, SYN
from tests.script_helper import HELLO, TEXT, offer
from tests.unit.fakes import CLIENT, Router, Wire
from tests.unit.offers import EDITED, PROPOSAL, SECOND
from tests.unit.wires import ResizedWire

DOTTED = offer(b"3333333", at=Endpoint("10.0.0.5", 6000), dotted=True)

ALICE, AMY = bytes((2, 0, 0, 0, 0, 5)), bytes((2, 0, 0, 0, 0, 6))


def living(wire: Wire, hardware: bytes | None = None) -> Wire:
    """Past sign-on; with *hardware*, its frames are looked at."""
    senders = wire.router.kernel.senders
    if hardware is not None:
        senders.at, senders.frame = {CLIENT.address: hardware}, hardware
    return wire.sign_on()


def again(wire: Wire, isn: tuple[int, int] = (77, 78)) -> Wire:
    """Another connection of the same ends."""
    return type(wire)(wire.router, isn=isn) if type(wire) is Wire else _moved(wire, isn)


def _moved(wire: Wire, isn: tuple[int, int]) -> Wire:
    made = ResizedWire(wire.router)
    made.isn = isn
    return made


def pair(wire: Wire) -> None:
    wire.inject(0, -1, flags=SYN)
    wire.inject(1, -1, flags=SYN | ACK)


def test_pair_without_an_ack() -> None:
    wire = living(Wire())
    assert wire.client(PROPOSAL) == EDITED
    for number in range(50):
        pair(again(wire, (number * 70000, 5)))
    wire.router.wait(70.0)
    assert wire.router.pinholes.flows() == {wire.flow_id}
    assert wire.client(SECOND) != SECOND
    assert not wire.router.watcher.closes


@pytest.mark.parametrize("first", [ALICE, AMY], ids=["the host's SYN", "a forged SYN"])
def test_ack_of_another_machine(first: bytes) -> None:
    wire = living(Wire(), ALICE)
    wire.client(PROPOSAL)
    senders, new = wire.router.kernel.senders, again(wire)
    senders.frame = first
    pair(new)
    senders.frame = AMY
    new.inject(0, 0, flags=ACK)
    for data in (HELLO, TEXT):
        new.server(data)
        new.client(data)
    assert not wire.router.watcher.closes
    senders.frame = ALICE
    assert wire.client(SECOND) != SECOND
    assert wire.router.engine.counters.strange_senders


def test_ack_that_conntrack_does_not_see() -> None:
    """It holds the old connection, or what it met midstream of it."""
    for what in ("picked_up", "flushed", "dead"):
        wire = living(Wire())
        wire.client(PROPOSAL)
        new = again(wire)
        getattr(wire.router.kernel, what).add(wire.flow_id)
        new.handshake()
        new.server(TEXT)
        new.client(TEXT)
        assert "control connection replaced" not in [why for _, why in wire.router.watcher.closes], what
        getattr(wire.router.kernel, what).clear()
        assert wire.stored.streams[0].base == wire.isn[0] + 1


def test_client_that_crashed_and_connects_from_the_same_port() -> None:
    wire = living(Wire(), ALICE)
    wire.client(PROPOSAL)
    new = again(wire)
    new.handshake()
    assert not wire.router.watcher.closes
    new.server(HELLO, [1, 2, 4])
    assert [why for _, why in wire.router.watcher.closes] == ["control connection replaced"]
    new.client(HELLO)
    assert new.client(PROPOSAL) == EDITED


def test_client_whose_first_data_are_its_ack() -> None:
    """The ACK without data was lost. The bytes have passed, so that connection is not read."""
    wire = living(Wire())
    new = again(wire)
    pair(new)
    new.client(HELLO)
    new.server(HELLO)
    assert new.stored.streams[0].base == new.isn[0] + 1
    assert not new.read
    assert new.client(PROPOSAL) == PROPOSAL


def test_client_that_closed_and_connects_from_the_same_port() -> None:
    wire = living(Wire(), ALICE)
    for way in (0, 1):
        wire.fin(way)
    new = again(wire)
    wire.router.kernel.picked_up.add(wire.flow_id)  # what is closed needs no proof of conntrack to give way
    new.handshake()
    assert new.stored.streams[0].base == new.isn[0] + 1
    wire.router.kernel.picked_up.clear()
    new.server(HELLO, [1, 2, 4])
    new.client(HELLO)
    assert new.client(PROPOSAL) == EDITED


def test_another_machine_after_the_client_has_closed() -> None:
    wire = living(Wire(), ALICE)
    for way in (0, 1):
        wire.fin(way)
    new = again(wire)
    wire.router.kernel.senders.frame = AMY
    new.handshake()
    assert wire.stored.streams[0].base == wire.isn[0] + 1


def test_client_that_wants_no_connection() -> None:
    """It answers a forged pair with a reset; an ACK behind that is not its own."""
    wire = living(Wire())
    wire.client(PROPOSAL)
    new = again(wire)
    pair(new)
    new.inject(0, 0, flags=RST)
    new.inject(0, 0, flags=ACK)
    new.server(TEXT)
    assert not wire.router.watcher.closes
    assert wire.client(SECOND) != SECOND


def test_skewed_flow_is_translated_until_the_new_connection_is_certain() -> None:
    wire = living(ResizedWire())
    wire.client(DOTTED)
    assert wire.stored.skewed
    new = again(wire)
    new.handshake()
    wire.client(TEXT)
    wire.server(TEXT)
    assert wire.stored.skewed
    assert wire.router.kernel.protected
    new.server(HELLO, [1, 2, 4])
    assert not new.stored.skewed
    assert not wire.router.kernel.protected
    new.client(HELLO)
    assert new.client(TEXT) == TEXT


def test_many_rivals_at_once_are_bounded() -> None:
    router = Router()
    for port in range(1, 1500):
        wire = Wire(router, client=CLIENT._replace(port=port)).handshake()
        pair(Wire(router, client=wire.ends[0], isn=(9, 9)))
    assert len(router.engine._admission) <= 1024


def test_its_own_handshake_repeated_while_one_end_is_done() -> None:
    """Nothing begins: what follows stands where the longer edits put it, also while no kernel answers."""
    wire = ResizedWire().begun()
    wire.client(DOTTED)
    assert len(wire.left[0]) != len(wire.sent[0])
    wire.inject(1, len(wire.sent[1]), flags=FIN | ACK)
    same = again(wire, wire.isn)
    pair(same)
    same.inject(0, 0, flags=ACK)
    wire.router.kernel.broken = True
    before = len(wire.left[0])
    wire.send(0, TEXT)
    assert wire.c2s[before:] == TEXT
