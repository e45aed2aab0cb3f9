"""MSN's connections through the engine: edits that change lengths, restarts, pinholes that outlive one."""

from __future__ import annotations

import pytest

from nfreaim.core.address import Endpoint
from nfreaim.core.flow import State
from nfreaim.core.nat import FlowNat
from nfreaim.helpers.msn import MSN
from tests.unit.fakes import CLIENT, OUTSIDE, SERVER, Router
from tests.unit.msn_session import (
    NS_CLIENT,
    NS_SERVER,
    SB_CALLER,
    accept,
    chat,
    heard,
    listening,
    msg,
    p2p,
)
from tests.unit.restarts import restarted, unread
from tests.unit.wires import ResizedWire

OFFER = msg(p2p(listening()), b"D")
EDITED = msg(p2p(listening(OUTSIDE)), b"D")
TALK = msg(chat(b"hello"))


class MsnWire(ResizedWire):
    """A switchboard; ``session``: a notification server."""

    keepalive = b"ACK 7\r\n"
    proposal = OFFER

    def make_router(self) -> Router:
        return Router(spec=MSN)

    def on_sb(self) -> MsnWire:
        self.handshake()
        self.client(SB_CALLER[0])
        self.server(SB_CALLER[1], [3])
        return self

    def session(self) -> MsnWire:
        self.handshake()
        for said, answer in zip(NS_CLIENT, NS_SERVER, strict=True):
            self.client(said)
            self.server(answer)
        return self


def state(wire: MsnWire) -> State:
    return wire.stored.reading.state


def test_announcement_leaves_longer_and_what_follows_is_translated() -> None:
    wire = MsnWire().on_sb()
    assert wire.told(TALK) == TALK
    assert not wire.stored.skewed
    assert wire.told(OFFER + TALK, [5, 100, 600]) == EDITED + TALK
    assert wire.stored.skewed
    assert wire.told(TALK) == TALK
    (pinhole,) = wire.router.firewall.pinholes
    assert (pinhole.inside, pinhole.outside) == (Endpoint("10.0.0.5", 44397), Endpoint(OUTSIDE, 44397))
    assert (pinhole.service, pinhole.verify) == ("msn-file", True)


def test_chat_takes_the_fast_path_before_and_leaves_it_behind_an_edit() -> None:
    wire = MsnWire().on_sb()
    engine = wire.router.engine
    raw = wire.raw(0, len(wire.sent[0]), TALK)
    assert engine.passes(raw, True, wire.router.now)
    wire.sent[0] += TALK
    wire.left[0].update(enumerate(TALK, len(wire.sent[0]) - len(TALK)))
    assert wire.told(OFFER) == EDITED
    assert not engine.passes(wire.raw(0, len(wire.sent[0]), TALK), True, wire.router.now)


@pytest.mark.parametrize("offered", [False, True])
def test_next_daemon_reads_on(offered: bool) -> None:
    wire = MsnWire().on_sb()
    if offered:
        wire.told(OFFER)
    wire.told(TALK)
    restarted(wire)
    assert wire.told(TALK) == TALK
    wire.server(heard(chat(b"hello")))
    assert wire.told(msg(accept())) == msg(accept(OUTSIDE))


def test_after_missed_bytes_nothing_is_opened_until_an_answer_fits() -> None:
    wire = MsnWire().session()
    wire.client(b"PNG\r\n")
    wire.server(b"QNG 50\r\n")
    restarted(wire)
    unread(wire, 0, b"PNG\r\n")
    wire.server(b"QNG 50\r\n")
    assert state(wire) is State.RESYNCING
    text = listening()[:-1]
    offer = b"UUN 31 bob1@lab.test 3 %d\r\n" % len(text) + text
    for _ in range(2):
        wire.router.now += 45
        wire.client(b"PNG\r\n")
        wire.server(b"QNG 50\r\n")
        wire.router.now += 2
    assert state(wire) is State.ESTABLISHED
    wire.client(offer)
    assert wire.router.firewall.pinholes == []
    wire.client(b"CHG 40 NLN 0\r\n")
    wire.server(b"CHG 40 NLN 0\r\n")
    wire.client(offer)
    wire.server(b"UUN 31 OK\r\n")
    assert len(wire.router.firewall.pinholes) == 1


def test_pinhole_stays_for_a_minute_without_its_switchboard_while_the_session_lasts() -> None:
    session = MsnWire(client=Endpoint(CLIENT.address, 50000)).session()
    router = session.router
    talk = MsnWire(router).on_sb()
    talk.told(OFFER)
    for way in (0, 1):
        talk.fin(way)
    assert len(router.firewall.pinholes) == 1
    router.wait(59.0)
    assert len(router.firewall.pinholes) == 1
    router.wait(2.0)
    assert router.firewall.pinholes == []
    talk = MsnWire(router, client=Endpoint(CLIENT.address, 50001)).on_sb()
    talk.told(OFFER)
    talk.fin(0)
    assert len(router.firewall.pinholes) == 1
    session.fin(0)
    assert router.firewall.pinholes == []
    lonely = MsnWire(router, client=Endpoint(CLIENT.address, 50002), server=SERVER).on_sb()
    lonely.told(OFFER)
    lonely.fin(0)
    assert router.firewall.pinholes == []


def test_what_cannot_be_read_passes_and_what_was_edited_stays_translated() -> None:
    wire = MsnWire().on_sb()
    assert wire.told(OFFER) == EDITED
    assert wire.told(b"HELO what is this\r\n") == b"HELO what is this\r\n"
    assert wire.stored.reading.state is State.BYPASSED
    assert wire.told(OFFER) == OFFER
    assert wire.router.engine.stats().counters["malformed_flows"] == 1


def test_lines_without_end_and_payloads_without_end_pass() -> None:
    wire = MsnWire().session()
    for _ in range(12):
        assert wire.told(b"x" * 1000) == b"x" * 1000
    assert not wire.read
    wire = MsnWire(client=Endpoint(CLIENT.address, 50003)).on_sb()
    wire.told(b"MSG 5 D 9999999\r\n")
    for _ in range(50):
        assert wire.told(OFFER) == OFFER
    assert wire.router.firewall.pinholes == []
    assert wire.router.engine.flows.half_read.total == 0


def test_servers_that_are_read_anyway_leave_room_for_others_and_fill_nothing() -> None:
    wire = MsnWire().session()
    line = b"RNG %d 198.51.100.%d:%d CKI t a@b b\r\n"
    for number in range(40):
        wire.server(line % (number, number, wire.ends[1].port))
    wire.server(line % (41, 7, 1870))
    assert [str(each.server) for each in wire.router.kernel.followed] == ["198.51.100.7:1870"]
    for number in range(20):
        wire.server(line % (42, 7, 1871 + number))
    nat = wire.stored.nat
    assert isinstance(nat, FlowNat)
    assert len(nat._followed) == len(wire.router.kernel.followed) == 8
