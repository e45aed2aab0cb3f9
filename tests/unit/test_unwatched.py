"""Bytes that passed unseen while rules of ours were missing: where reading goes on, without a restart."""

from __future__ import annotations

import pytest

from nfreaim.core.address import Endpoint
from nfreaim.core.flow import State
from nfreaim.core.tcp.segment import ACK, FIN, SYN
from tests.script_helper import HELLO, TEXT, offer
from tests.unit.fakes import CLIENT, OUTSIDE, Wire
from tests.unit.offers import RECEIVED
from tests.unit.restarts import opened, pause, unread
from tests.unit.wires import HomeWire, ResizedWire

SHORT = b"text\n"
DOTTED = offer(b"3333333", at=Endpoint("10.0.0.5", 6000), dotted=True)
LONGER = offer(b"3333333", at=Endpoint(OUTSIDE, 6000), dotted=True)
KINDS = {"same length": Wire, "client inside": ResizedWire, "server inside": HomeWire}


def begun(kind: type[Wire]) -> Wire:
    return kind().begun() if issubclass(kind, ResizedWire) else kind().sign_on()


def state(wire: Wire) -> State:
    return wire.stored.reading.state


def again(wire: Wire) -> None:
    """The rules are back."""
    pause(wire, 0.1)
    wire.router.kernel.unwatched = wire.router.now
    pause(wire, 0.1)


def says(wire: Wire, way: int, *messages: bytes) -> None:
    """Each message leaves at once, as it is or edited: TCP does not have to repeat it."""
    dropped = wire.router.engine.counters.gap_drops
    wire.say(way, *messages)
    assert wire.router.engine.counters.gap_drops == dropped


def talk(wire: Wire, first: int) -> None:
    """Both ends speak several times, each time after a pause."""
    for _ in range(3):
        pause(wire)
        says(wire, first, SHORT)
        says(wire, 1 - first, SHORT)


def repeats(wire: Wire, way: int, message: bytes) -> None:
    """A message behind unseen bytes, which its sender repeats as TCP does; it leaves the third time."""
    at = len(wire.sent[way])
    for seconds in (0.2, 0.4):
        assert not wire.inject(way, at, message)[wire.router.last_token].accept
        pause(wire, seconds)
    says(wire, way, message)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("way", [0, 1], ids=["client", "server"])
def test_what_follows_unseen_bytes_passes_when_it_is_repeated_and_is_read_from_a_boundary_on(
    kind: type[Wire], way: int
) -> None:
    wire = begun(kind)
    unread(wire, way, TEXT)
    again(wire)
    repeats(wire, way, SHORT)
    assert state(wire) is State.RESYNCING
    talk(wire, 1 - way)
    assert state(wire) is State.ESTABLISHED
    assert wire.told(DOTTED) == LONGER if isinstance(wire, ResizedWire) else opened(wire)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_an_acknowledgement_of_unseen_bytes_shows_them_too(kind: type[Wire]) -> None:
    wire = begun(kind)
    unread(wire, 0, TEXT)
    again(wire)
    says(wire, 1, SHORT)
    assert state(wire) is State.RESYNCING


def test_a_flow_of_which_nothing_was_missed_is_read_on() -> None:
    wire = Wire().sign_on()
    again(wire)
    says(wire, 1, RECEIVED)
    assert opened(wire)


def test_what_began_after_the_rules_were_back_waits_for_what_is_missing() -> None:
    wire = Wire()
    again(wire)
    pause(wire, 11.0)
    wire.sign_on()
    unread(wire, 0, TEXT)
    wire.say(0, SHORT)
    assert wire.router.engine.counters.gap_drops == 1
    assert state(wire) is State.ESTABLISHED


def test_a_fin_behind_unseen_bytes_passes_when_it_is_repeated() -> None:
    """Nothing else may come that its sender could repeat."""
    wire = ResizedWire().begun()
    unread(wire, 0, TEXT)
    again(wire)
    for _ in range(3):
        wire.inject(0, len(wire.sent[0]), flags=FIN | ACK)
    assert wire.router.engine.counters.gap_drops == 2


def test_a_connection_whose_handshake_alone_was_seen_before_is_in_doubt() -> None:
    wire = ResizedWire()
    wire.inject(0, -1, flags=SYN)
    wire.inject(1, -1, flags=SYN | ACK)
    again(wire)
    wire.inject(0, 0, flags=ACK)
    wire.server(HELLO, [1, 2, 4])
    wire.client(HELLO)
    assert wire.told(DOTTED) == DOTTED
    wire.say(1, SHORT)
    assert wire.told(DOTTED) == LONGER


def test_a_connection_that_had_not_signed_on_passes_unread() -> None:
    wire = Wire().handshake()
    wire.server(HELLO, [1, 2, 4])
    unread(wire, 0, HELLO)
    again(wire)
    repeats(wire, 0, TEXT)
    assert state(wire) is State.BYPASSED


def test_a_loss_after_it_costs_no_reading() -> None:
    wire = Wire().sign_on()
    again(wire)
    at = len(wire.sent[0])
    wire.sent[0] += TEXT + SHORT
    wire.inject(0, at + len(TEXT), SHORT)
    wire.inject(0, at + len(TEXT), SHORT)  # a probe of the tail
    assert wire.router.engine.counters.gap_drops == 2
    wire.inject(0, at, TEXT)
    wire.inject(0, at + len(TEXT), SHORT)
    assert opened(wire)


def test_minutes_later_a_gap_is_an_ordinary_one() -> None:
    wire = Wire().sign_on()
    again(wire)
    pause(wire, 600.0)
    unread(wire, 0, TEXT)
    wire.say(0, SHORT)
    assert wire.router.engine.counters.gap_drops == 1


def test_a_second_time_without_rules_counts_as_the_first() -> None:
    wire = Wire().sign_on()
    for _ in range(2):
        unread(wire, 0, TEXT)
        again(wire)
        repeats(wire, 0, SHORT)
        assert state(wire) is State.RESYNCING
        talk(wire, 1)
        assert state(wire) is State.ESTABLISHED
        pause(wire, 300.0)
    assert opened(wire)


@pytest.mark.parametrize("kind", [ResizedWire, HomeWire])
def test_a_repetition_of_an_offer_that_passed_unseen_is_not_edited(kind: type[ResizedWire]) -> None:
    """Its receiver has the bytes as they were, and would acknowledge in their count what counts as edited."""
    wire = kind().begun()
    inside = int(wire.inside)
    at = len(wire.sent[inside])
    unread(wire, inside, DOTTED)  # the acknowledgement is lost
    again(wire)
    wire.inject(inside, at, DOTTED)
    assert not wire.stored.skewed
    assert wire.router.engine.counters.refused_edits == 1


@pytest.mark.parametrize("kind", [ResizedWire, HomeWire])
@pytest.mark.parametrize("quiet", [0.2, 11.0])
def test_the_first_words_after_it_are_edited_if_they_are_no_repetition(
    kind: type[ResizedWire], quiet: float
) -> None:
    other = kind().begun()
    again(other)
    pause(other, quiet)
    assert (other.told(DOTTED) == LONGER) is (quiet > 10.0), "the first word after it, if it was not repeated"
    for way in (0, 1):
        other.say(way, SHORT)
    assert other.told(offer(b"4444444", at=Endpoint("10.0.0.5", 6001), dotted=True)) == offer(
        b"4444444", at=Endpoint(OUTSIDE, 6001), dotted=True
    )


@pytest.mark.parametrize("kind", [ResizedWire, HomeWire])
def test_an_offer_that_was_lost_is_not_edited_in_front_of_what_passed_unseen(kind: type[ResizedWire]) -> None:
    """Its receiver has what follows, and an inserted byte would take the place of the first of that."""
    wire = kind().begun()
    inside = int(wire.inside)
    at = len(wire.sent[inside])
    wire.sent[inside] += DOTTED
    unread(wire, inside, TEXT)
    again(wire)
    wire.say(1 - inside, SHORT)  # acknowledges neither, but stands in its place
    wire.inject(inside, at, DOTTED)
    assert not wire.stored.skewed
    assert wire.told(TEXT) == TEXT
    assert not wire.stored.skewed


def test_packets_of_a_skewed_flow_had_to_wait_so_its_gap_is_waited_for() -> None:
    wire = ResizedWire().begun()
    wire.say(0, DOTTED)
    assert wire.stored.skewed
    again(wire)
    wire.lenient = True
    unread(wire, 0, TEXT)
    wire.say(0, SHORT)
    assert wire.router.engine.counters.gap_drops == 1


def test_another_machine_cannot_show_that_bytes_were_missed() -> None:
    wire = Wire().sign_on()
    again(wire)
    senders = wire.router.kernel.senders
    senders.at, senders.frame = {CLIENT.address: b"\2\0\0\0\0\1"}, b"\2\0\0\0\0\2"
    for _ in range(3):
        wire.inject(0, len(wire.sent[0]) + 100, SHORT)
    assert wire.read
    senders.frame = senders.at[CLIENT.address]
    wire.inject(0, len(wire.sent[0]) + 100, SHORT)
    assert state(wire) is State.RESYNCING
