"""What the log says of connections that were met in the middle: each kind in its own words, once."""

from __future__ import annotations

import logging

import pytest

from nfreaim.core.address import Endpoint
from nfreaim.core.tcp.segment import ACK, SYN
from tests.script_helper import TEXT
from tests.unit.fakes import Router, Wire
from tests.unit.offers import PROPOSAL
from tests.unit.wires import HomeWire

OLDER, PEER, ONE_SIDED = (
    "older than this daemon",
    "a peer's connection through a pinhole",
    "only one direction",
)


@pytest.fixture(autouse=True)
def everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """The level and kind of each line about connections that pass unread."""
    lines = [(record.levelname, record.getMessage()) for record in caplog.records]
    kinds = (OLDER, PEER, ONE_SIDED)
    return [(level, kind) for level, text in lines for kind in kinds if kind in text]


def later(router: Router) -> Router:
    router.now += 1.0
    return router


def test_a_connection_older_than_the_daemon_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    router = Router()
    for port in (40001, 40002):
        Wire(later(router), client=Endpoint("10.0.0.5", port)).client(TEXT)
    assert said(caplog) == [("INFO", OLDER), ("DEBUG", OLDER)]
    assert "10.0.0.5:40001 > 203.0.113.9:5190: a connection older" in caplog.text


def test_a_peer_at_a_clients_port_is_no_older_connection(caplog: pytest.LogCaptureFixture) -> None:
    """libpurple listens on the servers' port: what its host sends to a peer is queued like a server's."""
    router = Router()
    Wire(router).sign_on().client(PROPOSAL)
    peer = HomeWire(router, client=Endpoint("203.0.113.20", 51000))
    peer.ends = (peer.ends[0], Endpoint("10.0.0.5", 5190))
    peer.inject(1, -1, flags=SYN | ACK)
    peer.inject(1, 0, TEXT)
    assert said(caplog) == [("DEBUG", PEER)]


def test_a_peer_that_goes_on_after_its_pinhole_closed_is_known_by_connection_tracking(
    caplog: pytest.LogCaptureFixture,
) -> None:
    router = Router()
    peer = HomeWire(router)
    router.kernel.peers = {peer.flow_id}
    peer.inject(1, -1, flags=SYN | ACK)
    peer.inject(1, 0, TEXT)
    assert said(caplog) == [("DEBUG", PEER)]


def test_a_connection_whose_answers_never_come_is_one_sided(caplog: pytest.LogCaptureFixture) -> None:
    router = Router()
    for port in (40001, 40002):
        wire = Wire(later(router), client=Endpoint("10.0.0.5", port))
        wire.inject(0, -1, flags=SYN)
        wire.inject(0, 0, flags=ACK)
        wire.client(TEXT)
        assert not said(caplog)[2:], "its answer may still come"
        router.now += 4.0
        wire.client(TEXT)
    assert said(caplog) == [("INFO", ONE_SIDED), ("DEBUG", ONE_SIDED)]
    assert "lan and wan do not name" in caplog.text


def test_a_connection_of_which_only_the_answers_come_is_one_sided(caplog: pytest.LogCaptureFixture) -> None:
    wire = Wire()
    wire.inject(1, -1, flags=SYN | ACK)
    wire.server(TEXT)
    assert said(caplog) == [("INFO", ONE_SIDED)]


def test_answers_are_forgotten_in_time(caplog: pytest.LogCaptureFixture) -> None:
    wire = Wire()
    wire.inject(1, -1, flags=SYN | ACK)
    for _ in range(2):
        wire.router.wait(61.0)
    wire.server(TEXT)
    assert said(caplog) == [("INFO", OLDER)]


def test_a_flood_of_strays_asks_connection_tracking_no_more_than_now_and_then(
    caplog: pytest.LogCaptureFixture,
) -> None:
    router = Router()
    for port in range(40000, 40100):
        Wire(router, client=Endpoint("10.0.0.5", port)).client(TEXT)
    assert said(caplog) == [("INFO", OLDER)]


def test_what_connection_tracking_cannot_say_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    wire = Wire()
    wire.router.kernel.broken = True
    wire.client(TEXT)
    assert said(caplog) == []
