"""XMPP's helper: what it must recognise first, where it ends, its bounds, and how it goes on elsewhere."""

from __future__ import annotations

import gc
import random
import tracemalloc

import pytest

from nfreaim.core import greeting
from nfreaim.core.address import Direction, End
from nfreaim.errors import Foreign, Malformed
from nfreaim.helpers.xmpp import XMPP
from nfreaim.helpers.xmpp.xmpp_helper import XmppHelper
from tests.unit.helper_session import C2S, S2C
from tests.unit.xmpp_session import INSIDE, OLD_SIGN_ON, RESUMED, SIGN_ON, Session
from tests.xmpp.texts import (
    ANSWER,
    ENDING,
    HEADER,
    LEAVES,
    MESSAGE,
    OFFER,
    TLS,
    jingle,
    query,
    relayed,
    streamhost,
)

Turns = list[tuple[Direction, bytes]]
each_way = pytest.mark.parametrize(
    "turns", [SIGN_ON, OLD_SIGN_ON, RESUMED], ids=["sasl", "before-2004", "resumed"]
)

# --- the beginning ------------------------------------------------------------------------------------------


@each_way
def test_connection_is_recognised_however_it_is_cut(turns: Turns) -> None:
    for size in (1, 2, 7, 50):
        session = Session()
        for direction, text in turns:
            assert not session.helper.established
            for at in range(0, len(text), size):
                session.feed(direction, text[at : at + size])
        assert session.helper.established
        assert session.nat.ready == 1
        assert session.say(OFFER) == LEAVES


@each_way
@pytest.mark.parametrize("offer", [OFFER, jingle()], ids=["query", "jingle"])
def test_nothing_is_opened_before_the_sign_on_is_complete(turns: Turns, offer: bytes) -> None:
    for count in range(1, len(turns)):
        session = Session()
        for direction, text in turns[:count]:
            session.feed(direction, text)
        assert session.say(offer) == offer
        session.hear(relayed(offer)) if count > 1 else None
        assert session.nat.expected == []
        assert not session.helper.established


@pytest.mark.parametrize("missing", range(len(SIGN_ON) - 1))
def test_no_turn_of_the_sign_on_can_be_left_out(missing: int) -> None:
    session = Session()
    try:
        for number, (direction, text) in enumerate(SIGN_ON):
            if number != missing:
                session.feed(direction, text)
    except Foreign:
        pass
    assert not session.helper.established


@pytest.mark.parametrize("missing", [0, 1, 4])
def test_no_turn_of_the_old_sign_on_can_be_left_out(missing: int) -> None:
    session = Session()
    try:
        for number, (direction, text) in enumerate(OLD_SIGN_ON):
            if number != missing:
                session.feed(direction, text)
    except Foreign:
        pass
    assert not session.helper.established


@pytest.mark.parametrize(
    "first",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03\x01\x02\0\x01",
        b"\0",
        b"*\x01",
        b"SSH-2.0-OpenSSH\r\n",
        b"NICK alice\r\n",
        b"EHLO x\r\n",
        b"REGISTER sip:x SIP/2.0\r\n",
        b"USER x\r\n",
        b"\r\n" + HEADER,
        b" " + HEADER,
        b"\xef\xbb\xbf" + HEADER,
        b"<html>",
        b"<policy-file-request/>\0",
        b"<!DOCTYPE html>",
        b"<stream:streams>",
        b"<stream>",
        b"<?xml version='1.0'?><html>",
        b"<?xml version='1.0'?><?xml version='1.0'?>",
        b"<?php ?>",
        b"<?xml-stylesheet href='x'?>",
        b"<?xml version='1.0'?>x",
        HEADER.replace(b"jabber:client", b"jabber:server"),
        HEADER.replace(b"jabber:client", b"jabber:component:accept"),
        HEADER.replace(b"etherx", b"etherx2"),
        HEADER.replace(b">", b"/>"),
        HEADER + ENDING,
        HEADER + HEADER,
        HEADER + b"text",
        HEADER + b"<iq></message>",
        HEADER + b"<iq a='1' a='2'/>",
    ],
)
def test_client_that_begins_otherwise_is_foreign_however_it_is_cut(first: bytes) -> None:
    for size in range(1, len(first) + 1):
        session = Session()
        with pytest.raises(Foreign):
            session.say(first, *range(size, len(first), size))


@pytest.mark.parametrize(
    "first", [b"\x16\x03\x03", b"HTTP/1.1 200 OK\r\n", b"220 x\r\n", b"<html>", b"\n" + ANSWER]
)
def test_server_that_begins_otherwise_is_foreign(first: bytes) -> None:
    session = Session()
    session.say(HEADER)
    with pytest.raises(Foreign):
        session.hear(first)


@pytest.mark.parametrize("first", [b"\x16", b"G", b"\0", b"<h", b"<stream:s2"])
def test_first_bytes_are_enough_where_they_say_it_all(first: bytes) -> None:
    with pytest.raises(Foreign):
        Session().say(first)


def test_welcome_to_who_did_not_ask_is_none() -> None:
    session = Session()
    for direction, text in SIGN_ON[:6]:
        session.feed(direction, text)
    session.hear(SIGN_ON[7][1])
    session.say(SIGN_ON[6][1])
    session.hear(SIGN_ON[7][1].replace(b"b1", b"b2"))
    session.hear(SIGN_ON[7][1].replace(b"'result'", b"'error'"))
    session.hear(SIGN_ON[7][1].replace(b"xmpp-bind", b"xmpp-bond"))
    assert not session.helper.established
    session.hear(SIGN_ON[7][1])
    assert session.helper.established


@pytest.mark.parametrize(
    "turns",
    [
        [*RESUMED[:6], RESUMED[7]],
        [*RESUMED[:7], (C2S, RESUMED[7][1])],
        [*RESUMED[:7], (S2C, RESUMED[7][1].replace(b"x1", b"x2"))],
        [*RESUMED[:7], (S2C, RESUMED[7][1].replace(b"sm:3", b"sm:4"))],
        [*RESUMED[:7], (S2C, b"<failed xmlns='urn:xmpp:sm:3' previd='x1'/>")],
        [*RESUMED[:2], *RESUMED[6:]],
    ],
)
def test_session_that_is_not_resumed_is_not_recognised(turns: Turns) -> None:
    session = Session()
    for direction, text in turns:
        session.feed(direction, text)
    assert not session.helper.established
    session.say(OFFER)
    assert session.nat.expected == []


# --- the end ------------------------------------------------------------------------------------------------

PROCEED, COMPRESSED = b"<proceed %b/>" % TLS, b"<compressed xmlns='http://jabber.org/protocol/compress'/>"


@pytest.mark.parametrize("count", [2, 6, 8])
@pytest.mark.parametrize("ends", [PROCEED, b'<proceed\tx="" %b></proceed>' % TLS, COMPRESSED])
def test_what_cannot_be_read_ends_the_reading_for_good(count: int, ends: bytes) -> None:
    for cut in range(1, len(ends)):
        session = Session()
        for direction, text in SIGN_ON[:count]:
            session.feed(direction, text)
        session.say(b"<starttls %b/>" % TLS)
        with pytest.raises(Foreign):
            session.hear(ends, cut)
    said = MESSAGE.replace(b"hello", ends.replace(b"<", b"&lt;").replace(b"'", b"&apos;"))
    session = Session().signed_on()
    assert session.hear(said) == said
    session.hear(MESSAGE.replace(b"hello", ends))  # a stranger's text that has it as an element
    session.say(ends)
    assert session.say(OFFER) == LEAVES


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("binary", [b"\x16\x03\x01", b"\0\0\0\x20", b"x\x9c\x01", b"\x17"])
def test_binary_after_a_stanza_or_the_sign_on_is_foreign(direction: Direction, binary: bytes) -> None:
    for count in (4, 8):
        session = Session()
        for way, text in SIGN_ON[:count]:
            session.feed(way, text)
        with pytest.raises(Foreign):
            session.feed(direction, binary)


@pytest.mark.parametrize(
    "wrong",
    [
        b"<iq></message>",
        b"<iq a='<'>",
        b"<!-- x -->",
        b"<iq type='set' type='set'/>",
        HEADER,
        b"<?xml version='1.0'?>",
        b"<a>" * 300,
    ],
)
def test_session_that_cannot_be_followed_is_malformed(wrong: bytes) -> None:
    session = Session().signed_on()
    with pytest.raises(Malformed) as raised:
        session.say(wrong)
    assert not isinstance(raised.value, Foreign)


@pytest.mark.parametrize("wrong", [b"\x16\x03", b"<a></b>"])
def test_what_was_offered_before_the_end_is_announced_however_it_is_cut(wrong: bytes) -> None:
    session = Session().signed_on()
    assert session.say(OFFER + wrong + OFFER) == LEAVES + wrong + OFFER
    with pytest.raises(Malformed):
        session.say(b"<presence/>")


@pytest.mark.parametrize("direction", Direction)
def test_who_signs_off_gives_all_back(direction: Direction) -> None:
    session = Session().signed_on()
    session.say(OFFER)
    session.feed(direction, b"<presence type='unavailable'/>" + ENDING + b"\n")
    assert session.nat.over == ["signed off"]


def test_others_that_sign_off_close_nothing() -> None:
    session = Session().signed_on()
    session.hear(MESSAGE.replace(b"hello", b"&lt;/stream:stream&gt;"))
    session.hear(b"<message><x xmlns:stream='y'><stream:x></stream:x></x></message>")
    assert session.nat.over == []


# --- bounds -------------------------------------------------------------------------------------------------


def test_tag_without_an_end_is_not_kept() -> None:
    session = Session().signed_on()
    for direction in Direction:
        for _ in range(100):
            session.feed(direction, b"<iq type='" + b"x" * 1000 if _ == 0 else b"x" * 1000)
        assert session.nat.buffered <= 8192 * (direction + 1)
    session.feed(C2S, b"'/>")
    session.feed(S2C, b"'/>")
    assert session.nat.buffered == 0
    assert session.say(OFFER) == LEAVES


def test_what_the_worst_session_keeps_is_little_and_counted() -> None:
    """Many agreements, and in both directions a message with all endpoints, then a tag that does not end."""
    sizes = []
    for filled in (False, True):
        tracemalloc.start()
        try:
            session = Session().signed_on()
            begun = query(*[streamhost(port=2000 + number) for number in range(20)])[: -len(b"</query></iq>")]
            for number in range(100 * filled):
                session.say(OFFER.replace(b"s1", b"s%d" % number))
            for direction in Direction if filled else ():
                session.feed(direction, begun + b"<x y='" + b"z" * 8150)
            buffered, helper = session.nat.buffered, session.helper
            del session
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])
            assert helper.established
        finally:
            tracemalloc.stop()
    assert 2 * 8150 < buffered < 2 * (8192 + 8 * 512)
    assert sizes[1] < 40 * 1024, sizes  # of which most is counted, so the engine limits it for all flows
    assert sizes[0] < 4096, sizes


def test_client_that_offers_without_end_is_remembered_in_part() -> None:
    session = Session().signed_on()
    for number in range(100):
        session.say(OFFER.replace(b"q1", b"i%d" % number).replace(b"s1", b"s%d" % number))
    for number in range(100):
        session.hear(b"<iq from='carol@example.test/pc' type='error' id='i%d'/>" % number)
    assert len(session.nat.withdrawn) == 16


def test_long_values_are_compared_and_not_kept() -> None:
    long = b"s" * 3000
    session = Session().signed_on()
    assert session.say(OFFER.replace(b"s1", long)) == LEAVES.replace(b"s1", long)
    assert len(session.nat.expected[0].agreement) == 8


@pytest.mark.parametrize(
    "piece",
    [
        b"<a/>",
        b"<a " + b"b='c' " * 1300 + b"/>",
        b"<a b='" + b"c" * 8000 + b"'/>",
        b"<a " + b" " * 8000,
        b"<a b",
        b"<iq type='set'><query xmlns='http://jabber.org/protocol/bytestreams'>"
        + b"<streamhost host='10.0.0.6' port='2000'/>" * 180
        + b"</query></iq>",
    ],
)
def test_hostile_tags_byte_by_byte_come_to_their_end(piece: bytes) -> None:
    """With expressions that try everything, or a new look at each byte, this would take minutes."""
    session = Session().signed_on()
    session.say(piece, *range(1, len(piece)))
    assert session.nat.expected == []


def test_garbage_raises_nothing_but_malformed_and_is_bounded() -> None:
    generator = random.Random(7)
    pieces = [
        OFFER,
        jingle(),
        relayed(OFFER),
        MESSAGE,
        b"<",
        b">",
        b"'",
        b"<iq ",
        b"</iq>",
        b" ",
        b"/",
        b"\xff",
    ]
    for _ in range(200):
        session = Session().signed_on()
        try:
            for _ in range(10):
                data = b"".join(generator.choices(pieces, k=3))
                at = generator.randrange(len(data))
                data = data[:at] + generator.randbytes(generator.choice([0, 0, 0, 2])) + data[at:]
                session.feed(generator.choice([C2S, S2C]), data)
        except Malformed:
            pass
        assert all(expectation.inside.address == INSIDE for expectation in session.nat.expected)


# --- the record ---------------------------------------------------------------------------------------------


def test_record() -> None:
    assert (XMPP.name, XMPP.ports) == ("xmpp", (5222,))
    assert XMPP.resizes == {End.CLIENT, End.SERVER}
    assert XMPP.load() is XmppHelper
    assert set(XMPP.services) == {"xmpp-file"}


@pytest.mark.parametrize("first", ["050100", "05020002", "05020200", "0503010200", "05020001", "0503000102"])
def test_peer_that_begins_as_socks5_fits_in_every_cut(first: str) -> None:
    read = bytes.fromhex(first)
    greetings = XMPP.services["xmpp-file"].greetings
    assert [greeting.match(read[:end], greetings) for end in range(len(read))] == [None] * len(read)
    assert greeting.match(read, greetings) is True
    assert greeting.match(read + b"\x05", greetings) is True


@pytest.mark.parametrize(
    "first",
    ["04", "0500", "0502010101", "05010200", "050102", "05020102", "0504", "160301", "474554", "05ff"],
)
def test_peer_that_begins_otherwise_does_not(first: str) -> None:
    read = bytes.fromhex(first)
    assert greeting.match(read + b"\x03\x03\x03", XMPP.services["xmpp-file"].greetings) is False


def test_flow_whose_lengths_may_change_skips_nothing() -> None:
    session = Session().signed_on()
    assert not session.helper.skips(C2S, b"<presence/>", 0, session.nat)
