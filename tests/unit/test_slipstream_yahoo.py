"""NAT slipstreaming by YMSG: what a page can make a browser send, whatever the server answers, opens nothing.

The page chooses the host and port, the path, much of the headers, and all of the body; the server chooses
where segments begin and what it says when. What the page cannot choose: the first bytes of the connection.
"""

from __future__ import annotations

import pytest

from nfreaim.errors import Foreign
from tests.unit.helper_session import C2S, S2C
from tests.unit.yahoo_session import OFFER, Session
from tests.yahoo.ymsg import sign_on

HELLO, CHALLENGE, ANSWER, WELCOME = sign_on()
SESSION = HELLO + ANSWER + OFFER
HEADER = b"Host: x:5050\r\nUser-Agent: x\r\nContent-Length: 999\r\n\r\n"

BROWSERS = {
    "post": b"POST / HTTP/1.1\r\n" + HEADER + SESSION,
    "method that begins as a packet": b"YMSG / HTTP/1.1\r\n" + HEADER + SESSION,
    "longer method": b"YMSGA / HTTP/1.1\r\n" + HEADER + SESSION,
    "chunked": b"POST / HTTP/1.1\r\n" + HEADER + b"%x\r\n%b\r\n0\r\n\r\n" % (len(SESSION), SESSION),
    "second request": b"GET / HTTP/1.1\r\n\r\nPOST / HTTP/1.1\r\n" + HEADER + SESSION,
    "websocket": b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n\x81\xfe" + SESSION,
    "http/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SESSION,
    "tls": b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + SESSION,
    "turn": b"\0\x03\0\x64\x21\x12\xa4\x42" + SESSION,
    "ftp": b"USER YMSG\r\nPASS x\r\n" + SESSION,
    "smtp": b"EHLO x\r\n" + SESSION,
    "sip": b"REGISTER sip:x SIP/2.0\r\nVia: x\r\n\r\n" + SESSION,
    "line end first": b"\r\n" + SESSION,
    "zero first": b"\0" + SESSION,
    "half a word first": b"YM" + SESSION,
    "offer first": OFFER + SESSION,
}
ANSWERS = {
    "welcome": WELCOME,
    "whole greeting": CHALLENGE + WELCOME,
    "ftp, then a welcome": b"220 x\r\n" + WELCOME,
}


def opens(browser: bytes, answer: bytes, when: int, size: int) -> list[object]:
    """What a conversation opens; the answer comes at offset *when* of the request, cut every *size* bytes."""
    session = Session()
    heard = False
    try:
        for at in range(0, len(browser), size):
            if at >= when and not heard:
                heard = True
                session.feed(S2C, answer)
            session.feed(C2S, browser[at : at + size])
        session.feed(S2C, answer)
        session.feed(C2S, OFFER)
    except Foreign:
        pass
    assert not session.helper.established
    return [*session.nat.expected, *session.edits[0]]


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
@pytest.mark.parametrize("browser", BROWSERS.values(), ids=BROWSERS)
def test_nothing_opens(browser: bytes, answer: bytes) -> None:
    for size in (1, 7, 536, 1 << 20):
        for when in (0, 1, browser.find(b"\n") + 1, browser.find(OFFER), len(browser)):
            assert opens(browser, answer, when, size) == []


@pytest.mark.parametrize("browser", BROWSERS.values(), ids=BROWSERS)
def test_segment_that_begins_with_a_session_opens_nothing(browser: bytes) -> None:
    session = Session()
    with pytest.raises(Foreign):
        session.say(browser, browser.index(SESSION))
    assert session.nat.expected == []


def test_the_same_bytes_from_a_client_do_open() -> None:
    """Or nothing here would prove anything."""
    session = Session()
    session.say(HELLO + ANSWER)
    session.hear(CHALLENGE + WELCOME)
    session.say(OFFER)
    assert len(session.nat.expected) == 1
