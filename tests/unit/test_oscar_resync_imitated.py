"""Sessions that outlive the daemon: text that imitates frames is never taken for them."""

from __future__ import annotations

from collections.abc import Iterator

from nfreaim.helpers.oscar.session import OscarHelper
from tests.oscar.flap import FLAP_SNAC, flap, numbered
from tests.oscar.signon import KEEPALIVE
from tests.tcp.packets import packed
from tests.unit.fakes import CLIENT
from tests.unit.oscar_fixtures import Router
from tests.unit.oscar_wires import PROPOSAL, TEXT, Numbered
from tests.unit.restarts import opened, pause, restarted, unread


def imitation(number: int, count: int = 1, own: bytes = packed(CLIENT.address)) -> bytes:
    """A text that is a chain of proposals, with the numbers from *number* on."""
    assert own in PROPOSAL
    return b"".join(numbered(PROPOSAL, number + i) for i in range(count))


def message(text: bytes) -> bytes:
    return flap(FLAP_SNAC, 0, TEXT[6:24] + b"\0\1\4bob1" + text)


HEAD = len(message(b""))


def pieces(wire: Numbered, *texts: bytes) -> Iterator[bytes]:
    """One message of the client with these texts in it, each in a segment of its own; the next is sent when
    it is asked for. What is in a segment is known to whoever wrote the text."""
    whole = numbered(message(b"".join(texts)), wire.due[0])
    wire.due[0] += 1
    at = 0
    for size in (HEAD, *map(len, texts)):
        yield whole[at : at + size]
        at += size


def listening(wire: Numbered) -> Numbered:
    """A daemon that came back after a crash, and knows the server's direction again."""
    wire = restarted(wire, lost=True)
    unread(wire, 0, TEXT)
    unread(wire, 1, KEEPALIVE)
    for _ in range(2):
        wire.say(1, KEEPALIVE)
        pause(wire)
    wire.say(1, KEEPALIVE)
    return wire


def test_text_whose_segments_are_chains_of_frames_is_covered_by_its_message() -> None:
    wire = listening(Numbered().online())
    for _ in range(3):
        for piece in pieces(wire, *[imitation(0x4000, 3)] * 3):
            wire.send(0, piece)
        pause(wire)
    assert wire.read, "three messages that begin behind a pause are a chain"
    assert not wire.router.firewall.changes
    assert wire.c2s.endswith(bytes(wire.sent[0][-100:]))


def test_text_whose_message_began_before_the_restart_is_dropped_behind_it() -> None:
    for number in range(0x1234, 0x1240):  # guesses around the true ones
        wire = listening(Numbered().online())
        parts = pieces(wire, *[imitation(number + 3 * i, 3) for i in range(4)])
        before, wire.router = wire.router, Router(helper=OscarHelper)
        wire.send(0, next(parts))
        wire.send(0, next(parts))
        wire.router = before
        for piece in parts:
            wire.send(0, piece)
            assert not wire.router.firewall.changes
        pause(wire)
        wire.say(0, KEEPALIVE)
        # Whichever chain it was that the true frame continued: from here on it is the true one.
        assert not wire.router.firewall.changes
        wire.say(0, TEXT)
        pause(wire)
        wire.say(0, KEEPALIVE)
        assert opened(wire), number
        assert len(wire.router.firewall.pinholes) == 1


def test_text_that_swallows_the_next_message_s_header_is_dropped_at_the_pause() -> None:
    wire = listening(Numbered().online())
    for _ in range(5):
        # The last imitated frame says that it is longer than the message: it reaches into the next one.
        number = wire.due[0] & 0xFFFF
        long = imitation(number, 2) + flap(FLAP_SNAC, 0, bytes(HEAD + 40))[:46]
        parts = pieces(wire, long, long)
        before, wire.router = wire.router, Router(helper=OscarHelper)
        wire.send(0, next(parts))
        wire.router = before
        for piece in parts:
            wire.send(0, piece)
        pause(wire)
        assert not wire.router.firewall.changes
        assert not wire.stored.reading.reads


def test_message_halted_in_its_midst_does_not_begin_a_frame() -> None:
    """A receiver that keeps its window shut: the chain, seen from the message's beginning, is given up."""
    wire = listening(Numbered().online())
    wire.say(0, KEEPALIVE)
    parts = pieces(wire, imitation(wire.due[0] + 1, 2), imitation(wire.due[0] + 3, 2))
    for piece in parts:
        wire.send(0, piece)
        pause(wire)
    assert not wire.router.firewall.changes
