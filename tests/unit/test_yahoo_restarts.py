"""Yahoo! Messenger's connections across a restart of the daemon during which bytes passed unread."""

from __future__ import annotations

import pytest

from tests.unit.restarts import opened, pause, restarted, unread
from tests.unit.yahoo_session import INSIDE, YahooWire
from tests.yahoo.ymsg import MESSAGE, offer, raw, url, ymsg

TEXT = ymsg(MESSAGE, [(1, b"alice1"), (5, b"bob1"), (14, b"hello")])


def missed(lost: bool = True) -> YahooWire:
    """A connection that is read on behind bytes that nobody saw."""
    wire = YahooWire().begun()
    wire.say(0, TEXT)
    wire = restarted(wire, lost=lost)
    wire.lenient = True
    unread(wire, 0, TEXT)
    unread(wire, 1, TEXT)
    return wire


def both(wire: YahooWire, packet: bytes = TEXT) -> None:
    wire.say(0, packet)
    wire.say(1, TEXT)


def test_offers_are_served_again_behind_pauses_in_both_directions() -> None:
    wire = missed()
    assert not opened(wire)
    for _ in range(3):
        both(wire)
        pause(wire)
    assert opened(wire)


def test_without_a_pause_nothing_is_believed() -> None:
    wire = missed()
    for _ in range(20):
        both(wire)
    assert not opened(wire)


@pytest.mark.parametrize("pauses", [0, 1, 4])
def test_text_that_looks_like_packets_at_the_beginning_of_segments_opens_nothing(pauses: int) -> None:
    """The author of the text knows where TCP cuts it, and the number of the session."""
    imitation = TEXT * 3 + offer(url(INSIDE, 6000)) + TEXT
    message = raw(MESSAGE, b"14\xc0\x80" + imitation + b"\xc0\x80")
    wire = missed()
    for _ in range(pauses):
        both(wire)
        pause(wire)
    for _ in range(3):
        wire.send(0, message, [24, 24 + len(TEXT) * 3])
        wire.say(1, TEXT)
        pause(wire)
    assert [pinhole for pinhole in wire.router.firewall.pinholes if pinhole.inside.port == 6000] == []
