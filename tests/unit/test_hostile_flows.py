"""Flows that somebody made up: forged from another host of the LAN, or by both ends together.

Packets of the LAN are seen before connection tracking has looked at them; their source proves nothing.
"""

from __future__ import annotations

import random

import pytest

from nfreaim.core.address import Endpoint
from nfreaim.core.tcp.segment import ACK, FIN, SYN
from tests.script_helper import HELLO, TEXT, offer
from tests.tcp.packets import PSH_ACK, packet
from tests.unit.fakes import SERVER, Router, Wire
from tests.unit.offers import EDITED, PROPOSAL, SECOND

MIB = 1 << 20


@pytest.fixture
def wire() -> Wire:
    return Wire().sign_on()


def forge(wire: Wire, way: int, seq: int, ack: int, data: bytes, flags: int = PSH_ACK) -> None:
    """A packet with one end's addresses, that this end did not send. It must pass as it came."""
    source, destination = wire.ends[way], wire.ends[1 - way]
    raw = packet(source, destination, seq & 0xFFFFFFFF, ack & 0xFFFFFFFF, flags, data)
    (verdict,) = wire.router.engine.process(raw, 0, way == 0, wire.router.now)
    assert verdict[1].accept
    assert verdict[1].payload is None


def place(wire: Wire, way: int) -> int:
    """The sequence number that *way*'s receiver awaits."""
    return wire.isn[way] + 1 + len(wire.sent[way])


def still_read(wire: Wire) -> None:
    """Both directions are where they were: the victim notices nothing."""
    assert wire.client(PROPOSAL)[-40:] == EDITED[-40:]
    assert wire.server(TEXT, [1, 2, 4]) == TEXT
    assert wire.router.engine.counters.gapped_flows == 0
    assert wire.router.engine.counters.malformed_flows == 0


# --- forged packets in a living flow -----------------------------------------------------------------------


@pytest.mark.parametrize("way", [0, 1])
@pytest.mark.parametrize("off", [2, 1000, 2 * MIB, 2**31, -3000, -5 * MIB])
def test_forged_proposal_in_its_place_with_a_wrong_acknowledgement_is_not_read(
    wire: Wire, way: int, off: int
) -> None:
    forge(wire, way, place(wire, way), place(wire, 1 - way) + off, SECOND)
    assert wire.stored.streams[way].next == len(wire.sent[way])
    assert not wire.router.firewall.pinholes
    still_read(wire)


def test_forged_bytes_without_an_acknowledgement_are_not_read(wire: Wire) -> None:
    forge(wire, 0, place(wire, 0), place(wire, 1), SECOND, flags=0x08)
    assert not wire.router.firewall.pinholes
    still_read(wire)


@pytest.mark.parametrize("way", [0, 1])
def test_forged_bytes_all_over_the_sequence_space_do_not_end_the_reading(wire: Wire, way: int) -> None:
    chance = random.Random(6)
    here, there = place(wire, way), place(wire, 1 - way)
    ahead = [here + 1 + index * 8000 for index in range(500)]  # all in the 4 MiB that are taken for a gap
    for seq in ahead + [here + index * MIB for index in range(-2048, 2048)]:
        wire.router.now += 0.1  # far longer than gaps are waited for
        forge(wire, way, seq, there + chance.randrange(2, 2**32 - MIB), TEXT * 4)
    assert wire.router.engine.counters.gap_drops == 0
    still_read(wire)


@pytest.mark.parametrize("data", [b"", b"text \n"])
def test_forged_fin_with_a_wrong_acknowledgement_closes_nothing(wire: Wire, data: bytes) -> None:
    wire.client(PROPOSAL)
    for way in (0, 1):
        forge(wire, way, place(wire, way), place(wire, 1 - way) + 100000, data, FIN | ACK)
    assert len(wire.router.firewall.pinholes) == 1
    assert wire.client(SECOND) != SECOND


def test_acknowledgement_as_old_as_a_window_is_no_reason_to_stop_reading(wire: Wire) -> None:
    before = place(wire, 1)
    while place(wire, 1) - before < MIB // 4:
        wire.server(TEXT * 300)
    source, destination = wire.ends
    raw = packet(source, destination, place(wire, 0), before & 0xFFFFFFFF, PSH_ACK, PROPOSAL)
    wire.sent[0] += PROPOSAL
    wire.router.process(wire, raw, True)
    assert wire.c2s.endswith(EDITED[-40:])
    assert len(wire.router.firewall.pinholes) == 1


def test_fin_that_passed_ahead_of_a_hole_may_be_acknowledged(wire: Wire) -> None:
    size = len(TEXT)
    wire.inject(1, len(wire.sent[1]) + size, flags=FIN | ACK)
    wire.server(TEXT)
    source, destination = wire.ends
    raw = packet(source, destination, place(wire, 0), place(wire, 1) + 1 & 0xFFFFFFFF, PSH_ACK, PROPOSAL)
    wire.sent[0] += PROPOSAL
    wire.router.process(wire, raw, True)
    assert wire.c2s.endswith(EDITED[-40:])


def test_old_bytes_that_come_again_as_others_are_not_read(wire: Wire) -> None:
    wire.client(TEXT * 3)
    forge(wire, 0, place(wire, 0) - len(SECOND), place(wire, 1), SECOND)
    assert not wire.router.firewall.pinholes
    still_read(wire)


def test_bytes_forged_between_a_syn_and_its_answer_do_not_stop_the_reading() -> None:
    wire = Wire()
    wire.inject(0, -1, flags=SYN)
    forge(wire, 0, place(wire, 0), 12345, TEXT)
    assert wire.router.kernel.offloaded == []
    wire.sign_on()
    still_read(wire)


def test_connection_whose_answer_takes_another_way_leaves_the_queue() -> None:
    wire = Wire()
    wire.inject(0, -1, flags=SYN)
    wire.router.now += 5.0
    wire.client(TEXT)
    assert wire.router.kernel.offloaded == [wire.flow_id]


# --- flows that begin as something else --------------------------------------------------------------------

FIRST = {
    "http": b"POST /upload HTTP/1.1\r\nHost: 203.0.113.9:5190\r\n\r\n",
    "tls": bytes.fromhex("1603010200010001fc0303"),
    "gopher": b"\r\n",
    "one zero byte": b"\0",
    "an empty line": b"\n",
    "a word's beginning, twice": b"hell",
    "a word with more behind it": b"hello you\n",
    "another word": b"text\n",
}


@pytest.mark.parametrize("server_first", [False, True], ids=["client first", "server first"])
@pytest.mark.parametrize("what", FIRST)
def test_session_behind_other_first_bytes_opens_nothing(what: str, server_first: bool) -> None:
    wire = Wire().handshake()
    if server_first:
        assert wire.server(HELLO) == HELLO
    # What looks like a session has segments of its own, as MSS and window games make them, or one for all.
    assert wire.client(FIRST[what], [len(FIRST[what]) - 1]) == FIRST[what]
    for data in (HELLO, PROPOSAL, HELLO + PROPOSAL):
        assert wire.client(data) == data
        assert wire.server(HELLO) == HELLO
    assert wire.client(PROPOSAL) == PROPOSAL
    assert not wire.read
    assert wire.router.kernel.offloaded == [wire.flow_id]
    assert not wire.router.watcher.opens


@pytest.mark.parametrize("way", [0, 1], ids=["client", "server"])
def test_session_that_one_end_alone_speaks_opens_nothing(way: int) -> None:
    wire = Wire().handshake()
    wire.send(way, HELLO + HELLO + PROPOSAL + SECOND)
    assert (wire.c2s, wire.s2c)[way] == HELLO + HELLO + PROPOSAL + SECOND
    assert not wire.router.watcher.opens


def test_session_that_begins_behind_a_jump_opens_nothing() -> None:
    for jump in (1, 1460, 3 * MIB, 5 * MIB, 2**31 - 1):
        wire = Wire(Router()).handshake()
        source, destination = wire.ends
        for data in (HELLO, HELLO, PROPOSAL):
            raw = packet(
                source, destination, place(wire, 0) + jump & 0xFFFFFFFF, place(wire, 1), PSH_ACK, data
            )
            wire.router.engine.process(raw, 0, True, wire.router.now)
            wire.isn = (wire.isn[0] + len(data), wire.isn[1])
        assert not wire.router.watcher.opens


# --- a host inside and a server outside that work together -------------------------------------------------


def test_perfect_session_with_a_hostile_server_opens_ports_of_its_own_host_only() -> None:
    wire = Wire().sign_on()
    others = ["10.0.0.6", "10.0.0.1", "203.0.113.1", "127.0.0.1", "0.0.0.0", "255.255.255.255", "8.8.8.8"]
    for address in others:
        line = offer(at=Endpoint(address, 6000))
        assert wire.client(line) == line
    for port in (0, 1, 22, 445, 1023):
        line = offer(at=Endpoint("10.0.0.5", port))
        assert wire.client(line) == line
    assert not wire.router.watcher.opens
    wire.client(offer(at=Endpoint("10.0.0.5", 6000)))
    assert [pinhole.inside for pinhole in wire.router.watcher.opens] == [Endpoint("10.0.0.5", 6000)]


def test_hostile_server_that_relays_forged_proposals_opens_nothing() -> None:
    wire = Wire().sign_on()
    for address in ("10.0.0.5", "10.0.0.6", "203.0.113.1"):
        line = offer(at=Endpoint(address, 6000))
        assert wire.server(line) == line
    assert not wire.router.watcher.opens


@pytest.mark.parametrize("skewed", [False, True])
def test_packets_from_an_endpoint_to_itself_leave_no_flow_behind(skewed: bool) -> None:
    """Which way they run nobody can tell, and a flow whose directions share a key is never found again."""
    router = Router()
    for flags, inside, ack in ((SYN, True, 0), (SYN | ACK, False, 8), (PSH_ACK, True, 8)):
        raw = packet(SERVER, SERVER, 7, ack, flags, b"" if flags & SYN else b"*")
        router.engine.process(raw, 1, inside, 5.0, skewed)
    assert not router.engine.flows.streams
    assert not router.kernel.offloaded


def test_other_server_port_is_never_read() -> None:
    wire = Wire(server=Endpoint(SERVER.address, 80)).sign_on()
    assert wire.client(PROPOSAL) == PROPOSAL
    assert not wire.router.watcher.opens
