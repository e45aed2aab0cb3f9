"""NAT slipstreaming by IRC: what a page can make a browser send, whatever the server answers, opens nothing.

The page chooses the host and port, the path, much of the headers, the method, and all of the body; the server
chooses where segments begin and what it says when. What the page cannot choose: that HTTP has a header.
"""

from __future__ import annotations

import pytest

from nfreaim.errors import Foreign
from tests.unit.helper_session import C2S, S2C
from tests.unit.irc_session import SEND, SIGN_ON, WELCOME, Session

SESSION = SIGN_ON + SEND + SEND
HEADER = b"Host: irc.example.test:6667\r\nUser-Agent: x\r\nContent-Length: 999\r\n\r\n"


def request(method: bytes, path: bytes = b"/", header: bytes = HEADER, body: bytes = SESSION) -> bytes:
    return b"%s %s HTTP/1.1\r\n%s%s" % (method, path, header, body)


FORM = (
    b"--x\r\nContent-Disposition: form-data; name=text\r\n\r\n"
    + SESSION
    + b"--x--\r\n"  # a part is a body, too
)
BROWSERS = {
    "post": request(b"POST"),
    "form of parts": request(b"POST", body=FORM),
    "chunked": request(b"POST", body=b"%x\r\n%s\r\n0\r\n\r\n" % (len(SESSION), SESSION)),
    "body behind a page of padding": request(b"POST", body=b"*" * 4000 + b"\r\n" + SESSION),
    "second request on the connection": request(b"GET", body=b"") + request(b"POST"),
    **{f"method {word}": request(word.encode()) for word in ("NICK", "USER", "PASS", "CAP", "nick")},
    "method and path": request(b"NICK", b"alice"),
    "header that is half a command": request(b"NICK", header=b"USER: alice 0 * :x\r\n" + HEADER),
    "header of many lines": request(b"USER", header=b"Host: x\r\n NICK alice\r\n USER alice 0 * :x\r\n\r\n"),
    "longest header": request(b"NICK", header=b"Cookie: " + b"x" * 9000 + b"\r\n\r\n"),
    "HTTP/0.9, a newline in the path": b"GET /\r\n" + SESSION,
    "websocket": request(
        b"GET", header=HEADER[:-2] + b"Upgrade: websocket\r\n\r\n", body=b"\x81\xfe" + SESSION
    ),
    "http/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SESSION,
    "tls": b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + SESSION,
    "turn": b"\0\x03\0\x64\x21\x12\xa4\x42" + SESSION,
    "ftp": b"USER alice\r\nPASS x\r\nCWD NICK alice\r\nEPSV\r\n" + SEND,
    "ftp, a line more": b"USER alice\r\nPASS NICK alice\r\n" + SEND,
    "smtp": b"EHLO x\r\n" + SESSION,
    "sip": b"REGISTER sip:x SIP/2.0\r\nVia: x\r\n\r\n" + SESSION,
}
ANSWERS = {
    "welcome": WELCOME,
    "welcome without a name": b"001 alice :Welcome\r\n",
    "whole greeting": b"NOTICE AUTH :x\r\nPING :1\r\n" + WELCOME + b":irc.example.test 376 alice :End\r\n",
    "ftp, then a welcome": b"220 ready\r\n331 x\r\n230 x\r\n" + WELCOME,
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
        session.feed(C2S, SEND)
    except Foreign:
        pass
    assert not session.helper.established
    return [*session.nat.expected, *session.edits[0]]


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
@pytest.mark.parametrize("browser", BROWSERS.values(), ids=BROWSERS)
def test_nothing_opens(browser: bytes, answer: bytes) -> None:
    for size in (1, 7, 536, 1 << 20):
        for when in (0, 1, browser.find(b"\n") + 1, browser.find(SEND), len(browser)):
            assert opens(browser, answer, when, size) == []


WHOLE = {name: data for name, data in BROWSERS.items() if SIGN_ON in data}


@pytest.mark.parametrize("browser", WHOLE.values(), ids=WHOLE)
def test_segment_that_begins_with_a_session_opens_nothing(browser: bytes) -> None:
    """Segments mean nothing: the session is at the beginning of one, but not of the connection."""
    session = Session()
    at = browser.index(SIGN_ON)
    with pytest.raises(Foreign):
        session.say(browser, at)
    assert session.nat.expected == []


def test_the_same_bytes_from_a_client_do_open() -> None:
    """Or nothing here would prove anything."""
    session = Session()
    session.say(SIGN_ON)
    session.hear(ANSWERS["whole greeting"])
    session.say(SEND + SEND)
    assert len(session.nat.expected) == 2
