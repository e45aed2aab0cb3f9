"""A client's end of an XMPP stream, by the XML parser of the standard library; and SOCKS5 as XEP-0065 has it.

Nothing here is taken from nfreaim, so it can judge it.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import socket
import threading
from collections.abc import Callable, Iterator
from typing import cast
from xml.etree.ElementTree import Element, XMLPullParser
from xml.sax.saxutils import quoteattr

CLIENT = "jabber:client"
SASL = "urn:ietf:params:xml:ns:xmpp-sasl"
BIND = "urn:ietf:params:xml:ns:xmpp-bind"
STREAM = "http://etherx.jabber.org/streams"


class XmppError(Exception):
    """The other side said no, or something that cannot be understood."""


def tag(namespace: str, name: str) -> str:
    """The name of an element as the parser gives it."""
    return f"{{{namespace}}}{name}"


class XmppStream:
    """A connection. *handle* is called with each stanza that is no answer, in a thread of its own."""

    def __init__(self, connection: socket.socket, handle: Callable[[Element], None]) -> None:
        self._socket = connection
        self._handle = handle
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._answers: dict[str, tuple[threading.Event, list[Element]]] = {}
        self._stanzas: Iterator[Element] = iter(())
        self.jid = ""

    def sign_on(self, user: str, domain: str, password: str) -> None:
        """SASL PLAIN, then bind the resource "pc"; raises XmppError."""
        self._restart(domain)
        token = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
        self._write(f"<auth xmlns='{SASL}' mechanism='PLAIN'>{token}</auth>")
        if (answer := next(self._stanzas)).tag != tag(SASL, "success"):
            raise XmppError(f"{user} was not let in: {answer.tag}")
        self._restart(domain)
        self._write(f"<iq type='set' id='bind'><bind xmlns='{BIND}'><resource>pc</resource></bind></iq>")
        self.jid = next(self._stanzas).findtext(f".//{tag(BIND, 'jid')}") or ""
        self._write("<presence/>")
        self._socket.settimeout(None)
        threading.Thread(target=self._read, daemon=True).start()

    def send(self, text: str) -> None:
        """Write a stanza."""
        self._write(text)

    def ask(self, to: str, payload: str, seconds: float = 60.0) -> Element:
        """An iq of type "set", and the answer to it; raises XmppError if there is none."""
        ident = f"n{next(self._numbers)}"
        came, found = self._answers[ident] = threading.Event(), []
        self._write(f"<iq type='set' id='{ident}' to={quoteattr(to)}>{payload}</iq>")
        if not came.wait(seconds):
            raise XmppError(f"no answer to {payload[:60]}")
        return found[0]

    def answer(self, request: Element, payload: str = "", kind: str = "result") -> None:
        """The answer to an iq."""
        ends = f"id={quoteattr(request.get('id', ''))} to={quoteattr(request.get('from', ''))}"
        self._write(f"<iq type='{kind}' {ends}>{payload}</iq>")

    def close(self) -> None:
        """Sign off."""
        self._write("</stream:stream>")
        self._socket.close()

    def _write(self, text: str) -> None:
        with self._lock:
            self._socket.sendall(text.encode())

    def _restart(self, domain: str) -> None:
        self._stanzas = self._parsed()
        self._write("<?xml version='1.0'?>")  # in two segments, as libpurple does
        self._write(f"<stream:stream to='{domain}' xmlns='{CLIENT}' xmlns:stream='{STREAM}' version='1.0'>")
        if (features := next(self._stanzas)).tag != tag(STREAM, "features"):
            raise XmppError(f"no features but {features.tag}")

    def _parsed(self) -> Iterator[Element]:
        parser: XMLPullParser[Element] = XMLPullParser(("start", "end"))
        depth = 0
        while data := self._socket.recv(65536):
            parser.feed(data)
            for event, element in cast("Iterator[tuple[str, Element]]", parser.read_events()):
                depth += 1 if event == "start" else -1
                if event == "end" and depth == 1:
                    yield element
        raise XmppError("the server has ended the connection")

    def _read(self) -> None:
        try:
            for stanza in self._stanzas:
                answers = stanza.tag == tag(CLIENT, "iq") and stanza.get("type") in ("result", "error")
                if answers:
                    came, found = self._answers.pop(stanza.get("id", ""), (threading.Event(), []))
                    found.append(stanza)
                    came.set()
                else:
                    threading.Thread(target=self._handle, args=(stanza,), daemon=True).start()
        except (OSError, XmppError):
            return


def destination(sid: str, initiator: str, target: str) -> bytes:
    """What a bytestream's SOCKS5 request names as its host (XEP-0065, 5.3.2)."""
    return hashlib.sha1(f"{sid}{initiator}{target}".encode()).hexdigest().encode()


def exactly(source: socket.socket, size: int) -> bytes:
    """*size* bytes; XmppError if there are fewer."""
    data = b""
    while len(data) < size:
        part = source.recv(size - len(data))
        if not part:
            raise XmppError(f"the peer link ended after {len(data)} bytes")
        data += part
    return data


def socks_dialled(link: socket.socket, host: bytes) -> None:
    """The part of the side that connects; raises XmppError and OSError."""
    link.sendall(b"\5\1\0")
    if exactly(link, 2) != b"\5\0":
        raise XmppError("no SOCKS5 server there")
    link.sendall(b"\5\1\0\3" + bytes([len(host)]) + host + b"\0\0")
    if exactly(link, 2) != b"\5\0":
        raise XmppError("the peer does not know the stream")
    exactly(link, 2)
    exactly(link, exactly(link, 1)[0] + 2)


def socks_accepted(link: socket.socket, host: bytes) -> None:
    """The part of the side that listens; raises XmppError and OSError."""
    exactly(link, exactly(link, 2)[1])
    link.sendall(b"\5\0")
    exactly(link, 4)
    if exactly(link, exactly(link, 1)[0]) != host:
        raise XmppError("somebody else has connected")
    exactly(link, 2)
    link.sendall(b"\5\0\0\3" + bytes([len(host)]) + host + b"\0\0")
