"""The first bytes of a peer on a peer link, by service: OFT2 for files, ODC2 for direct IMs.

File transfer: a header of 256 bytes or more, "OFT2" (or "OFT3": the same with sizes of 64 bits), u16 length
of the header, u16 type, cookie[8], counts, sizes, name. The sender of the file speaks first, with a prompt,
whichever side opened the connection. The receiver's first message is an ack, "done" (it has the file already)
or "resume". Recorded from libpurple 2.12.1 and in public captures of AIM. The cookie cannot be verified: in
prompts of libpurple and Miranda it is zero, in those of AIM it is not.

Get File uses the same header with types of its own; which side speaks first depends on the client.

Direct IM: a header of 76 bytes, "ODC2", u16 76, u16 type 1, u16 subtype, u16 0, cookie[8] and more. The side
that opened the connection speaks first. A libpurple 2.12.1 that listens closes the connection if the cookie
is not that of the proposal, so every client that worked with it sends that cookie.

ICQ's direct connections, and the chats and files of their kind: the side that opened the connection begins
with a frame, u16 little-endian length (48 in version 7 and later, less before), FF, u16 version. From the
sources of climm and Licq. Versions 2 (ICQ 97) to 11 are known.

TLS: a handshake record, 16 03, u8 minor version, u16 length, with a ClientHello (1), or a ServerHello (2) if
the side that connected is TLS's server. Peers of any other TLS service begin so, too.
"""

from __future__ import annotations

from typing import Final, Literal

from nfreaim.core.address import Endpoint
from nfreaim.core.greeting import Field, Greeting
from nfreaim.core.helper import ANY_PORT, Expectation, Nat

_SERVICES: Final = ("send-file", "get-file", "direct-im")

Party = Literal["sender", "receiver"]
"""The part of the outside peer in the transfer of a file."""

_OFT: Final = Field(0, frozenset({b"OFT2", b"OFT3"}))
# A name of more than 63 bytes makes the header longer than 256. No header of 2 KiB or more has been seen.
_OFT_LENGTH: Final = Field(4, frozenset(bytes([high]) for high in range(1, 8)))
_PROMPT: Final = frozenset({b"\x01\x01"})
_FROM_RECEIVER: Final = frozenset({b"\x02\x02", b"\x02\x04", b"\x02\x05"})
# Listing requested, sent, received, acknowledged; file, directory requested; then the types of a transfer.
_GET_FILE: Final = frozenset(
    {b"\x11\x08", b"\x12\x09", b"\x12\x0a", b"\x12\x0b", b"\x12\x0c", b"\x12\x0e"} | _PROMPT | _FROM_RECEIVER
)
_ODC: Final = Field(0, frozenset({b"ODC2\x00\x4c\x00\x01"}))
_ODC_COOKIE: Final = 12
_ICQ: Final = (
    Field(0, frozenset(bytes([size]) for size in range(0x14, 0x41))),
    Field(1, frozenset({b"\0\xff"})),
    Field(3, frozenset(bytes([version]) for version in range(2, 12))),
    Field(4, frozenset({b"\0"})),
)
_ICQ_SERVICES: Final = frozenset({"icq-direct", "icq-reverse", "icq-relay"})

TLS: Final = "tls"
"""The name that Expectation.unverified has with ``TLS_GREETINGS``."""

TLS_GREETINGS: Final[tuple[Greeting, ...]] = (
    (
        Field(0, frozenset({b"\x16\x03"})),
        Field(2, frozenset(bytes([minor]) for minor in range(5))),
        Field(5, frozenset({b"\1", b"\2"})),
    ),
)
"""The greetings of a peer on a link that will be TLS."""


def greetings(service: str, cookie: bytes | None = None, peer: Party | None = None) -> tuple[Greeting, ...]:
    """The greetings of a peer on a link for *service*; empty if they are not known, so nothing is verified.

    cookie  of the agreement (8 bytes); None if it is not known, so any cookie passes
    peer    whether the peer sends or receives the file; None if it is not known
    """
    if service == "send-file":
        types = {"sender": _PROMPT, "receiver": _FROM_RECEIVER, None: _PROMPT | _FROM_RECEIVER}[peer]
        return ((_OFT, _OFT_LENGTH, Field(6, types)),)
    if service == "get-file":
        return ((_OFT, _OFT_LENGTH, Field(6, _GET_FILE)),)
    if service == "direct-im":
        named = () if cookie is None else (Field(_ODC_COOKIE, frozenset({cookie})),)
        return ((_ODC, *named),)
    if service in _ICQ_SERVICES:
        return (_ICQ,)
    return ()


def offer_anything(nat: Nat) -> None:
    """A message could not be read, by which its sender may have offered each of the services to a peer."""
    unknown = Endpoint(nat.inside.address, ANY_PORT)
    for name in _SERVICES:
        nat.offered(Expectation(name.encode(), name, unknown, greetings=greetings(name)))
