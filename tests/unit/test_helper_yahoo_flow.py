"""Yahoo! Messenger's helper: which connections it reads, how long, what it keeps, and how reading goes on."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest

from nfreaim.core.address import Direction, End, Endpoint
from nfreaim.errors import Foreign, Malformed
from nfreaim.helpers.yahoo import YAHOO
from nfreaim.helpers.yahoo.pager import YahooHelper
from tests.unit.helper_session import C2S, S2C
from tests.unit.yahoo_session import INSIDE, OFFER, OFFERED, OUTSIDE, ScriptedNat, Session
from tests.yahoo.ymsg import (
    AUTH,
    AUTHRESP,
    INFO15,
    LIST,
    LIST15,
    LOGOFF,
    LOGON,
    MESSAGE,
    P2PFILEXFER,
    PING,
    SESSION,
    V16,
    VERIFY,
    offer,
    raw,
    relayed,
    sign_on,
    url,
    ymsg,
)

HELLO, CHALLENGE, ANSWER, WELCOME = sign_on()
TEXT = ymsg(MESSAGE, [(1, b"alice1"), (5, b"bob1"), (14, b"hello")])


# --- recognition --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [None, 1, 5, 19, 21])
def test_sign_on_in_any_segments(cut: int | None) -> None:
    session = Session()
    cuts = [cut] if cut else []
    for way, data in ((C2S, HELLO), (S2C, CHALLENGE), (C2S, ANSWER), (S2C, WELCOME)):
        assert session._feed(way, data, tuple(cuts)) == data
    assert session.nat.ready == 1
    assert session.say(OFFER) == OFFERED


@pytest.mark.parametrize("first", [AUTH, VERIFY, LOGON])
@pytest.mark.parametrize(
    "welcome", [raw(LIST, b""), raw(LIST15, b""), raw(LOGON, b""), raw(LOGON, b"", status=1, version=V16)]
)
def test_every_beginning_and_every_welcome(first: int, welcome: bytes) -> None:
    session = Session()
    session.say(raw(first, b""))
    session.say(ANSWER)
    session.hear(welcome)
    assert session.say(OFFER) == OFFERED


@pytest.mark.parametrize(
    "welcome",
    [
        raw(LOGON, b"", status=0xFFFFFFFF),
        raw(AUTHRESP, b"66\xc0\x8013\xc0\x80", status=0xFFFFFFFF),
        raw(MESSAGE, b""),
        CHALLENGE,
    ],
)
def test_what_is_no_welcome(welcome: bytes) -> None:
    session = Session()
    session.say(HELLO + ANSWER)
    session.hear(welcome)
    assert session.say(OFFER) == OFFER
    assert (session.helper.established, session.nat.ready, session.nat.expected) == (False, 0, [])


def test_no_prefix_of_a_session_opens_anything() -> None:
    parts = [(C2S, HELLO), (S2C, CHALLENGE), (C2S, ANSWER)]
    for count in range(len(parts) + 1):
        session = Session()
        for way, data in parts[:count]:
            session.feed(way, data)
        try:
            session.say(OFFER)
            session.hear(relayed(OFFERED))
        except Foreign:
            assert count == 0
        assert session.nat.expected == []


def test_welcome_before_the_clients_answer_is_none() -> None:
    session = Session()
    session.say(HELLO)
    session.hear(WELCOME)
    assert not session.helper.established


@pytest.mark.parametrize(
    "first",
    [
        b"GET / HTTP/1.1\r\n",
        b"POST / HTTP/1.1\r\n\r\n" + HELLO,
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        b"\0\x03\0\x64\x21\x12\xa4\x42",
        b"REGISTER sip:x SIP/2.0\r\n",
        b"USER alice\r\n",
        b"EHLO x\r\n",
        b"YMSX",
        b"ymsg",
        b"YHOO",
        raw(AUTH, b"", version=7),
        raw(AUTH, b"", version=17),
        raw(AUTH, b"", version=0),
        raw(AUTH, b"", version=0x0909),
        raw(MESSAGE, b""),
        raw(AUTHRESP, b""),
        OFFER,
        raw(PING, b"") + HELLO,
    ],
)
def test_client_that_begins_otherwise_is_foreign_however_it_is_cut(first: bytes) -> None:
    for cut in range(1, len(first)):
        with pytest.raises(Foreign):
            Session().say(first, cut)
    with pytest.raises(Foreign):
        Session().say(first)


@pytest.mark.parametrize("first", [b"G", b"\x16", b"YX", b"\0", b"YMSG\xff\xff"])
def test_first_bytes_are_enough_where_they_say_it_all(first: bytes) -> None:
    with pytest.raises(Foreign):
        Session().say(first)


@pytest.mark.parametrize("first", [b"HTTP/1.1 200 OK\r\n", b"\x16\x03\x03", b"220 ready\r\n", b"YMSx"])
def test_server_that_speaks_another_protocol_is_foreign(first: bytes) -> None:
    session = Session()
    session.say(HELLO)
    with pytest.raises(Foreign):
        session.hear(first)


def test_server_on_our_side_is_left_alone() -> None:
    with pytest.raises(Foreign):
        Session(ScriptedNat(server_inside=True)).say(HELLO)


def test_what_follows_a_packet_and_is_none_ends_the_reading_however_it_is_cut() -> None:
    talk = OFFER + b"MSG"
    for cut in range(len(talk)):
        session = Session().signed_on()
        with suppress(Malformed):  # where the rest came by itself
            session.say(talk, *([cut] if cut else []))
        assert len(session.nat.expected) == 1
        with pytest.raises(Malformed) as raised:
            session.say(OFFER)
        assert raised.type is Malformed
        assert len(session.nat.expected) == 1


def test_connection_that_is_met_in_its_midst_is_read_from_a_whole_packet_on() -> None:
    session = Session(midstream=True)
    assert session.say(OFFER[30:]) == OFFER[30:]
    assert session.say(OFFER) == OFFERED
    session = Session(midstream=True)
    for _ in range(64):
        session.say(b"x")
    with pytest.raises(Malformed):
        session.say(b"x")


def test_client_that_signs_off_gives_all_back_and_others_close_nothing() -> None:
    session = Session().signed_on()
    session.hear(ymsg(LOGOFF, [(7, b"bob1")]))
    assert session.nat.over == []
    session.say(raw(LOGOFF, b""))
    assert session.nat.over == ["signed off"]


# --- bounds and hostile packets -----------------------------------------------------------------------------


def test_long_packets_are_neither_kept_nor_waited_for() -> None:
    session = Session().signed_on()
    for service in (P2PFILEXFER, INFO15, MESSAGE):
        packet = raw(service, b"20\xc0\x80" + b"x" * 65_000 + b"\xc0\x80")
        for cut in range(0, len(packet), 1400):
            session.feed(C2S, packet[cut : cut + 1400])
            assert session.nat.buffered <= 20
    assert session.holds == []
    assert session.say(OFFER) == OFFERED


def test_half_read_packet_is_told_and_bounded() -> None:
    session = Session().signed_on()
    packet = raw(P2PFILEXFER, b"x" * 4096)
    session.say(packet[:-1])
    session.hear(packet[:-1])
    assert session.nat.buffered == 2 * (4096 + 20 - 1)


def test_lengths_that_lead_anywhere() -> None:
    """A length of zero, the largest, and one that swallows the packet behind it."""
    session = Session().signed_on()
    assert session.say(raw(P2PFILEXFER, b"") + OFFER) == raw(P2PFILEXFER, b"") + OFFERED
    swallowing = raw(MESSAGE, b"", length=len(OFFER)) + OFFER
    assert session.say(swallowing + OFFER) == swallowing + OFFERED
    session.say(raw(P2PFILEXFER, b"", length=0xFFFF))
    assert session.say(OFFER) == OFFER


def test_text_that_imitates_a_packet_is_none_in_whatever_segments() -> None:
    text = ymsg(MESSAGE, [(1, b"alice1")])[:-2]
    packet = raw(MESSAGE, text[20:] + b"\xc0\x8014\xc0\x80" + OFFER)
    for cut in range(1, len(packet)):
        session = Session().signed_on()
        assert session.say(packet, cut) == packet
        assert session.nat.expected == []


def test_most_pairs_of_the_longest_packet_cost_little() -> None:
    """None is searched twice: what is long in pairs is refused before it is taken apart."""
    data = b"20\xc0\x80\xc0\x80" * 682
    session = Session().signed_on()
    for _ in range(100):
        assert session.say(raw(P2PFILEXFER, data)) == raw(P2PFILEXFER, data)
    assert session.nat.counts["malformed_messages"] == 100


@pytest.mark.parametrize("way", [C2S, S2C])
def test_garbage_raises_nothing_but_malformed_and_is_bounded(way: int) -> None:
    generator = random.Random(7)
    pieces = [
        OFFER,
        OFFERED,
        TEXT,
        WELCOME,
        HELLO,
        b"YMSG",
        b"\xc0\x80",
        b"20\xc0\x80",
        b"\0" * 9,
        b"http://",
    ]
    for number in range(300):
        session = Session(ScriptedNat(pinholes={Endpoint(OUTSIDE, 5555): Endpoint(INSIDE, 5555)}))
        if number % 4:
            session.signed_on()
        try:
            for _ in range(20):
                data = b"".join(generator.choices(pieces, k=3))
                at = generator.randrange(len(data))
                data = data[:at] + generator.randbytes(generator.choice([0, 0, 1, 3])) + data[at:]
                session.feed(C2S if way == C2S else S2C, data[: generator.randint(1, len(data))])
                assert session.nat.buffered <= 2 * (4096 + 20)
        except Malformed:
            continue
        assert all(expectation.inside.address == INSIDE for expectation in session.nat.expected)


def test_offers_without_end_of_one_client_are_forgotten_by_the_helper() -> None:
    session = Session().signed_on()
    for port in range(2000, 2200):
        session.say(offer(url(INSIDE, port)))
    assert len(session.nat.expected) == 200
    assert session.nat.buffered == 0


# --- going on in another process ----------------------------------------------------------------------------


@pytest.mark.parametrize("cut", range(len(OFFER)))
def test_reading_goes_on_where_it_stood(cut: int) -> None:
    session = Session().signed_on()
    session.say(OFFER[:cut])
    positions = session.helper.positions()
    assert len(positions[0]) == len(positions[1]) <= 20
    session.helper = YahooHelper(False)
    session.helper.resume(positions, (len(session.seen[C2S]), len(session.seen[S2C])))
    assert session.helper.established
    session.say(OFFER[cut:])
    # While the length has not come whole, the rest tells all of the packet.
    assert session.rendered(C2S).endswith(OFFERED if cut < 10 else OFFER)
    assert session.say(OFFER) == OFFERED


@pytest.mark.parametrize(
    "bad",
    [
        (b"", b""),
        (b"\0" * 10, b"\0" * 11),
        (b"\0\0\0\0\x0b" + b"\0" * 6, b"\0" * 11),
        (b"\0\x02" + b"\0" * 9, b"\0" * 11),
        (b"\0\0\0\1\1" + b"\0" * 6, b"\0" * 11),
    ],
)
def test_positions_that_are_none_are_refused(bad: tuple[bytes, bytes]) -> None:
    with pytest.raises(ValueError, match="position"):
        YahooHelper(False).resume(bad, (0, 0))


def resumed() -> YahooHelper:
    helper = YahooHelper(False)
    helper.resume(None, (0, 0))
    return helper


def test_reading_goes_on_behind_a_pause_in_both_directions() -> None:
    helper = resumed()
    assert not helper.resync(C2S, TEXT, 0, 1.0, False)
    assert not helper.resync(S2C, TEXT, 0, 1.0, False)
    assert not helper.resync(C2S, TEXT, len(TEXT), 3.0, True)
    assert helper.resync(S2C, TEXT + TEXT[:9], len(TEXT), 3.0, True)
    session = Session()
    session.helper = helper
    assert session.say(OFFER) == OFFERED


@pytest.mark.parametrize(
    ("first", "second", "pause", "joined"),
    [
        (TEXT, TEXT, 0.5, True),  # no pause
        (TEXT, TEXT, 2.0, False),  # bytes were missed
        (TEXT[:-1], TEXT[-1:] + TEXT, 2.0, True),  # inside a packet
        (TEXT[5:], TEXT, 2.0, True),  # only then does a chain begin
        (TEXT, ymsg(MESSAGE, session=SESSION + 1), 2.0, True),  # another session
        (TEXT, b"hello", 2.0, True),
    ],
)
def test_reading_does_not_go_on(first: bytes, second: bytes, pause: float, joined: bool) -> None:
    helper = resumed()
    for way in (S2C, C2S):
        assert not helper.resync(way, first, 0, 1.0, False)
        assert not helper.resync(way, second, len(first), 1.0 + pause, joined)


# --- the record ---------------------------------------------------------------------------------------------


def test_record() -> None:
    assert (YAHOO.name, YAHOO.ports) == ("yahoo", (5050,))
    assert YAHOO.resizes == {End.CLIENT}
    assert set(YAHOO.services) == {"yahoo-file"}
    assert YAHOO.low_ports == {"web_hosts": ("yahoo-file", 80)}
    assert YAHOO.load() is YahooHelper


@pytest.mark.parametrize("way", [C2S, S2C])
@pytest.mark.parametrize(
    ("packet", "skipped"),
    [
        (TEXT, True),
        (raw(PING, b""), True),
        (OFFER, False),
        (raw(INFO15, b""), False),
        (raw(LOGOFF, b""), False),
        (TEXT[:-1], False),
        (TEXT + TEXT, False),
        (b"GET / HTTP/1.1\r\n\r\n", False),
        (b"", False),
    ],
)
def test_whole_packet_of_no_interest_is_skipped_and_then_read(
    packet: bytes, skipped: bool, way: Direction
) -> None:
    session = Session().signed_on()
    assert session.helper.skips(way, b"head" + packet, 4, session.nat) is skipped
    if skipped:
        session.seen[way] += packet
        session.nat.left[way] += len(packet)
    assert session.say(OFFER) == OFFERED


def test_nothing_is_skipped_before_sign_on_or_within_a_packet() -> None:
    session = Session()
    assert not session.helper.skips(C2S, HELLO, 0, session.nat)
    session = Session().signed_on()
    session.say(TEXT[:30])
    assert not session.helper.skips(C2S, TEXT, 0, session.nat)
    session.say(TEXT[30:] + TEXT[:10])
    assert not session.helper.skips(C2S, TEXT, 0, session.nat)
