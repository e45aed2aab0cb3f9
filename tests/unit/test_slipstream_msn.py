"""NAT slipstreaming by MSN: whatever a page makes a browser send, and the server answers, opens nothing."""

from __future__ import annotations

import pytest

from nfreaim.errors import Foreign, Malformed
from tests.unit.helper_session import C2S, S2C
from tests.unit.msn_session import (
    NS_CLIENT,
    NS_SERVER,
    SB_CALLER,
    MsnNat,
    Session,
    accept,
    listening,
    msg,
    p2p,
)

OFFER = msg(accept()) + msg(p2p(listening()), b"D")
SESSION = SB_CALLER[0] + OFFER
HEADER = b"Host: messenger.example.test:1863\r\nUser-Agent: x\r\nContent-Length: 999\r\n\r\n"


def request(method: bytes, path: bytes = b"/", header: bytes = HEADER, body: bytes = SESSION) -> bytes:
    return b"%s %s HTTP/1.1\r\n%s%s" % (method, path, header, body)


BROWSERS = {
    "post": request(b"POST"),
    "body that is a session": request(b"POST", header=b"Host: x\r\n\r\n"),
    "body behind padding": request(b"POST", body=b"*" * 4000 + b"\r\n" + SESSION),
    "second request": request(b"GET", body=b"") + request(b"POST"),
    **{f"method {word}": request(word.encode()) for word in ("VER", "USR", "ANS", "MSG", "ver")},
    "method and path": request(b"USR", b"/1 a@b.test token"),
    "method and host": request(b"ANS", b"http://a@b.test/1"),
    "longest header": request(b"USR", header=b"Cookie: " + b"x" * 9000 + b"\r\n\r\n"),
    "HTTP/0.9": b"GET /\r\n" + SESSION,
    "http/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SESSION,
    "tls": b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + SESSION,
    "turn": b"\0\x03\0\x64\x21\x12\xa4\x42" + SESSION,
    "ftp": b"USER anonymous\r\nPASS x\r\nCWD " + SESSION,
    "smtp": b"EHLO x\r\n" + SESSION,
    "sip": b"REGISTER sip:x SIP/2.0\r\nVia: x\r\n\r\n" + SESSION,
    "irc": b"NICK a\r\nUSER a 0 * :a\r\n" + SESSION,
}
ANSWERS = {
    "signed on": SB_CALLER[1],
    "called": b"IRO 1 1 1 a@b b\r\nANS 1 OK\r\n",
    "notification server": b"".join(NS_SERVER),
    "http, then signed on": b"HTTP/1.1 200 OK\r\n\r\n" + SB_CALLER[1],
}


def opens(browser: bytes, answer: bytes, when: int, size: int) -> list[object]:
    """What a conversation opens; the answer comes at offset *when* of the request, cut every *size* bytes."""
    session = Session(MsnNat())
    heard = False
    try:
        for at in range(0, len(browser), size):
            if at >= when and not heard:
                heard = True
                session.feed(S2C, answer)
            session.feed(C2S, browser[at : at + size])
        session.feed(S2C, answer)
        session.feed(C2S, OFFER)
    except (Foreign, Malformed):
        pass
    assert not session.helper.established
    return [*session.nat.expected, *session.nat.watched, *session.edits[0]]


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
@pytest.mark.parametrize("browser", BROWSERS.values(), ids=BROWSERS)
def test_nothing_opens(browser: bytes, answer: bytes) -> None:
    for size in (1, 7, 536, 1 << 20):
        for when in (0, 1, browser.find(b"\n") + 1, browser.find(OFFER), len(browser)):
            assert opens(browser, answer, when, size) == []


def test_a_session_at_the_beginning_of_a_segment_opens_nothing() -> None:
    for browser in BROWSERS.values():
        if SESSION in browser:
            session = Session(MsnNat())
            with pytest.raises((Foreign, Malformed)):
                session.say(browser, browser.index(SESSION))
            assert session.nat.expected == []


def test_texts_of_other_users_open_nothing_and_name_no_server() -> None:
    """A whole session, announcements included, in payloads of both directions."""
    text = b"".join(NS_CLIENT) + b"".join(NS_SERVER) + b"RNG 1 6.6.6.6:1870 CKI k a@b c\r\n" + OFFER
    session = Session(MsnNat()).on_ns()
    session.say(b"UUX 9 %d\r\n" % len(text) + text)
    session.hear(b"UBX a@b %d\r\n" % len(text) + text)
    assert (session.nat.expected, session.nat.watched) == ([], [])
    session = Session(MsnNat()).on_sb()
    plain = b"MIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\n" + text
    session.say(msg(plain), 30, 200, 400)
    session.hear(b"MSG a@b b %d\r\n" % len(plain) + plain, 30, 200, 400)
    assert session.nat.expected == []


def test_the_same_bytes_from_a_client_do_open() -> None:
    """Or nothing here would prove anything."""
    session = Session(MsnNat())
    session.say(SB_CALLER[0])
    session.hear(SB_CALLER[1])
    session.say(OFFER)
    assert len(session.nat.expected) == 2
