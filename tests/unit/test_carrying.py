"""Agreements that are over make room for new ones at a limit, and no others do."""

from __future__ import annotations

from typing import Any

import pytest

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.helper import Refused
from tests.unit.pinhole_table import ALICE, SERVER, Table

BOB = "198.51.100.2"


class Peers:
    """Connections to a table's pinholes; *open* are those that connection tracking holds for established."""

    def __init__(self, **policy: Any) -> None:
        self.open: set[FlowId] = set()
        self.asked = 0
        self.unread: list[tuple[Endpoint, int, float]] = []
        self.table = Table(connections=self, **policy)
        self.port = 50000

    def look(self) -> None:
        """The table reads what was announced to it only now."""
        for outside, port, now in self.unread:
            self.table.claimed(outside, BOB, now, port)
        self.unread.clear()

    def carries(self, connection: FlowId) -> bool:
        self.asked += 1
        return connection in self.open

    def come(self, port: int, now: float, stay: bool = False, unread: bool = False) -> FlowId:
        """BOB connects to the pinhole of inside *port* and, unless he stays, closes the connection."""
        self.port += 1
        pinhole = next(one for one in self.table if one.inside.port == port)
        connection = FlowId(Endpoint(BOB, self.port), pinhole.inside)
        if stay:
            self.open.add(connection)
        self.unread.append((pinhole.outside, self.port, now))
        if not unread:
            self.look()
        self.table.consistent()
        return connection


@pytest.mark.parametrize("pause", [0.01, 0.3, 5.0, 30.0])
@pytest.mark.parametrize("one_port", [True, False], ids=["one port", "a port each"])
@pytest.mark.parametrize("unread", [True, False])
def test_twenty_files_one_after_another_have_their_pinholes(
    pause: float, one_port: bool, unread: bool
) -> None:
    peers = Peers()
    for number in range(20):
        now, port, cookie = number * pause, 5190 if one_port else 5190 + number, b"FILE%04d" % number
        peers.table.expire(now)
        peers.table.ask(cookie, port, now=now)
        peers.table.accepted(ALICE, cookie, now)
        peers.come(port, now, unread=unread)


def test_eight_at_once_and_eight_more_when_these_are_over() -> None:
    peers = Peers()
    for now in (0.0, 1.0):
        for number in range(8):
            peers.table.ask(b"%d%07d" % (now, number), 5190 + number, now=now)
        for number in range(8):
            peers.come(5190 + number, now)


def test_files_that_are_on_their_way_count() -> None:
    peers = Peers()
    for number in range(8):
        peers.table.ask(b"FILE%04d" % number, 5190 + number)
    under_way = [peers.come(5190 + number, 0.0, stay=True) for number in range(8)]
    with pytest.raises(Refused, match="per_flow"):
        peers.table.ask(b"FILE0008", 5198, now=1.0)
    peers.open.discard(under_way[3])
    peers.table.ask(b"FILE0008", 5198, now=2.0)
    assert peers.table.ends == ["over: its peer has come and gone"]
    assert [one.inside.port for one in peers.table if one.inside.port == 5193] == []


def test_offers_that_nobody_came_for_count() -> None:
    peers = Peers()
    for number in range(8):
        peers.table.ask(b"FILE%04d" % number, 5190 + number)
    with pytest.raises(Refused, match="per_flow"):
        peers.table.ask(b"FILE0008", 5198, now=1.0)
    assert peers.asked == 0


def test_second_connection_of_an_agreement_keeps_it() -> None:
    """A web client asks by HEAD, and then by GET in another connection."""
    peers = Peers(per_flow=1)
    peers.table.ask(b"FILE0000", 5190)
    peers.come(5190, 0.0)
    peers.come(5190, 0.1, stay=True)
    with pytest.raises(Refused, match="per_flow"):
        peers.table.ask(b"FILE0001", 5191, now=1.0)


def test_pinholes_that_are_over_do_not_count_for_their_host_either() -> None:
    peers = Peers(per_host=4)
    flows = [FlowId(Endpoint("10.0.0.5", 40000 + number), SERVER) for number in range(5)]
    for number, flow in enumerate(flows[:4]):
        peers.table.ask(b"FILE%04d" % number, 5190 + number, flow=flow)
    with pytest.raises(Refused, match="per_host"):
        peers.table.ask(b"FILE0004", 5194, flow=flows[4])
    peers.come(5192, 0.0)
    peers.table.ask(b"FILE0004", 5194, flow=flows[4], now=1.0)
    assert sorted(one.inside.port for one in peers.table) == [5190, 5191, 5193, 5194]


def test_a_flood_of_proposals_asks_connection_tracking_now_and_then() -> None:
    peers = Peers()
    for number in range(8):
        peers.table.ask(b"FILE%04d" % number, 5190 + number)
        peers.come(5190 + number, 0.0, stay=True)
    for number in range(1000):
        with pytest.raises(Refused):
            peers.table.ask(b"MORE%04d" % number, 6000 + number, now=1.0 + number / 10000)
    assert peers.asked <= 8


def test_what_gave_way_wrongly_is_still_let_in_by_the_gate() -> None:
    """Nothing tells which agreement of a shared port a connection was for."""
    peers = Peers(per_flow=2)
    peers.table.ask(b"FILE0000", 5190)
    before = peers.table.expected(Endpoint("10.0.0.5", 5190))
    peers.table.ask(b"FILE0001", 5190)
    peers.come(5190, 0.0)
    peers.table.ask(b"FILE0002", 5190, now=1.0)
    assert len(peers.table.expected(Endpoint("10.0.0.5", 5190))) == 3 * len(before)
