"""What is told of a file at its sender's own web server: the service, the URL, and the peer's request.

The URL is ``http://<address>[:<port>]/Messenger.<user>.<file>``; without a port it means 80. Who was offered
the file connects there and asks for the URL's path by GET, or by HEAD and then, in another connection, by GET
(libpurple 2.10.9; YM 5 and 6 by a published description).
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address
from typing import Final, NamedTuple

from nfreaim.core.address import Endpoint
from nfreaim.core.greeting import Field, Greeting

SERVICE: Final = "yahoo-file"
WEB_PORT: Final = 80
OTHER_MESSAGES: Final = {
    "yahoo_peer_links": "messages about peer links (0x4F, and 0x4D with an address), which stay as they are",
    "yahoo_negotiations": "messages about files of later clients (0xDC to 0xDE), which stay as they are",
    "yahoo_relays": "of these, those that name a relay",
    "yahoo_uploads": "announcements of files that were uploaded to a server, which stay as they are",
}
"""Counters of messages that stay as they are, and what each counts."""

_URL: Final = re.compile(
    rb"(?P<scheme>http://)(?P<address>[0-9]{1,3}(?:\.[0-9]{1,3}){3})(?::(?P<port>[1-9][0-9]{0,4}))?(?P<path>/.*+)",
    re.IGNORECASE | re.DOTALL,
)
# Bytes that everybody writes into a request as they stand in the URL. Others may get percent signs, from the
# client or on the way: earlier versions of Escargot did so with all others of the file's name. A query is no
# part of that.
_PLAIN: Final = re.compile(rb"[A-Za-z0-9._/-]*+(?:\?[A-Za-z0-9._/=&-]*+)?")
_METHODS: Final = b"GET ", b"HEAD "
_LONGEST: Final = 200  # bytes of a path that are compared: each waiting connection keeps as many

GREETINGS: Final[tuple[Greeting, ...]] = tuple(
    (Field(0, frozenset({method + b"/M", method + b"/m"})), Field(len(method) + 2, frozenset({b"essenger"})))
    for method in _METHODS
)
"""What a peer may ask for where the path is not known: after a restart."""


class Location(NamedTuple):
    """Where a URL leads. Its address, and port if it has one, are its bytes [start, end)."""

    endpoint: Endpoint
    path: bytes
    start: int
    end: int

    def naming(self, endpoint: Endpoint) -> bytes:
        """The bytes that name *endpoint* in place of these."""
        port = b"" if endpoint.port == WEB_PORT else b":%d" % endpoint.port
        return endpoint.address.encode() + port


def location(url: bytes) -> Location | None:
    """Where *url* leads, if it has the form above; None for names, other schemes and numbers with zeros."""
    found = _URL.fullmatch(url)
    if found is None:
        return None
    try:
        address = str(IPv4Address(found["address"].decode()))
    except AddressValueError:
        return None
    port = int(found["port"] or WEB_PORT)
    if port > 0xFFFF:
        return None
    end = found.end("address") if found["port"] is None else found.end("port")
    return Location(Endpoint(address, port), found["path"], found.start("address"), end)


def requests_of(path: bytes) -> tuple[Greeting, ...]:
    """The requests for *path*, as far as every client writes them alike; empty if that is not even a name."""
    plain = _PLAIN.match(path[:_LONGEST])
    same = plain[0] if plain else b""
    if len(same) < 2:
        return ()
    behind = frozenset({b" ", b"\r", b"\n"})
    return tuple(
        (
            Field(0, frozenset({method + same})),
            *([Field(len(method + same), behind)] if same == path else []),
        )
        for method in _METHODS
    )
