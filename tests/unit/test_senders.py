"""Nothing is opened for a host in whose name another machine speaks, or whose handshake nobody saw."""

from __future__ import annotations

import logging
from typing import Self

import pytest

from nfreaim.core.address import Direction
from nfreaim.core.tcp.segment import ACK, RST, SYN, Segment
from tests.script_helper import HELLO, TEXT
from tests.tcp.packets import mss, packet
from tests.unit.fakes import CLIENT, SERVER, Router, Wire
from tests.unit.offers import EDITED, PROPOSAL
from tests.unit.restarts import pause, restarted, unread
from tests.unit.wires import HomeWire

ALICE, AMY = bytes((2, 0, 0, 0, 0, 5)), bytes((2, 0, 0, 0, 0, 6))
MD5, AO = bytes([19, 18]) + bytes(16), bytes([29, 4, 1, 1])


class Framed(Wire):
    """Packets from inside come from the machine *frm*; the router knows alice's."""

    frm: bytes | None = ALICE

    def __init__(self, router: Router | None = None) -> None:
        super().__init__(router)
        self.router.kernel.senders.at.setdefault(CLIENT.address, ALICE)

    def by(self, machine: bytes | None) -> Self:
        self.router.kernel.senders.frame = self.frm = machine
        return self

    def inject(self, way: int, at: int, data: bytes = b"", flags: int = 0x18) -> dict[int, object]:  # type: ignore[override]
        self.router.kernel.senders.frame = self.frm
        return dict(super().inject(way, at, data, flags))


def refused(wire: Wire) -> bool:
    """Whether a proposal of the client's, sent now, is left alone."""
    opened = wire.router.firewall.changes
    came = wire.client(PROPOSAL)
    assert came in (PROPOSAL, EDITED)
    assert (wire.router.firewall.changes > opened) is (came == EDITED)
    return came == PROPOSAL


def test_the_host_itself_may_expect() -> None:
    assert not refused(Framed().sign_on())


@pytest.mark.parametrize("machine", [AMY, None], ids=["another machine", "a link without addresses"])
def test_whole_session_of_another_machine(machine: bytes | None, caplog: pytest.LogCaptureFixture) -> None:
    wire = Framed().by(machine).sign_on()
    assert refused(wire)
    assert wire.by(ALICE).stored.reading.reads
    assert refused(wire), "bytes of another sender are part of what was read"
    assert wire.router.engine.counters.strange_senders
    told = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(told) == 1
    assert "check_senders" in told[0].getMessage()


@pytest.mark.parametrize("packets", range(3), ids=["SYN", "SYN and ACK", "SYN, ACK and sign-on"])
def test_another_machine_that_speaks_in_part(packets: int) -> None:
    """What it says in the name of the host spoils the connection, however little it is."""
    wire = Framed()
    wire.by(AMY).inject(0, -1, flags=SYN)
    wire.inject(1, -1, flags=SYN | ACK)
    wire.by(AMY if packets else ALICE).inject(0, 0, flags=ACK)
    wire.server(HELLO, [1, 2, 4])
    wire.by(AMY if packets > 1 else ALICE).client(HELLO)
    wire.by(ALICE)
    assert refused(wire)


@pytest.mark.parametrize("cut", [1, 40, len(PROPOSAL) - 1])
@pytest.mark.parametrize("first", [ALICE, AMY])
def test_message_of_two_senders(cut: int, first: bytes) -> None:
    wire = Framed().sign_on()
    before = wire.router.firewall.changes
    wire.by(first).client(PROPOSAL[:cut])
    wire.by(AMY if first == ALICE else ALICE).client(PROPOSAL[cut:])
    assert wire.router.firewall.changes == before


def test_host_that_moves_to_another_card() -> None:
    """Its neighbour entry moves with it."""
    wire = Framed().sign_on()
    wire.router.kernel.senders.at[CLIENT.address] = AMY
    assert not refused(wire.by(AMY))


def test_host_whose_neighbour_entry_is_gone() -> None:
    known, unknown = Framed().sign_on(), Framed()
    unknown.router.kernel.senders.at = {"10.0.0.77": AMY}
    unknown.sign_on()
    known.client(TEXT)
    known.router.kernel.senders.at = {"10.0.0.77": AMY}
    assert not refused(known), "it was seen when the connection began"
    assert refused(unknown)


def test_frames_that_are_not_looked_at() -> None:
    wire = Framed()
    wire.router.kernel.senders.at.clear()
    wire.by(AMY).inject(0, -1, flags=SYN)
    assert not refused(wire.by(ALICE).sign_on())


def test_table_of_neighbours_that_fails() -> None:
    wire = Framed().sign_on()
    wire.router.kernel.senders.sent = None  # type: ignore[assignment,method-assign]
    assert not refused(wire)
    wire = Framed()
    wire.router.kernel.senders.sent = None  # type: ignore[assignment,method-assign]
    assert refused(wire.sign_on())


def test_record_that_was_to_be_written_again_ends_with_its_flow() -> None:
    wire = Framed().sign_on()
    wire.router.engine.save()
    wire.by(AMY).client(PROPOSAL)
    assert wire.stored.barred
    wire.by(ALICE)
    wire.fin(0)
    wire.fin(1)
    wire.router.wait(61)
    assert (wire.router.kernel.kept, wire.router.kernel.noted) == ({}, {})


def test_server_inside_for_which_another_machine_speaks() -> None:
    """Its client outside may be the accomplice."""
    wire = HomeWire()
    senders = wire.router.kernel.senders
    senders.at, senders.frame = {"10.0.0.9": ALICE}, AMY
    wire.handshake()
    assert wire.stored.barred
    senders.frame = ALICE
    wire = HomeWire()
    wire.router.kernel.senders.at, wire.router.kernel.senders.frame = {"10.0.0.9": ALICE}, ALICE
    wire.handshake()
    assert not wire.stored.barred


# --- after a restart --------------------------------------------------------------------------------------


def again(lost: bool) -> Framed:
    """A connection of alice's at a new daemon."""
    wire = restarted(Framed().sign_on(), lost=lost)
    wire.router.kernel.senders.at = {CLIENT.address: ALICE}
    return wire.by(ALICE)


def test_another_machine_does_not_show_where_messages_begin() -> None:
    """A message that it begins could be completed by what the host says."""
    wire = again(lost=True)
    unread(wire, 0, TEXT)
    unread(wire, 1, TEXT)
    for number in range(3):
        pause(wire)
        wire.server(TEXT)
        pause(wire)
        wire.by(AMY).inject(0, len(wire.sent[0]) + number * len(TEXT), TEXT)
        assert not wire.stored.reading.reads
    for _ in range(3):
        pause(wire)
        wire.by(ALICE).client(TEXT)
    assert wire.stored.reading.reads
    assert not refused(wire), "where alice's own stream stands has not changed"


@pytest.mark.parametrize("at", [-2000, 700])
def test_packet_of_another_machine_does_not_cost_the_place(at: int) -> None:
    wire = again(lost=False)
    wire.by(AMY).inject(0, len(wire.sent[0]) + at, b"forged" * 400)
    wire.by(ALICE).client(PROPOSAL)
    assert wire.router.firewall.changes


@pytest.mark.parametrize("cut", [1, 5])
def test_message_that_another_machine_began_before_the_restart(cut: int) -> None:
    wire = Framed().sign_on()
    wire.router.engine.save()
    wire.by(AMY).client(PROPOSAL[:cut])
    wire = restarted(wire)
    wire.router.kernel.senders.at = {CLIENT.address: ALICE}
    wire.by(ALICE).client(PROPOSAL[cut:])
    assert not wire.router.firewall.changes
    assert refused(wire)


# --- the handshake ----------------------------------------------------------------------------------------


def test_flow_that_conntrack_never_held_whole() -> None:
    for what in ("flushed", "picked_up", "dead"):
        wire = Wire()
        getattr(wire.router.kernel, what).add(wire.flow_id)
        wire.sign_on()
        assert refused(wire), what
        getattr(wire.router.kernel, what).clear()
        assert not refused(wire), "it is asked again"


@pytest.mark.parametrize("what", ["flushed", "picked_up"])
@pytest.mark.parametrize("restart", [False, True])
def test_proved_flow_outlives_a_flush_of_conntrack(what: str, restart: bool) -> None:
    wire = Wire().sign_on()
    if restart:
        restarted(wire)
    getattr(wire.router.kernel, what).add(wire.flow_id)
    wire.server(TEXT)
    wire.client(TEXT)
    assert not refused(wire)


@pytest.mark.parametrize("holds", [True, False])
def test_record_of_a_version_that_proved_nothing(holds: bool) -> None:
    wire = Wire().sign_on()
    wire.router.engine.save()
    (kept,) = wire.router.kernel.kept.values()
    del kept["proved"], kept["barred"]
    old, make = wire.router, wire.make_router

    def made() -> Router:
        router = make()
        if not holds:
            router.kernel.picked_up.add(wire.flow_id)
        return router

    wire.make_router = made  # type: ignore[method-assign]
    restarted(wire)
    assert wire.router is not old
    wire.router.kernel.flushed.add(wire.flow_id)
    assert refused(wire) is not holds


@pytest.mark.parametrize("restart", [False, True])
def test_reset_of_the_host_takes_the_proof_away(restart: bool) -> None:
    """By its number it answers the server's SYN/ACK: the host knows of no connection."""
    wire = Wire().sign_on()
    assert not refused(wire)
    wire.inject(0, 0, flags=RST)
    assert not wire.router.firewall.pinholes
    if restart:
        restarted(wire)
    assert refused(wire)


def test_reset_in_the_middle_counts_once_conntrack_has_lost_the_connection() -> None:
    for what, lost in (("flushed", True), ("picked_up", True), ("broken", False)):
        wire = Wire().sign_on()
        wire.inject(0, 5, flags=RST)
        if what != "broken":
            getattr(wire.router.kernel, what).add(wire.flow_id)
        assert refused(wire) is lost, what


def test_reset_in_the_middle_of_the_hosts_own_machine() -> None:
    for machine, at, believed in ((AMY, 5, False), (ALICE, 1 << 20, False), (ALICE, 5, True)):
        wire = Framed().sign_on()
        wire.by(machine).inject(0, at, flags=RST)
        assert refused(wire.by(ALICE)) is believed, (machine, at)


@pytest.mark.parametrize("way", [0, 1])
def test_reset_amid_the_handshake(way: int) -> None:
    """An end that did not take part in it says so. What follows is of no flow."""
    wire = HomeWire() if way else Wire()
    wire.inject(0, -1, flags=SYN)
    wire.inject(1, -1, flags=SYN | ACK)
    raw = packet(SERVER, CLIENT, 0, 0, RST)
    if way:  # of a port on which nobody listens
        raw = packet(wire.ends[1], wire.ends[0], 0, wire.isn[0] + 1, RST | ACK)
        assert [verdict.accept for _, verdict in wire.router.engine.process(raw, 0, True, 1000.0)] == [True]
    else:
        wire.inject(0, 0, flags=RST)
    wire.inject(0, 0, flags=ACK)
    assert not len(wire.router.engine.flows)


@pytest.mark.parametrize(
    ("options", "begins"),
    [
        (mss(1460), True),
        (mss(1460) + b"\1\1\1\0", True),
        (b"", True),
        (mss(1460) + MD5, False),
        (MD5 + mss(1460), False),
        (AO, False),
        (b"\x22\x40\1\1", False),  # longer than the header
        (b"\x02\x00\1\1", False),
        (b"\1\1\1\x22", False),
    ],
)
def test_answer_with_options_that_hosts_take_in_silence(options: bytes, begins: bool) -> None:
    wire = Wire()
    wire.inject(0, -1, flags=SYN)
    answer = packet(SERVER, CLIENT, wire.isn[1], wire.isn[0] + 1, SYN | ACK, tcp_options=options)
    segment = Segment.parse(answer)
    assert segment is not None
    assert segment.ignorable is not begins
    wire.router.process(wire, answer, False)
    wire.inject(0, 0, flags=ACK)
    assert len(wire.router.engine.flows) == begins


def test_flow_begins_with_the_clients_ack_whatever_it_carries() -> None:
    for data in (b"", HELLO):
        wire = Wire()
        wire.inject(0, -1, flags=SYN)
        wire.inject(1, -1, flags=SYN | ACK)
        assert not len(wire.router.engine.flows)
        wire.send(0, data) if data else wire.inject(0, 0, flags=ACK)
        (flow,) = wire.router.engine.flows
        assert flow.streams[Direction.ORIGINAL].next == len(data)


def test_ack_of_other_numbers_begins_nothing() -> None:
    for seq, ack in ((-1 << 20, 0), (1 << 20, 0), (0, 1 << 20), (0, -1 << 20)):
        wire = Wire()
        wire.inject(0, -1, flags=SYN)
        wire.inject(1, -1, flags=SYN | ACK)
        raw = packet(CLIENT, SERVER, wire.isn[0] + 1 + seq, wire.isn[1] + 1 + ack, ACK)
        wire.router.process(wire, raw, True)
        assert not len(wire.router.engine.flows)


def test_forged_syn_ahead_of_the_answer_to_the_hosts_own() -> None:
    """It would have made the host's connection unread."""
    wire = Framed()
    wire.inject(0, -1, flags=SYN)
    forged = packet(CLIENT, SERVER, 5, 0, SYN)
    wire.router.kernel.senders.frame = AMY
    wire.router.process(wire, forged, True)
    wire.inject(1, -1, flags=SYN | ACK)
    wire.inject(0, 0, flags=ACK)
    assert not wire.stored.barred
