"""Whose connection it was that ended, and what the history and the status may say of its bytes."""

from __future__ import annotations

from typing import Any

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.firewall.pinhole import Pinhole
from nfreaim.errors import BackendError
from nfreaim.host import events
from nfreaim.host.netfilter.accounting import Traffic
from nfreaim.host.netfilter.conntrack_events import Ends
from nfreaim.host.pinholes.ledger import Ledger

FLOW = FlowId(Endpoint("10.0.0.5", 40123), Endpoint("203.0.113.9", 7777))
OUTSIDE = Endpoint("203.0.113.1", 40000)
PINHOLE = Pinhole(Endpoint("10.0.0.5", 5000), OUTSIDE, FLOW, b"agreed", "chat", 9.0, protocol="one")


class Written:
    """A ledger, and what it wrote."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.ledger = Ledger(self.lines.append)

    def hear(self, kind: events.Kind, **more: str) -> None:
        self.ledger.hear(events.of_pinhole(kind, PINHOLE, **more))

    def carried(self) -> list[dict[str, Any]]:
        keys = ("peer", "connections", "packets", "bytes")
        return [{key: line[key] for key in keys} for line in self.lines if line["event"] == "carried"]


def ends(number: int, peer: str = "198.51.100.7") -> Ends:
    return Ends(OUTSIDE, Endpoint(peer, number))


def nothing(flow: FlowId) -> Traffic | None:
    return None


def test_bytes_come_when_the_connection_ends_long_after_its_pinhole() -> None:
    made = Written()
    made.hear(events.OPENED)
    made.ledger.began(ends(1))
    made.hear(events.CLAIMED, peer="198.51.100.7")
    made.hear(events.CLOSED, reason="done")
    assert [line["event"] for line in made.lines] == ["pinhole-opened", "pinhole-claimed", "pinhole-closed"]
    made.ledger.flush()
    assert made.carried() == []
    made.ledger.ended(ends(1), Traffic(7, 900))
    made.ledger.flush()
    assert made.carried() == [{"peer": "198.51.100.7", "connections": 1, "packets": 7, "bytes": 900}]
    assert len({line["id"] for line in made.lines}) == 1
    assert "agreed" not in str(made.lines)


def test_a_second_pinhole_at_the_same_place_does_not_get_the_bytes_of_the_first() -> None:
    made = Written()
    made.hear(events.OPENED)
    made.ledger.began(ends(1))
    made.hear(events.CLOSED, reason="done")
    made.hear(events.OPENED)
    made.ledger.ended(ends(1), Traffic(7, 900))
    made.ledger.flush()
    first, second = (line["id"] for line in made.lines if line["event"] == "pinhole-opened")
    (carried,) = (line for line in made.lines if line["event"] == "carried")
    assert carried["id"] == first != second
    assert made.ledger.told(nothing)[str(OUTSIDE)]["connections"] == 0


def test_connections_of_one_peer_are_summed_and_one_that_was_not_counted_makes_the_sum_unknown() -> None:
    made = Written()
    made.hear(events.OPENED)
    for number, peer in ((1, "198.51.100.7"), (2, "198.51.100.7"), (3, "198.51.100.8")):
        made.ledger.began(ends(number, peer))
    made.ledger.ended(ends(1), Traffic(1, 100))
    made.ledger.ended(ends(2), Traffic(2, 200))
    made.ledger.ended(ends(3, "198.51.100.8"), None)
    made.ledger.flush()
    made.ledger.flush()
    assert made.carried() == [
        {"peer": "198.51.100.7", "connections": 2, "packets": 3, "bytes": 300},
        {"peer": "198.51.100.8", "connections": 1, "packets": None, "bytes": None},
    ]
    assert made.ledger.total() == {"connections": 3, "packets": 3, "bytes": 300}


def test_the_status_adds_what_is_open_to_what_has_ended() -> None:
    made = Written()
    made.hear(events.OPENED)
    assert made.ledger.told(nothing)[str(OUTSIDE)] == {
        "connected": [],
        "connections": 0,
        "active": 0,
        "packets": 0,
        "bytes": 0,
    }
    made.ledger.began(ends(1))
    made.ledger.began(ends(2))
    made.ledger.ended(ends(1), Traffic(1, 100))
    asked = []

    def traffic_of(flow: FlowId) -> Traffic:
        asked.append(flow)
        return Traffic(2, 50)

    told = made.ledger.told(traffic_of)[str(OUTSIDE)]
    assert (told["connected"], told["connections"], told["active"]) == (["198.51.100.7"], 2, 1)
    assert (told["packets"], told["bytes"]) == (3, 150)
    assert asked == [FlowId(Endpoint("198.51.100.7", 2), OUTSIDE)]
    assert made.ledger.told(nothing)[str(OUTSIDE)]["bytes"] is None


def test_connection_tracking_that_fails_makes_bytes_unknown_and_harms_nobody() -> None:
    def broken(flow: FlowId) -> Traffic | None:
        raise BackendError("no answer")

    made = Written()
    made.hear(events.OPENED)
    made.ledger.began(ends(1))
    assert made.ledger.told(broken)[str(OUTSIDE)]["packets"] is None
    made.ledger.close(broken)
    assert made.carried() == [{"peer": "198.51.100.7", "connections": 1, "packets": None, "bytes": None}]


def test_what_goes_on_when_the_daemon_stops_is_told_so_far() -> None:
    made = Written()
    made.hear(events.OPENED)
    made.ledger.began(ends(1))
    made.ledger.close(lambda flow: Traffic(4, 400))
    assert made.carried() == [{"peer": "198.51.100.7", "connections": 1, "packets": 4, "bytes": 400}]
    assert made.lines[-1]["unfinished"] is True


def test_a_flood_of_connections_and_peers_has_bounds() -> None:
    made = Written()
    made.hear(events.OPENED)
    for number in range(6000):
        made.ledger.began(ends(1 + number % 60000, f"198.51.{number // 250}.{number % 250}"))
    assert len(made.ledger._open) == 4096
    told = made.ledger.told(nothing)[str(OUTSIDE)]
    assert len(told["connected"]) == 65
    assert "others" in told["connected"]
    assert told["bytes"] is None
    assert made.ledger.total()["connections"] == 6000 - 4096
    last = ends(6000, "198.51.23.249")
    made.ledger.ended(last, Traffic(1, 10))
    assert made.ledger.total()["bytes"] == 10, "the latest connections are still known"


def test_ends_of_connections_that_nobody_saw_begin_are_no_error() -> None:
    made = Written()
    made.ledger.began(ends(1))
    made.ledger.ended(ends(1), Traffic(1, 1))
    made.hear(events.CLAIMED, peer="198.51.100.7")
    made.hear(events.CLOSED, reason="done")
    made.ledger.flush()
    assert made.lines == []
