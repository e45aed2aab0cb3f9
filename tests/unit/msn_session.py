"""A scripted router, one MSN connection through it, and texts: for the tests of the MSN helper."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from nfreaim.core.address import Endpoint
from nfreaim.core.helper import UNFIT, Expectation, Refused
from nfreaim.helpers.msn.connection import MsnHelper
from tests.unit.helper_session import C2S, S2C, HelperSession
from tests.unit.irc_session import ScriptedNat

INSIDE, NEIGHBOUR, OUTSIDE, SERVER = "10.0.0.5", "10.0.0.6", "203.0.113.1", "203.0.113.9"
_CLIENT_END, _SERVER_END = Endpoint(INSIDE, 40123), Endpoint(SERVER, 1863)

NS_CLIENT = (
    b"VER 1 MSNP18 MSNP17 CVR0\r\n",
    b"CVR 2 0x0409 winnt 5.1 i386 MSNMSGR 8.5.1302 MSMSGS alice1@lab.test\r\n",
    b"USR 3 SSO I alice1@lab.test\r\n",
    b"USR 4 SSO S t=ticket answer\r\n",
)
NS_SERVER = (
    b"VER 1 MSNP18\r\n",
    b"CVR 2 1.0 1.0 1.0 http://x http://x\r\n",
    b"GCF 0 5\r\nXFR 1USR 3 SSO S MBI_KEY_OLD nonce\r\n",
    b"USR 4 OK alice1@lab.test 1 0\r\nMSG Hotmail Hotmail 24\r\nClientIP: 203.0.113.1\r\n\n",
)
SB_CALLER = (b"USR 1 alice1@lab.test token\r\n", b"USR 1 OK alice1@lab.test alice\r\n")
SB_CALLED = (
    b"ANS 1 alice1@lab.test token 17\r\n",
    b"IRO 1 1 1 bob1@lab.test bob\r\nANS 1 OK\r\n",
)


@dataclass
class MsnNat(ScriptedNat):
    """*home*: what stands for our side; *forwards*: outside ports by inside server."""

    home: frozenset[str] = frozenset()
    forwards: dict[Endpoint, int] = field(default_factory=dict)
    watched: list[Endpoint] = field(default_factory=list)
    withdrawn: list[tuple[bytes, str]] = field(default_factory=list)
    open: dict[bytes, Endpoint] = field(default_factory=dict)
    sessions: int = 0
    hosts: frozenset[str] = frozenset({INSIDE, NEIGHBOUR, "10.0.0.9"})
    agreed: list[bytes] = field(default_factory=list)
    inside: Endpoint = _CLIENT_END
    outside: Endpoint = _SERVER_END

    def established(self, session: bool = False) -> None:
        self.ready += 1
        self.sessions += session

    def expect(self, expectation: Expectation) -> Endpoint:
        if expectation.inside.address not in self.hosts:
            raise Refused(f"{expectation.inside.address} is not a host of the inside networks")
        port = expectation.inside.port
        width = len(OUTSIDE), len(str(self.moved.get(port, port)))
        if expectation.widths not in (None, width):
            raise Refused(UNFIT)
        outside = super().expect(expectation)
        self.open[expectation.agreement] = outside
        return outside

    def offered(self, expectation: Expectation) -> None:
        """Its peer may come, and no pinhole is opened."""

    def withdraw(self, agreement: bytes, reason: str) -> None:
        self.withdrawn.append((agreement, reason))
        self.pinholes.pop(self.open.pop(agreement, Endpoint("", 0)), None)

    def accepted(self, agreement: bytes) -> None:
        self.agreed.append(agreement)

    def reached(self) -> Endpoint:
        return Endpoint(OUTSIDE, 1863)

    def is_home(self, host: str) -> bool:
        return host in self.home or host.startswith("10.")

    def outside_of(self, server: Endpoint) -> Endpoint:
        if server == self.inside:
            return self.reached()
        if server not in self.forwards:
            raise Refused("no rule forwards it")
        return Endpoint(OUTSIDE, self.forwards[server])

    def watch_server(self, server: Endpoint) -> None:
        self.watched.append(server)


class Session(HelperSession[MsnNat, MsnHelper]):
    def __init__(self, nat: MsnNat | None = None) -> None:
        super().__init__(nat or MsnNat(), MsnHelper(midstream=False))

    def on_ns(self) -> Session:
        for said, heard in zip(NS_CLIENT, NS_SERVER, strict=True):
            self.feed(C2S, said)
            self.feed(S2C, heard)
        assert self.helper.established
        return self

    def on_sb(self, called: bool = False) -> Session:
        said, heard = SB_CALLED if called else SB_CALLER
        self.feed(C2S, said)
        self.feed(S2C, heard)
        assert self.helper.established
        return self


# --- messages -----------------------------------------------------------------------------------------------


def msg(payload: bytes, kind: bytes = b"N", transaction: int = 7) -> bytes:
    """A client's message on a switchboard."""
    return b"MSG %d %s %d\r\n" % (transaction, kind, len(payload)) + payload


def heard(payload: bytes, sender: bytes = b"bob1@lab.test") -> bytes:
    """A message as a switchboard relays it."""
    return b"MSG %s bob %d\r\n" % (sender, len(payload)) + payload


def chat(text: bytes) -> bytes:
    """The payload of a text message."""
    return (
        b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=UTF-8\r\n"
        b"X-MMS-IM-Format: FN=Arial; EF=; CO=0; CS=0; PF=22\r\n\r\n" + text
    )


def invitation(*lines: bytes) -> bytes:
    """The payload of an invitation."""
    head = b"MIME-Version: 1.0\r\nContent-Type: text/x-msmsgsinvite; charset=UTF-8\r\n\r\n"
    return head + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def accept(address: str = INSIDE, port: int = 6891, *more: bytes, cookie: int = 33267) -> bytes:
    """An ACCEPT of MSNFTP by who listens."""
    return invitation(
        b"Invitation-Command: ACCEPT",
        b"Invitation-Cookie: %d" % cookie,
        b"IP-Address: %s" % address.encode(),
        b"Port: %d" % port,
        b"AuthCookie: 93301",
        *more,
        b"Launch-Application: FALSE",
        b"Request-Data: IP-Address:",
    )


CALL = b"{A54D2E1E-3C40-3C8D-90B8-35445084824B}"


def slp(
    *lines: bytes,
    start: bytes = b"MSNSLP/1.0 200 OK",
    content: bytes = b"transrespbody",
    call: bytes = CALL,
    nul: bytes = b"\0",
) -> bytes:
    """An SLP text."""
    body = b"".join(line + b"\r\n" for line in lines) + b"\r\n" + nul
    return (
        start
        + b"\r\nTo: <msnmsgr:bob1@lab.test>\r\nFrom: <msnmsgr:alice1@lab.test>\r\n"
        + b"Via: MSNSLP/1.0/TLP ;branch={121AB601-9837-8184-81B3-170028C8AAF7}\r\nCSeq: 1\r\n"
        + b"Call-ID: %s\r\nMax-Forwards: 0\r\n" % call
        + b"Content-Type: application/x-msnmsgr-%s\r\nContent-Length: %d\r\n\r\n" % (content, len(body))
        + body
    )


LISTENS = (b"Bridge: TCPv1", b"Listening: true", b"Nonce: {0216231B-E9E8-1F16-E7CD-90118D43EF66}")


def listening(address: str = INSIDE, port: int = 44397, call: bytes = CALL) -> bytes:
    """An SLP text of who listens, in libpurple's form."""
    pair = b"IPv4External-Addrs: %s" % address.encode(), b"IPv4External-Port: %d" % port
    return slp(*LISTENS, *pair, call=call)


def p2p(text: bytes, to: bytes = b"bob1@lab.test", message: int = 0x1220085A, **sizes: int) -> bytes:
    """A frame of P2P version 1, in its envelope. *sizes*: total, size, offset, session, where they lie."""
    total, size = sizes.get("total", len(text)), sizes.get("size", len(text))
    header = struct.pack(
        "<IIQQIIIIQ", sizes.get("session", 0), message, sizes.get("offset", 0), total, size, 0, 99, 0, 0
    )
    envelope = b"MIME-Version: 1.0\r\nContent-Type: application/x-msnmsgrp2p\r\nP2P-Dest: %s\r\n\r\n" % to
    return envelope + header + text + b"\0\0\0\0"
