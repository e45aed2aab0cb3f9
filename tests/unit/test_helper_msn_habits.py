"""The MSN helper and the habits of other clients: who waits for no answer, who ends a text otherwise."""

from __future__ import annotations

from contextlib import suppress

import pytest

from nfreaim.core.address import Endpoint
from nfreaim.errors import Foreign, Malformed
from tests.unit.msn_session import (
    INSIDE,
    LISTENS,
    NS_CLIENT,
    NS_SERVER,
    OUTSIDE,
    SB_CALLED,
    SB_CALLER,
    SERVER,
    Session,
    accept,
    listening,
    msg,
    p2p,
    slp,
)

OFFER = msg(accept())

# --- signing on ---------------------------------------------------------------------------------------------


def test_a_client_need_not_wait_for_answers() -> None:
    for sent in range(1, 4):
        session = Session()
        session.say(b"".join(NS_CLIENT[:sent]))
        for said, answer in zip([b"", *NS_CLIENT[1:]], NS_SERVER, strict=True):
            if said not in NS_CLIENT[:sent]:
                session.say(said)
            assert not session.helper.established
            session.hear(answer)
        assert session.helper.established
    session = Session()
    session.say(SB_CALLER[0] + b"CAL 2 bob1@lab.test\r\n")
    session.hear(SB_CALLER[1] + b"CAL 2 RINGING 17\r\n")
    assert session.say(OFFER) != OFFER


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (NS_CLIENT[0], NS_SERVER[0] + b"USR 1 OK alice1@lab.test 1 0\r\n"),  # nobody has asked to sign on
        (NS_CLIENT[0] + b"USR 3 SSO I a@b\r\n", NS_SERVER[0] + b"USR 1 OK a@b 1 0\r\nANS 3 OK\r\n"),
        (SB_CALLER[0], b"USR 1 OKAY a@b a\r\n"),
        (SB_CALLER[0], b"ANS 1 OK\r\n"),
        (SB_CALLER[0], b"IRO 1 1 1 bob1@lab.test bob\r\n"),
        (SB_CALLED[0], b"USR 1 OK a@b a\r\n"),
    ],
)
def test_only_an_answer_to_the_client_s_own_sign_on_counts(said: bytes, answer: bytes) -> None:
    session = Session()
    session.say(said)
    with suppress(Foreign):
        session.hear(answer)
    assert not session.helper.established
    assert session.nat.ready == 0


# --- texts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", [accept(), p2p(listening())])
def test_a_message_in_several_chunks_is_left(payload: bytes) -> None:
    """Its other lines are in another MSG, and would have to follow."""
    for header in (b"Message-ID: {1}\r\nChunks: 2\r\n", b"chunks:3\r\n", b"Message-ID: {1}\r\nChunk: 1\r\n"):
        head, _, body = payload.partition(b"\r\n\r\n")
        came = msg(head + b"\r\n" + header + b"\r\n" + body)
        session = Session().on_sb()
        assert session.say(came) == came
        assert session.nat.expected == []
    head, _, body = accept().partition(b"\r\n\r\n")
    came = msg(head + b"\r\nMessage-ID: {1}\r\nChunks: 1\r\n\r\n" + body)
    assert Session().on_sb().say(came) != came, "it is whole"


def test_last_line_needs_no_end() -> None:
    def invited(address: str) -> bytes:
        return accept(address).replace(b"Launch-Application: FALSE\r\nRequest-Data: IP-Address:\r\n\r\n", b"")

    for cut in (0, 2):
        came, leaves = (msg(invited(one)[: -cut or None]) for one in (INSIDE, OUTSIDE))
        assert Session().on_sb().say(came) == leaves

    def text(address: str, end: bytes) -> bytes:
        lines = b"IPv4Internal-Addrs: %s" % address.encode(), b"IPv4Internal-Port: 3312"
        whole = slp(*LISTENS, *lines)
        return msg(p2p(whole.removesuffix(b"\r\n\r\n\0") + end), b"D")

    for end in (b"\r\n\r\n\0", b"\r\n\r\n", b"\r\n\0", b"\r\n", b"\0", b""):
        leaves = Session().on_sb().say(text(INSIDE, end))
        assert (b": 203.0.113.1\r\n" in leaves, leaves.endswith(b"3312" + end + bytes(4))) == (True, True)


@pytest.mark.parametrize("wrong", [-1, 0, 1])
def test_a_content_length_with_or_without_the_nul_follows(wrong: int) -> None:
    came = slp(*LISTENS, b"IPv4External-Addrs: 10.0.0.5", b"IPv4External-Port: 6891")
    size = int(came.partition(b"Content-Length: ")[2].partition(b"\r")[0])
    line = b"Content-Length: %d\r\n"
    leaves = Session().on_sb().say(msg(p2p(came.replace(line % size, line % (size + wrong))), b"D"))
    assert line % (size + wrong + 3) in leaves


@pytest.mark.parametrize(
    "empty",
    [
        (b"IPv4External-Addrs: ", b"IPv4External-Port: "),
        (b"IPv4External-Port:", b"IPv4External-Addrs:"),
        (b"IPv4ExternalAddrsAndPorts: ",),
        (b"IPv4ExternalAddrsAndPorts: ", b"IPv4External-Addrs: ", b"IPv4External-Port: "),
    ],
)
def test_empty_address_lines_name_nobody(empty: tuple[bytes, ...]) -> None:
    def text(address: str) -> bytes:
        inner = b"IPv4Internal-Addrs: %s" % address.encode(), b"IPv4Internal-Port: 3312"
        return msg(p2p(slp(*LISTENS, *empty, *inner, b"IPv6-global: ")), b"D")

    assert Session().on_sb().say(text(INSIDE)) == text(OUTSIDE)
    half = msg(p2p(slp(*LISTENS, *empty[:-1], b"IPv4External-Port: 3312")), b"D")
    session = Session().on_sb()
    assert session.say(half) == half
    assert session.nat.expected == []


@pytest.mark.parametrize("other", [b"fe80::1", b"fe80::21a:2bff:fe3c:4d5e%12", b"2001:db8::7"])
def test_an_address_of_version_6_beside_ours_is_somebody_else_s(other: bytes) -> None:
    """Clients that announce the first address of their host, whatever its version."""

    def text(address: str) -> bytes:
        lines = b"IPv4Internal-Addrs: %s %s" % (other, address.encode()), b"IPv4Internal-Port: 3312"
        return msg(p2p(slp(*LISTENS, *lines)), b"D")

    def pairs(address: str) -> bytes:
        outer = b"IPv4External-Addrs: %s" % address.encode(), b"IPv4External-Port: 3312"
        inner = b"IPv4Internal-Addrs: %s" % other, b"IPv4Internal-Port: 3312"
        return msg(p2p(slp(*LISTENS, *inner, *outer)), b"D")

    for made in (text, pairs):
        assert Session().on_sb().say(made(INSIDE)) == made(OUTSIDE)
    session = Session().on_sb()
    assert session.say(pairs(OUTSIDE)) == pairs(OUTSIDE)
    assert [one.inside for one in session.nat.expected] == [Endpoint(INSIDE, 3312)]
    alone = text("").replace(b" \r\n", b"\r\n")
    assert session.say(alone) == alone
    assert session.hear(alone.replace(b"MSG 7 D", b"MSG b@c b")) == alone.replace(b"MSG 7 D", b"MSG b@c b")


def test_a_frame_of_version_1_is_one_whatever_the_envelope_names() -> None:
    """One of version 2 begins with the length of its header, one of version 1 with the session 0."""
    bob = b"bob1@lab.test;{95178158-37b6-45ce-b332-2042a4d27563}"
    session = Session().on_sb()
    leaves = session.say(msg(p2p(listening(), bob), b"D"))
    assert leaves == msg(p2p(listening(OUTSIDE), bob), b"D")
    name = session.nat.expected[0].agreement
    session.say(msg(p2p(slp(start=b"BYE MSNMSGR:x MSNSLP/1.0", content=b"sessionclosebody")), b"D"))
    assert session.nat.withdrawn == [(name, "declined or over")]
    data = msg(p2p(listening(), bob, session=7), b"D")
    assert session.say(data) == data


# --- a session that lasts for hours -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        b"205 9 bob@lab.test\r\n",  # an argument that is no length
        b"PAG 9\r\nPGD 9 1\r\nSDC 9 0\r\nUUM 9 0\r\n",  # answers to commands with a payload
    ],
)
def test_what_can_have_no_payload_ends_nothing(line: bytes) -> None:
    session = Session().on_ns()
    session.hear(line + b"RNG 17 203.0.113.9:1864 CKI t a@b b\r\n")
    assert session.nat.watched == [Endpoint(SERVER, 1864)]


@pytest.mark.parametrize("line", [b"205 9 123456789\r\n", b"540 9 123456789\r\n", b"540 9 3\r\n"])
def test_an_error_with_a_number_that_is_no_length_ends_the_reading(line: bytes) -> None:
    session = Session().on_ns()
    with pytest.raises(Malformed):
        session.hear(line)


def test_many_conversations_at_once_are_followed() -> None:
    session = Session().on_ns()
    for number in range(20, 34):
        session.say(b"XFR %d SB\r\n" % number)
    for number in range(20, 34):
        session.hear(b"XFR %d SB 203.0.113.9:%d CKI t\r\n" % (number, 2000 + number))
    assert len(session.nat.watched) == 14


def test_a_server_that_is_named_by_name_is_followed_where_its_referrer_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    session = Session().on_ns()
    with caplog.at_level("INFO"):
        session.hear(b"RNG 17 m1.lab.test:1870 CKI t a@b b\r\nRNG 18 m2.lab.test:1871 CKI t a@b b\r\n")
    assert session.nat.watched == [Endpoint(SERVER, 1870), Endpoint(SERVER, 1871)]
    assert len(caplog.messages) == 1
    assert "m1.lab.test:1870" in caplog.text
    session.say(b"XFR 20 SB\r\n")
    session.hear(b"XFR 20 SB m1.lab.test:1863 CKI t\r\nXFR 21 SB m1.lab.test:1872 CKI t\r\n")
    assert len(session.nat.watched) == 2, "one is read anyway, the other was not asked for"
    session.hear(b"RNG 19 m1.lab.test:0 CKI t a@b b\r\nRNG 19 203.0.113.9:65536 CKI t a@b b\r\n")
    assert len(session.nat.watched) == 2
