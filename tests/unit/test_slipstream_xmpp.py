"""NAT slipstreaming by XMPP: what a page can make a browser send, whatever the server answers, opens nothing.

The page chooses the host and port, the path, much of the headers, the method, and all of the body; the server
chooses where segments begin and what it says when. What the page cannot choose: that a request begins with
its method, which has no "<", or TLS with a record.
"""

from __future__ import annotations

import pytest

from nfreaim.errors import Foreign
from tests.unit.helper_session import C2S, S2C
from tests.unit.xmpp_session import OLD_SIGN_ON, SIGN_ON, Session
from tests.xmpp.texts import HEADER, OFFER

SAID = [b"".join(text for way, text in turns if way is C2S) + OFFER * 2 for turns in (SIGN_ON, OLD_SIGN_ON)]
HEARD = [b"".join(text for way, text in turns if way is S2C) for turns in (SIGN_ON, OLD_SIGN_ON)]
SESSION = SAID[0]
FIELDS = b"Host: example.test:5222\r\nUser-Agent: x\r\nContent-Length: 999\r\n\r\n"


def request(method: bytes, path: bytes = b"/", fields: bytes = FIELDS, body: bytes = SESSION) -> bytes:
    return b"%s %s HTTP/1.1\r\n%s%s" % (method, path, fields, body)


BROWSERS = {
    "post": request(b"POST"),
    "post of an old session": request(b"POST", body=SAID[1]),
    "form of parts": request(
        b"POST", body=b"--x\r\nContent-Disposition: form-data; name=a\r\n\r\n" + SESSION
    ),
    "body behind a page of padding": request(b"POST", body=b"*" * 4000 + b"\r\n" + SESSION),
    "second request on the connection": request(b"GET", body=b"") + request(b"POST"),
    "path": request(b"GET", SESSION),
    "method in brackets": request(b"<?xml"),
    "method that is a header": request(HEADER),
    "no method": SESSION[1:],
    "HTTP/0.9": b"GET /\r\n" + SESSION,
    "websocket": request(b"GET", fields=b"Upgrade: websocket\r\n\r\n", body=b"\x81\xfe" + SESSION),
    "http/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SESSION,
    "tls": b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + SESSION,
    "turn": b"\0\x03\0\x64\x21\x12\xa4\x42" + SESSION,
    "ftp": b"USER " + SESSION + b"\r\nPASS x\r\n" + SESSION,
    "smtp": b"EHLO x\r\n" + SESSION,
    "sip": b"REGISTER sip:x SIP/2.0\r\n\r\n" + SESSION,
    "irc": b"NICK x\r\nUSER x 0 * :x\r\n" + SESSION,
    "new line": b"\r\n" + SESSION,
    "flash": b"<policy-file-request/>\0" + SESSION,
    "page": b"<html>" + SESSION,
    "document type": b"<!DOCTYPE html>" + SESSION,
}
ANSWERS = {
    "sasl": HEARD[0],
    "before 2004": HEARD[1],
    "http, then a stream": b"HTTP/1.1 200 OK\r\n\r\n" + HEARD[0],
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
        for when in (0, 1, browser.find(b"<stream"), browser.find(OFFER), len(browser)):
            assert opens(browser, answer, when, size) == []


WHOLE = {name: data for name, data in BROWSERS.items() if SESSION in data}


@pytest.mark.parametrize("browser", WHOLE.values(), ids=WHOLE)
def test_segment_that_begins_with_a_session_opens_nothing(browser: bytes) -> None:
    """Segments mean nothing: the session is at the beginning of one, but not of the connection."""
    session = Session()
    with pytest.raises(Foreign):
        session.say(browser, browser.index(SESSION))
    assert session.nat.expected == []


def test_client_that_says_all_at_once_opens_nothing_before_it_is_answered() -> None:
    session = Session()
    with pytest.raises(Foreign):  # the second stream begins before the server's success
        session.say(SESSION)
    assert session.nat.expected == []


@pytest.mark.parametrize("turns", [SIGN_ON, OLD_SIGN_ON], ids=["sasl", "before-2004"])
def test_the_same_bytes_from_a_client_do_open(turns: list[tuple[object, bytes]]) -> None:
    """Or nothing here would prove anything."""
    session = Session()
    for way, text in turns:
        session.feed(C2S if way is C2S else S2C, text)
    session.say(OFFER * 2)
    assert len(session.nat.expected) == 2
