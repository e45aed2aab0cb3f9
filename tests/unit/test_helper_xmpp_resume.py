"""XMPP's helper: how it goes on reading a flow of another process, and where stanzas begin after a gap."""

from __future__ import annotations

import pytest

from nfreaim.core.address import Direction
from nfreaim.helpers.xmpp.xmpp_helper import XmppHelper
from tests.unit.helper_session import C2S, S2C
from tests.unit.xmpp_session import Session
from tests.xmpp.texts import LEAVES, MESSAGE, OFFER


@pytest.mark.parametrize("cut", range(0, len(OFFER), 2))
def test_reading_goes_on_where_it_stood(cut: int) -> None:
    session = Session().signed_on()
    session.say(OFFER[:cut])
    positions = session.helper.positions()
    assert len(positions[0]) == len(positions[1]) <= 20
    session.helper = XmppHelper(False)
    session.helper.resume(positions, (len(session.seen[C2S]), len(session.seen[S2C])))
    assert session.helper.established
    assert session.say(OFFER[cut:]) == (OFFER[cut:] if cut else LEAVES)
    assert session.say(OFFER) == LEAVES


@pytest.mark.parametrize("bad", [(b"", b"\0\0\1"), (b"\x09\0\1", b"\0\0\1"), (b"\0\xff\xff", b"\0\0\1")])
def test_positions_that_are_none_are_refused(bad: tuple[bytes, bytes]) -> None:
    with pytest.raises(ValueError, match=r"position|_Part"):
        XmppHelper(False).resume(bad, (0, 0))


def regained(*segments: tuple[Direction, bytes, float, bool]) -> tuple[XmppHelper, bool]:
    """A helper of an earlier flow that saw *segments*: direction, bytes, when, and whether without a gap."""
    helper, sure = XmppHelper(False), False
    helper.resume(None, (0, 0))
    at = [0, 0]
    for direction, data, now, joined in segments:
        sure = helper.resync(direction, data, at[direction], now, joined)
        at[direction] += len(data)
    return helper, sure


def test_reading_goes_on_behind_whole_stanzas_after_a_pause() -> None:
    helper, sure = regained(
        (C2S, OFFER[20:], 1.0, False),
        (S2C, b"lo</body></message>", 1.0, False),
        (C2S, b"<presence/>" + OFFER, 3.0, True),
        (S2C, MESSAGE, 3.1, True),
        (S2C, MESSAGE[:30], 3.2, True),
    )
    assert sure
    session = Session()
    session.helper = helper
    assert session.hear(MESSAGE[30:]) == MESSAGE[30:]
    assert session.say(OFFER) == LEAVES


def test_counts_of_stanzas_may_stand_beside_them() -> None:
    """XEP-0198: whoever can resume sends one with nearly every stanza, in the same segment."""
    asks, says = b"<r xmlns='urn:xmpp:sm:3'/>", b"<a xmlns='urn:xmpp:sm:3' h='5'/>"
    start = (C2S, b"x", 1.0, False), (S2C, b"x", 1.0, False)
    assert regained(*start, (S2C, MESSAGE + asks, 3.0, True), (C2S, says + OFFER + asks, 3.0, True))[1]
    for other in (b"<r/>", b"<a xmlns='urn:x' h='5'/>", asks.replace(b"<r", b"<x")):
        assert not regained(*start, (S2C, MESSAGE + other, 3.0, True), (C2S, OFFER, 3.0, True))[1]


@pytest.mark.parametrize(
    "segment",
    [
        (OFFER, 1.5, True),  # no pause
        (b" " + OFFER, 3.0, True),
        (OFFER[:-1], 3.0, True),
        (OFFER + b"</x>", 3.0, True),
        (OFFER + b"<x/>", 3.0, True),
        (b"<query/>", 3.0, True),
        (b"<x>" + OFFER + b"</x>", 3.0, True),
        (OFFER.replace(b"<iq ", b"<iq xmlns='urn:x' "), 3.0, True),
        (b"\n", 3.0, True),
    ],
)
def test_what_may_stand_within_a_stanza_is_no_boundary(segment: tuple[bytes, float, bool]) -> None:
    start = (C2S, b"x", 1.0, False), (S2C, b"x", 1.0, False), (S2C, MESSAGE, 3.0, True)
    assert regained(*start, (C2S, OFFER, 3.0, True))[1]
    assert not regained(*start, (C2S, *segment))[1]


def test_hole_and_what_cannot_be_take_certainty_away() -> None:
    start = (C2S, b"x", 1.0, False), (C2S, OFFER, 3.0, True), (S2C, b"x", 1.0, False)
    assert regained(*start, (S2C, MESSAGE, 3.0, True))[1]
    assert not regained(*start, (C2S, OFFER, 3.5, False), (S2C, MESSAGE, 4.0, True))[1]
    assert not regained(*start, (C2S, b"</x>", 3.5, True), (S2C, MESSAGE, 4.0, True))[1]


def test_connection_that_is_met_in_its_midst_is_read_from_whole_stanzas_on() -> None:
    session = Session(midstream=True)
    assert session.helper.positions() == (b"", b"")
    assert session.say(OFFER[10:]) == OFFER[10:]
    assert session.say(OFFER) == OFFER
    assert session.say(OFFER) == LEAVES
