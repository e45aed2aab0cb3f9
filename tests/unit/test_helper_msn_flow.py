"""The MSN helper's connection: what counts as one, where commands begin, what it keeps, a restart."""

from __future__ import annotations

import pytest

from nfreaim.core.address import Endpoint
from nfreaim.errors import Foreign, Malformed
from nfreaim.helpers.msn.connection import MsnHelper
from tests.unit.helper_session import C2S, S2C
from tests.unit.msn_session import (
    INSIDE,
    NS_CLIENT,
    NS_SERVER,
    SB_CALLED,
    SB_CALLER,
    SERVER,
    MsnNat,
    Session,
    accept,
    chat,
    heard,
    listening,
    msg,
    p2p,
)

OFFER = msg(accept())

# --- recognition --------------------------------------------------------------------------------------------


def opens(session: Session) -> bool:
    """Whether an announcement opens anything."""
    try:
        session.say(OFFER)
    except (Foreign, Malformed):
        return False
    return bool(session.nat.expected)


@pytest.mark.parametrize(("said", "answer"), [SB_CALLER, SB_CALLED])
def test_nothing_opens_before_both_ends_have_signed_on(said: bytes, answer: bytes) -> None:
    for size in range(len(said)):
        session = Session()
        session.say(said[:size])
        assert not opens(session)
    for size in range(len(answer)):
        session = Session()
        session.say(said)
        session.hear(answer[:size])
        assert not opens(session), answer[:size]
    session = Session()
    session.say(said)
    session.hear(answer)
    assert opens(session)
    assert session.nat.ready == 1
    assert session.nat.sessions == 0


def test_a_session_is_one() -> None:
    session = Session().on_ns()
    assert (session.nat.ready, session.nat.sessions) == (1, 1)


FIRST = {
    "tls": b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
    "http": b"GET / HTTP/1.1\r\n",
    "gateway": b"POST /gateway/gateway.dll?Action=open HTTP/1.1\r\n",
    "stun": b"\0\x01\0\x08\x21\x12\xa4\x42",
    "sip": b"REGISTER sip:x SIP/2.0\r\n",
    "ftp": b"USER alice\r\n",
    "smtp": b"EHLO x\r\n",
    "irc": b"NICK alice\r\n",
    "a peer of a file": b"VER MSNFTP\r\n",
    "a peer of a direct connection": b"\4\0\0\0foo\0\x30\0\0\0",
    "older sign-on": b"INF 1\r\n",
    "leaves": b"OUT\r\n",
    "asks": b"PNG\r\n",
    "no dialect": b"VER 1 CVR0\r\n",
    "no number": b"VER x MSNP8\r\n",
    "method that is VER": b"VER /1 MSNP8\r\n",
    "no account": b"USR 1 alice token\r\n",
    "more words": b"ANS 1 a@b token 17 18\r\n",
    "bare LF": b"VER 1 MSNP18\n",
    "another case": b"ver 1 MSNP18\r\n",
}


@pytest.mark.parametrize("first", FIRST.values(), ids=FIRST)
def test_other_beginnings_are_foreign(first: bytes) -> None:
    for size in (1, 3, len(first)):
        session = Session()
        with pytest.raises((Foreign, Malformed)):
            session.say(first, *range(size, len(first), size))
        assert not session.helper.established


@pytest.mark.parametrize(
    ("said", "answers"),
    [
        (NS_CLIENT[0], b"VER 2 MSNP18\r\n"),
        (NS_CLIENT[0], b"VER 1 0\r\n"),
        (NS_CLIENT[0], b"VER 1 MSNP15\r\n"),  # nobody offered it
        (NS_CLIENT[0], b"USR 1 OK\r\n"),
        (NS_CLIENT[0], b"HTTP/1.1 400 Bad Request\r\n"),
        (b"VER 1 MSNP21 MSNP19\r\n", b"VER 1 MSNP21\r\n"),
        (SB_CALLER[0], b"USR 2 OK a@b a\r\n"),
        (SB_CALLER[0], b"USR 1 NO\r\n"),
        (SB_CALLER[0], b"911 1\r\n"),
        (SB_CALLED[0], b"ANS 1 KO\r\n"),
        (b"", NS_SERVER[0]),  # the server speaks first
    ],
)
def test_other_answers_are_foreign(said: bytes, answers: bytes) -> None:
    session = Session()
    if said:
        session.say(said)
    with pytest.raises(Foreign):
        session.hear(answers)


def test_refused_sign_on_is_over() -> None:
    session = Session()
    session.say(NS_CLIENT[0])
    session.hear(NS_SERVER[0])
    with pytest.raises(Foreign):
        session.hear(b"911 4\r\n")


# --- where commands begin -----------------------------------------------------------------------------------

NS_READ_ON = [
    (C2S, b"SYN 5 0 0\r\nCHG 6 NLN 0\r\nPNG\r\nADL 7 3\r\n<x>UUX 8 2\r\nhi"),
    (C2S, b"QRY 9 PROD0119GSDJW 32\r\n" + b"a" * 32),
    (C2S, b"SDC 9 a@b 0x0409 MSMSGS MSMSGS X X n 4\r\nXFR "),
    (C2S, b"NEW 9 something\r\nXYZ\r\n"),
    (S2C, b"LST N=a@b F=b C=1 13 0\r\nNLN NLN a@b b 1342558256 0\r\nILN 5 NLN a@b b 0\r\nFLN a@b\r\n"),
    (S2C, b"ADG 9 12 group 3 0\r\nREG 9 1 2 x 0\r\nCHL 0 15570131571988941333\r\nQNG 60\r\nSBS 0 null\r\n"),
    (S2C, b"UBX a@b 0\r\nUBX a@b 1 3\r\nRNGUBN a@b 1 3\r\nXFRIPG 5\r\n12345NOT 2\r\nxx"),
    (S2C, b"UBM a@b 1 c@d 1 3 4\r\nMSG FQY 10 4\r\n1234FQY 0 2\r\nxyPUT 9 OK 0\r\nPUT 3 OK\r\n"),
    (S2C, b"241 9 3\r\nabc540 3\r\n209 9\r\nADL 9 OK\r\nRML 3 OK\r\nUUN 3 OK\r\nUUX 3 0\r\nNEW 3 abc\r\n"),
]


@pytest.mark.parametrize(("direction", "text"), NS_READ_ON)
def test_notification_server_is_read_on(direction: int, text: bytes) -> None:
    for cuts in ((), range(1, len(text))):
        session = Session().on_ns()
        (session.hear if direction == S2C else session.say)(text, *cuts)
        session.hear(b"RNG 17 203.0.113.9:1864 CKI t a@b b\r\n", 3, 20)
        assert session.nat.watched == [Endpoint(SERVER, 1864)]
        session.say(b"XFR 77 SB\r\n", 4)
        session.hear(b"XFR 77 SB 203.0.113.9:1865 CKI t\r\n")
        assert session.nat.watched[-1] == Endpoint(SERVER, 1865)


@pytest.mark.parametrize(
    ("direction", "text"),
    [
        (S2C, b"NEW 3 5\r\n"),
        (S2C, b"HELLO 3\r\n"),
        (S2C, b"\r\n"),
        (S2C, b"QNG 60\n"),
        (S2C, b"777 3 12\r\n"),
        (S2C, b"UBX a@b -1\r\n"),
        (S2C, b"UBX a@b 999999999\r\n"),
        (S2C, b"UBX a@b\r\n"),
        (C2S, b"ADL 7\r\n"),
        (C2S, b"UUX 7 x\r\n"),
        (C2S, b"NEW 7 5\r\n"),
        (C2S, b"GET / HTTP/1.1\r\nHost: x\r\n"),
        (S2C, b"x" * 9000),
    ],
)
def test_what_cannot_be_read_ends_the_reading(direction: int, text: bytes) -> None:
    session = Session().on_ns()
    with pytest.raises(Malformed) as raised:
        (session.hear if direction == S2C else session.say)(text)
    assert not isinstance(raised.value, Foreign), "it was one"


@pytest.mark.parametrize(
    ("direction", "text"),
    [
        (C2S, b"XFR 5 SB\r\n"),
        (C2S, b"MSG 5 N\r\n"),
        (C2S, b"MSG 5 N x\r\n"),
        (C2S, b"MSG 5 N 1 2\r\n"),
        (S2C, b"NOT 5\r\n"),
        (S2C, b"QNG 60\r\n"),
        (S2C, b"241 9 25\r\n"),
        (S2C, b"RNG 17 1.2.3.4:1864 CKI t a@b b\r\n"),
    ],
)
def test_a_switchboard_s_commands_are_a_closed_set(direction: int, text: bytes) -> None:
    session = Session().on_sb()
    with pytest.raises(Malformed):
        (session.hear if direction == S2C else session.say)(text)
    assert session.nat.watched == []


def test_redirect_that_nobody_asked_for_is_not_followed() -> None:
    session = Session().on_ns()
    session.hear(b"XFR 12 SB 203.0.113.9:1865 CKI t\r\n")
    session.hear(b"UBX a@b 43\r\nRNG 17 203.0.113.9:1866 CKI token a@b b\r\nxx")
    assert session.nat.watched == []
    assert session.nat.counts["redirects_refused"] == 1


def test_first_server_sends_its_client_on_before_sign_on() -> None:
    session = Session()
    for said, answer in zip(NS_CLIENT[:2], NS_SERVER[:2], strict=True):
        session.say(said)
        session.hear(answer)
    session.say(b"USR 3 SSO I alice1@lab.test\r\n")
    session.hear(b"XFR 3 NS 203.0.113.9:1870 U D\r\n")
    assert session.nat.watched == [Endpoint(SERVER, 1870)]


# --- skipping -----------------------------------------------------------------------------------------------


def skipped(session: Session, direction: int, text: bytes) -> bool:
    return session.helper.skips(C2S if direction == C2S else S2C, b"head" + text, 4, session.nat)


def test_skips_agrees_with_scan() -> None:
    talk = msg(chat(b"hello"))
    session = Session().on_sb()
    assert skipped(session, C2S, talk)
    assert skipped(session, S2C, heard(chat(b"hello")))
    for text in (talk + b"x", talk[:-1], talk + talk, msg(p2p(listening())), OFFER, b"ACK 7\r\n", b""):
        assert not skipped(session, C2S, text), text
    session.say(talk[:20])
    assert not skipped(session, C2S, talk), "inside a message"
    session.say(talk[20:])
    assert skipped(session, C2S, talk)
    assert session.say(OFFER) != OFFER
    assert not skipped(Session(), C2S, talk)
    assert not skipped(Session().on_ns(), C2S, talk)


# --- bounds -------------------------------------------------------------------------------------------------


def test_what_is_kept_is_bounded_whatever_lengths_say() -> None:
    session = Session().on_sb()
    session.say(b"MSG 5 D 16777216\r\n")
    for _ in range(100):
        session.feed(C2S, p2p(listening()) * 3)
    assert session.nat.buffered == 0
    for payload in (b"X: " + b"y" * 9000, p2p(listening())[:300], chat(b"x" * 8000)):
        session = Session().on_sb()
        text = b"MSG 5 D 7999\r\n" + payload
        for at in range(0, len(text), 500):
            session.feed(C2S, text[at : at + 500])
            assert session.nat.buffered <= 8100


def test_endless_announcements_fill_nothing() -> None:
    session = Session().on_sb()
    for number in range(200):
        session.hear(heard(accept(cookie=number).replace(b"ACCEPT", b"INVITE")))
        session.say(msg(accept(cookie=number)) + msg(p2p(listening(call=b"{%d}" % number), message=number)))
    inner = session.helper._announcements
    assert inner is not None
    assert all(len(getattr(inner, name)) <= 16 for name in inner.__slots__)
    session = Session().on_ns()
    for number in range(200):
        session.say(b"XFR %d SB\r\n" % number)
    assert len(session.helper._referrals._asked) <= 16  # type: ignore[union-attr]


# --- after a restart ----------------------------------------------------------------------------------------


def taken_up(session: Session) -> Session:
    """What the next daemon makes of it."""
    after = Session(MsnNat())
    positions = session.helper.positions()
    assert all(len(one) <= 20 for one in positions)
    after.helper.resume(positions, (0, 0))
    return after


def test_goes_on_at_a_boundary_and_in_a_payload() -> None:
    for payload, rest in ((b"", b""), (chat(b"hello"), b""), (p2p(listening()), b"")):
        whole = msg(payload) if payload else b""
        for cut in range(14, len(whole), 40) if whole else (0,):
            session = Session().on_sb()
            session.say(whole[:cut])
            after = taken_up(session)
            assert after.say(whole[cut:] + rest) == whole[cut:]
            assert after.say(OFFER) != OFFER
            assert after.nat.ready == 1


def test_session_says_again_that_it_is_one() -> None:
    after = taken_up(Session().on_ns())
    after.say(b"XFR 8 SB\r\n")
    after.hear(b"XFR 8 SB 203.0.113.9:1865 CKI t\r\n")
    assert after.nat.watched == [Endpoint(SERVER, 1865)]
    assert (after.nat.ready, after.nat.sessions) == (1, 1)


@pytest.mark.parametrize(
    "position", [b"", b"\0" * 6, b"\1\0\0\0\0\0\0", b"\3\0\0\0\0\0", b"\2\1\0\0\0\0", b"\2\0\xff\0\0\0"]
)
def test_what_is_no_position_is_refused(position: bytes) -> None:
    helper = MsnHelper(midstream=False)
    with pytest.raises(ValueError, match=r"."):
        helper.resume((position, position), (0, 0))


def lost(kind: str = "ns") -> Session:
    """A connection of which bytes were missed: what the next daemon has is its kind."""
    before = Session().on_ns() if kind == "ns" else Session().on_sb()
    before.say(b"MSG 5")
    after = Session(MsnNat())
    with pytest.raises(ValueError, match="inside a line"):
        after.helper.resume(before.helper.positions(), (0, 0))
    after.helper.resume(None, (0, 0))
    return after


def test_after_missed_bytes_it_follows_at_once_and_opens_nothing_until_an_answer_fits() -> None:
    session = lost()
    helper = session.helper
    assert not helper.resync(C2S, b"NG\r\n", 0, 100.0, False)
    assert not helper.resync(S2C, b"xt of a payload RNG 1 6.6.6.6:1 CKI x\r\n", 0, 100.1, False)
    assert not helper.resync(C2S, b"XFR 8 SB\r\n", 4, 140.0, True)
    assert helper.resync(S2C, b"QNG 45\r\n", 39, 141.5, True)
    session.seen = [bytearray(14), bytearray(47)]
    text = b"RNG 17 203.0.113.9:1865 CKI t a@b b\r\n"
    session.hear(text)
    assert session.nat.watched == [Endpoint(SERVER, 1865)]
    uun = listening()[:-1]
    offer = b"UUN 31 bob1@lab.test 3 %d\r\n" % len(uun) + uun
    assert session.say(offer) == offer
    session.hear(b"CHG 9 NLN 0\r\n")
    assert session.say(offer) == offer
    session.say(b"CHG 10 NLN 0\r\n")
    session.hear(b"CHG 10 NLN 0\r\n")
    assert session.say(offer) != offer
    assert session.nat.expected[0].inside == Endpoint(INSIDE, 44397)


def test_payload_that_imitates_commands_never_begins_a_chain() -> None:
    helper = lost("sb").helper
    now = 100.0
    helper.resync(C2S, b"MSG 7 N 10\r\n0123", 0, now, False)
    for number in range(20):  # no pause: whatever the segments begin with is payload
        now += 0.3
        assert not helper.resync(S2C, b"ACK 7\r\n", 7 * number, now, number > 0)


def test_connection_that_was_met_midstream_is_foreign() -> None:
    helper = MsnHelper(midstream=True)
    assert not helper.established
    with pytest.raises(Foreign):
        helper.scan(C2S, b"PNG\r\n", 0, MsnNat())
