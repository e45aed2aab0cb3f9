"""MSNSLP, the text by which two clients of MSN Messenger agree on a session and on a direct connection.

A start line (``INVITE MSNMSGR:...``, ``MSNSLP/1.0 200 OK``, ``BYE ...``), headers, a blank line, a body of
lines ``Name: value``, in a P2P frame with a NUL behind it. Addresses stand in the body of the content type
application/x-msnmsgr-transrespbody::

    IPv4External-Addrs: 203.0.113.1          several, with a blank between, are possible
    IPv4External-Port: 6891                  one for all, or one for each
    IPv4ExternalAddrsAndPorts: 203.0.113.1:6891

and the same with Internal; in pairs some clients name IPv6 addresses, too. Newer clients write name and value
backwards, each as a whole (``srddA-lanretxE4vPI: 1.311.0.302``). Content-Length counts the body with the NUL;
some clients write wrong ones.

Sources: libpurple 2.10.9 (slpcall.c, directconn.c), Miranda msn_p2p.cpp (055d446), msnp-sharp
P2PSession.DC.cs (2f4a4af), papyon SLP.py (e8cf62e); the backward form: a published session of WLM 2009
(CodeGate 2010).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv4Address, ip_address
from typing import Final, NamedTuple

from nfreaim.layers.msn_text import Lines, Place, Span, lines_of, port_of

FILE_GUID: Final = b"{5d3e02ab-6190-11d3-bbbb-00c04f795683}"
OBJECT_GUID: Final = b"{a4268eec-fec5-49e5-95c3-f126696bdbf6}"
"""EUF-GUIDs, in lower case: a file, and a display picture or other object."""

ENDS: Final = frozenset({b"603", b"500", b"481", b"BYE"})
"""Kinds of text that end what was agreed under their Call-ID."""

_START: Final = re.compile(
    rb"(?:(INVITE|BYE|ACK) MSNMSGR:[^\r\n]{1,400}|MSNSLP/1\.0 ([0-9]{3})[^\r\n]{0,80})\r\n", re.IGNORECASE
)
_TOKEN: Final = re.compile(rb"[^ ]+")
_MOST_ADDRESSES: Final = 8


class Text(NamedTuple):
    """An SLP text, read as bytes. Offsets are those of the text.

    kind     "INVITE", "200", "BYE" and so on, in upper case
    data     the text
    body_at  where the body begins
    """

    kind: bytes
    headers: Lines
    body: Lines
    data: bytes
    body_at: int

    @property
    def call(self) -> bytes:
        """The Call-ID."""
        return self.headers.value(b"call-id")

    def listens(self) -> bool:
        """Whether its sender says that it listens for a TCP connection."""
        body = self.body
        nonces = [name for name in (b"nonce", b"hashed-nonce") if name in body.spans]
        bridges = body.value(b"bridge") or body.value(b"bridges")
        content = self.headers.value(b"content-type").partition(b";")[0].strip()
        return (
            self.kind in (b"INVITE", b"200")
            and content == b"application/x-msnmsgr-transrespbody"
            and body.value(b"listening") == b"true"
            and b"tcpv1" in bridges.split()
            and len(nonces) == 1
            and body.value(nonces[0]) != b""
        )

    def length_span(self) -> Span | None:
        """Where the Content-Length stands, if it is right.

        A client that sends no NUL, over a notification server, counts one nevertheless; another may not
        count the one that it sends.
        """
        span = self.headers.spans.get(b"content-length")
        if span is None or not self.data[slice(*span)].isdigit() or span[1] - span[0] > 5:
            return None
        return span if abs(int(self.data[slice(*span)]) - (len(self.data) - self.body_at)) <= 1 else None


def text_of(data: bytes) -> Text | None:
    """The SLP text that *data* is, with or without a NUL behind it; None if it is none."""
    start = _START.match(data)
    if start is None:
        return None
    headers = lines_of(data, start.end())
    body_at = headers.end + 2
    if data[headers.end : body_at] != b"\r\n":
        return None
    return Text((start[1] or start[2]).upper(), headers, lines_of(data, body_at), data, body_at)


class Listed(NamedTuple):
    """An address with its port, where the text has them; both spans are the same in the combined form."""

    place: Place
    address_at: Span
    port_at: Span


class Addresses(NamedTuple):
    """The addresses of one side, External or Internal.

    backward  written backwards
    combined  as address:port
    shared    one port for several addresses
    """

    listed: tuple[Listed, ...]
    backward: bool
    combined: bool
    shared: bool

    def replaced(self, changed: Mapping[Place, Place]) -> list[tuple[Span, bytes]] | None:
        """What has to stand where so that each key of *changed* becomes its value; None if it cannot be said.

        That is so if a port that would change is another address's, too.
        """
        changes: dict[Span, bytes] = {}
        ports = {changed.get(one.place, one.place).port for one in self.listed}
        if self.shared and len(ports) > 1:
            return None
        for one in self.listed:
            after = changed.get(one.place)
            if after is not None and self.combined:
                changes[one.address_at] = self._written(str(after))
            elif after is not None:
                changes[one.address_at] = self._written(after.address)
                changes[one.port_at] = self._written(str(after.port))
        return sorted(changes.items())

    def _written(self, text: str) -> bytes:
        return (text[::-1] if self.backward else text).encode()


def addresses_of(text: Text, side: str) -> Addresses | None:
    """The addresses of *side*, "External" or "Internal", in the body of *text*; None if it has none.

    Raises ValueError if they are written in two ways, or cannot be read.
    """
    found = [
        one
        for backward in (False, True)
        for one in (_pair(text, side, backward), _combined(text, side, backward))
        if one is not None
    ]
    if len(found) > 1:
        raise ValueError("its addresses are written in two ways")
    return found[0] if found else None


def mixes_spellings(text: Text) -> bool:
    """Whether some names of addresses are written backwards and others are not."""
    names = [name for name in text.body.spans if b"ipv4" in name or b"4vpi" in name]
    return len({b"4vpi" in name for name in names}) > 1


def _named(name: str, backward: bool) -> bytes:
    return (name[::-1] if backward else name).lower().encode()


def _pair(text: Text, side: str, backward: bool) -> Addresses | None:
    names = [_named(f"IPv4{side}-{what}", backward) for what in ("Addrs", "Port")]
    if not any(name in text.body.spans for name in names):
        return None
    addresses, ports = (_tokens(text, name, backward) for name in names)
    if not addresses and not ports:
        return None
    if not addresses or len(ports) not in (1, len(addresses)):
        raise ValueError("its addresses and ports do not fit")
    shared = len(ports) < len(addresses)
    if shared:
        ports *= len(addresses)
    listed = tuple(
        Listed(Place(str(ip_address(one)), port_of(two)), at, behind)
        for (one, at), (two, behind) in zip(addresses, ports, strict=True)
    )
    return Addresses(listed, backward, combined=False, shared=shared)


def _combined(text: Text, side: str, backward: bool) -> Addresses | None:
    name = _named(f"IPv4{side}AddrsAndPorts", backward)
    if name not in text.body.spans:
        return None
    listed: list[Listed] = []
    for token, at in _tokens(text, name, backward):
        address, _, port = token.partition(":")
        listed.append(Listed(Place(str(IPv4Address(address)), port_of(port)), at, at))
    return Addresses(tuple(listed), backward, combined=True, shared=False) if listed else None


def _tokens(text: Text, name: bytes, backward: bool) -> list[tuple[str, Span]]:
    """The words of the line *name*, in the order in which they stand, forwards."""
    span = text.body.spans.get(name)
    if span is None:
        raise ValueError("an address line that is missing, or stands there twice")
    words = [(word[0], word.span()) for word in _TOKEN.finditer(text.data, *span)]
    if len(words) > _MOST_ADDRESSES:
        raise ValueError("too many addresses")
    return [(_forwards(word, backward), at) for word, at in words]


def _forwards(word: bytes, backward: bool) -> str:
    text = word.decode("ascii", "replace")
    return text[::-1] if backward else text
