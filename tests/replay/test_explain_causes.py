"""Where and why peers did not meet, as `nfreaim explain` tells it from both sides of a router."""

from __future__ import annotations

from pathlib import Path

from tests.replay.told import story
from tests.replay.two_sides import ALICE, BOB, ROUTER, TwoSides

WORKS = ("syn", "syn-ack", "ack", "data")


def verdict(two: TwoSides, tmp_path: Path, lan: bool = True, wan: bool = True) -> str:
    told = story(two.write(tmp_path / "both.pcap", lan, wan))
    assert len(told.ladders) == 1, told.notes
    ladder = told.ladders[0]
    return f"{'good' if ladder.good else 'bad'}: {' '.join(ladder.verdict)}"


def test_router_that_changed_the_offer_and_led_the_peer_on(tmp_path: Path) -> None:
    two = TwoSides(announced=ROUTER).calls(*WORKS)
    assert verdict(two, tmp_path) == (
        "good: The peers have met: 203.0.113.20 connected to 203.0.113.1:5500, which the router led to "
        "10.0.0.5:5500; 0 bytes went there, 6 came back."
    )
    told = story(tmp_path / "both.pcap")
    assert told.notes == ["Both sides of the router: inside 10.0.0.0/24, outside address 203.0.113.1."]
    assert [row.text for row in told.ladders[0].rows] == [
        "dcc-send: listens at 10.0.0.5:5500",
        "becomes 203.0.113.1:5500",
        "connects to 203.0.113.1:5500",
        "led to 10.0.0.5:5500: connected, 0 bytes there, 6 back",
    ]


def test_router_that_does_nothing(tmp_path: Path) -> None:
    told = verdict(TwoSides(), tmp_path)
    assert told.startswith("bad: Peers outside were told 10.0.0.5:5500, a private address, which they cannot")
    assert "nfreaim would have said 203.0.113.1:5500 and opened that port. It did not run" in told


def test_router_that_changes_the_offer_and_opens_nothing(tmp_path: Path) -> None:
    two = TwoSides(announced=ROUTER).calls("syn", "syn", "syn", lan=False)
    told = verdict(two, tmp_path)
    assert (
        "203.0.113.20 tried 203.0.113.1:5500: no answer to 3 tries in 1 s; the router did not lead it on"
        in told
    )
    refused = TwoSides(announced=ROUTER).calls("syn", "rst", lan=False)
    assert "refused; the router answered by itself" in verdict(refused, tmp_path)


def test_host_that_does_not_listen_and_host_with_a_firewall(tmp_path: Path) -> None:
    two = TwoSides(announced=ROUTER).calls("syn", "rst")
    assert "refused; it reached 10.0.0.5:5500, and nothing listens there" in verdict(two, tmp_path)
    two = TwoSides(announced=ROUTER).calls("syn", "syn")
    assert "it reached 10.0.0.5:5500, whose own firewall may have dropped it" in verdict(two, tmp_path)


def test_nobody_came(tmp_path: Path) -> None:
    told = verdict(TwoSides(announced=ROUTER), tmp_path)
    assert "No connection to 203.0.113.1:5500 arrived at the router" in told


def test_router_behind_another_router(tmp_path: Path) -> None:
    two = TwoSides(announced="192.168.1.2", router="192.168.1.2")
    told = verdict(two, tmp_path)
    assert "Peers outside were told 192.168.1.2:5500, a private address" in told
    assert "The router's outside address 192.168.1.2 is of a private network: another router is in" in told
    left = verdict(TwoSides(router="192.168.1.2"), tmp_path)
    assert "nor would nfreaim: no peer reaches the router's own outside address 192.168.1.2." in left
    assert "It did not run" not in left


def test_connection_that_is_reset_at_once(tmp_path: Path) -> None:
    two = TwoSides(announced=ROUTER).calls("syn", "syn-ack", "ack", "rst")
    assert "connected, and reset before the first byte" in verdict(two, tmp_path)


def test_one_side_alone(tmp_path: Path) -> None:
    two = TwoSides(announced=ROUTER).calls(*WORKS)
    assert verdict(two, tmp_path, wan=False).startswith(
        "good: The peers have met: 203.0.113.20 connected to 10"
    )
    assert verdict(two, tmp_path, lan=False).startswith(
        "good: The peers have met: 203.0.113.20 connected to 203"
    )
    two = TwoSides(announced=ROUTER).calls("syn", "syn", lan=False)
    assert "the LAN side, which would show whether" in verdict(two, tmp_path, lan=False)


def test_second_copy_of_a_packet_is_no_second_try(tmp_path: Path) -> None:
    """A bridge and its port show each packet twice."""
    two = TwoSides(announced=ROUTER).calls("syn", "syn", "syn", lan=False)
    two.wan += [(time + 0.0005, frame) for time, frame in two.wan]
    assert "no answer to 3 tries in 1 s" in verdict(two, tmp_path)


def test_unrelated_connections_are_no_part_of_the_story(tmp_path: Path) -> None:
    two = TwoSides(announced=ROUTER).calls("syn", "rst", port=22, lan=False).tries((BOB, 80), *WORKS)
    told = verdict(two, tmp_path)
    assert ":22" not in told
    assert ":80" not in told
    assert ALICE not in told
