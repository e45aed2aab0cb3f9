"""MSNSLP: the texts by which two clients agree on a session and on a direct connection for it.

A start line, header lines, a blank line, body lines, a blank line and NUL; Content-Length counts the body
with its blank line and the NUL. Sources: libpurple's slpcall.c and directconn.c, msnp-sharp, Miranda.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace

from tests.msn.fields import Fields, block, get, take_block

FILE_GUID = "{5D3E02AB-6190-11D3-BBBB-00C04F795683}"
OBJECT_GUID = "{A4268EEC-FEC5-49E5-95C3-F126696BDBF6}"
SESSION, REQUEST, RESPONSE, CLOSE = (
    f"application/x-msnmsgr-{name}body" for name in ("sessionreq", "transreq", "transresp", "sessionclose")
)
OK = "MSNSLP/1.0 200 OK"
DECLINE = "MSNSLP/1.0 603 Decline"
NO_NONCE = "{00000000-0000-0000-0000-000000000000}"


def inviting(to: str, word: str = "INVITE") -> str:
    """The start line of a request."""
    return f"{word} MSNMSGR:{to} MSNSLP/1.0"


def backward(text: str) -> str:
    """As newer clients write names and values of addresses."""
    return text[::-1]


@dataclass(frozen=True)
class Slp:
    """One text. *headers* have no Content-Length, which is reckoned, unless *length* says something else.

    *ended*: NUL stands behind the body's blank line, as it does on a switchboard; it is counted anyway.
    """

    start: str
    headers: Fields
    body: Fields
    ended: bool = True
    length: int | None = None

    @property
    def content_type(self) -> str:
        """Of the body."""
        return get(self.headers, "Content-Type") or ""

    @property
    def call(self) -> str:
        """Call-ID, the same in all texts about one invitation."""
        return get(self.headers, "Call-ID") or ""

    @property
    def branch(self) -> str:
        """Which invitation an answer belongs to."""
        return (get(self.headers, "Via") or "").partition("branch=")[2]

    def encode(self) -> bytes:
        """The text."""
        body = block(self.body)
        length = len(body) + 1 if self.length is None else self.length
        head = block((*self.headers, ("Content-Length", str(length))))
        return self.start.encode() + b"\r\n" + head + body + (b"\0" if self.ended else b"")

    @classmethod
    def decode(cls, data: bytes) -> Slp:
        """ValueError if it is none."""
        start, end, rest = data.partition(b"\r\n")
        if not end or b"MSNSLP/1.0" not in start:
            raise ValueError(f"no SLP: {data[:60]!r}")
        headers, rest = take_block(rest)
        ended = rest.endswith(b"\0")
        body, left = take_block(rest.removesuffix(b"\0"))
        if left:
            raise ValueError(f"left over: {left!r}")
        said = int(get(headers, "Content-Length") or -1)
        kept = tuple(field for field in headers if field[0] != "Content-Length")
        made = cls(start.decode(), kept, body, ended)
        right = len(block(body)) + 1
        return made if said == right else replace(made, length=said)


@dataclass(frozen=True)
class Dialogue:
    """Who talks to whom, and the two identifiers that tie an answer to its invitation; GUIDs in braces."""

    sender: str
    to: str
    branch: str
    call: str

    def _headers(self, content_type: str, number: int) -> Fields:
        return (
            ("To", f"<msnmsgr:{self.to}>"),
            ("From", f"<msnmsgr:{self.sender}>"),
            ("Via", f"MSNSLP/1.0/TLP ;branch={self.branch}"),
            ("CSeq", str(number)),
            ("Call-ID", self.call),
            ("Max-Forwards", "0"),
            ("Content-Type", content_type),
        )

    def invitation(self, content_type: str, body: Fields) -> Slp:
        """An INVITE."""
        return Slp(inviting(self.to), self._headers(content_type, 0), body)

    def answer(self, content_type: str, body: Fields, start: str = OK) -> Slp:
        """The answer to one."""
        return Slp(start, self._headers(content_type, 1), body)

    def goodbye(self) -> Slp:
        """The session is over."""
        return Slp(inviting(self.to, "BYE"), self._headers(CLOSE, 0), ())

    def back(self) -> Dialogue:
        """The same as the other one says it."""
        return replace(self, sender=self.to, to=self.sender)


def file_session(session: int, name: str, size: int) -> Fields:
    """The body that offers a file; the context: u32 LE length, version, u64 size, type, then the name."""
    head = b"".join(number.to_bytes(4, "little") for number in (574, 2)) + size.to_bytes(8, "little")
    context = head + (1).to_bytes(4, "little") + name.encode("utf-16-le").ljust(550, b"\0") + b"\xff" * 4
    words = base64.b64encode(context).decode()
    return (("EUF-GUID", FILE_GUID), ("SessionID", str(session)), ("AppID", "2"), ("Context", words))


def object_session(session: int) -> Fields:
    """The body that asks for a display picture; the context is the object's description."""
    words = base64.b64encode(b'<msnobj Creator="bob1@lab.test" Type="3" SHA1D="x"/>\0').decode()
    return (("EUF-GUID", OBJECT_GUID), ("SessionID", str(session)), ("AppID", "12"), ("Context", words))


def transport_request(conn_type: str = "Direct-Connect") -> Fields:
    """The body that asks for a direct connection."""
    return (
        ("Bridges", "TCPv1"),
        ("NetID", "0"),
        ("Conn-Type", conn_type),
        ("UPnPNat", "false"),
        ("ICF", "false"),
    )


@dataclass(frozen=True)
class Addresses:
    """Where somebody listens: the pair for everybody, and "" or the pair of the own network."""

    external: str
    external_port: int
    internal: str = ""
    internal_port: int = 0

    def fields(self) -> Fields:
        """Plain spelling, as version 1 has it."""
        found = [("IPv4External-Addrs", self.external), ("IPv4External-Port", str(self.external_port))]
        if self.internal:
            found += [("IPv4Internal-Addrs", self.internal), ("IPv4Internal-Port", str(self.internal_port))]
        return tuple(found)

    @classmethod
    def pairs(cls, fields: Fields) -> list[tuple[str, int]]:
        """Every address and port in these fields, in libpurple's order: those of the own network first. Both
        spellings are read."""
        found = []
        for where in ("Internal", "External"):
            address, port = _either(fields, f"IPv4{where}-Addrs"), _either(fields, f"IPv4{where}-Port")
            if address and port:
                found += [(one, int(port)) for one in address.split()]
        return found


def _either(fields: Fields, name: str) -> str | None:
    plain, other = get(fields, name), get(fields, backward(name))
    return plain if other is None else backward(other)


def transport_response(addresses: Addresses | None, nonce: str = NO_NONCE) -> Fields:
    """The body that says where to connect to, or that nobody listens."""
    head = (("Bridge", "TCPv1"), ("Listening", str(addresses is not None).lower()), ("Nonce", nonce))
    return (*head, *(addresses.fields() if addresses else ()))
