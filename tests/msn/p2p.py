"""P2P frames within ``MSG`` payloads and on direct connections: headers of both versions, data, footer.

Version 1 has 48 bytes, little-endian; version 2 two headers of variable length, big-endian. Sources:
libpurple's p2p.c, msnp-sharp's P2PHeader.cs, Miranda's msn_p2p.cpp.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

from tests.msn.fields import Message, get, mime

P2P = "application/x-msnmsgrp2p"
FLAG_ACK, FLAG_FILE, FLAG_HANDSHAKE = 0x02, 0x01000030, 0x100
CHUNK = 1202
"""The most data in one frame, in bytes (libpurple)."""
FOOTER_TEXT, FOOTER_FILE = 0, 2
_V1 = struct.Struct("<IIQQIIIIQ")


@dataclass(frozen=True)
class Header:
    """Version 1.

    session    0 for SLP texts
    message    a counter of the sender's messages
    offset     of this frame's data in the message
    total      size of the whole message in bytes
    size       of the data in this frame, without footer
    ack        the sender's random number; in an acknowledgement the message that it acknowledges
    ack_unique in an acknowledgement the `ack` of what is acknowledged
    ack_total  in an acknowledgement the `total` of it
    """

    session: int = 0
    message: int = 0
    offset: int = 0
    total: int = 0
    size: int = 0
    flags: int = 0
    ack: int = 0
    ack_unique: int = 0
    ack_total: int = 0

    def encode(self) -> bytes:
        """48 bytes."""
        return _V1.pack(*vars(self).values())

    @classmethod
    def decode(cls, data: bytes) -> Header:
        """From the first 48 bytes; struct.error if there are fewer."""
        return cls(*_V1.unpack_from(data))

    def acknowledged(self, message: int) -> Header:
        """The header, number *message*, that acknowledges this one; libpurple writes the total twice."""
        return Header(self.session, message, 0, self.total, 0, FLAG_ACK, self.message, self.ack, self.total)


@dataclass(frozen=True)
class Frame:
    """A frame of version 1 on a switchboard."""

    to: str
    header: Header
    data: bytes = b""
    footer: int = FOOTER_TEXT

    def message(self) -> Message:
        """The payload of its ``MSG``."""
        body = self.header.encode() + self.data + self.footer.to_bytes(4, "big")
        return Message(mime(P2P, ("P2P-Dest", self.to)), body)

    @classmethod
    def of(cls, message: Message) -> Frame:
        """ValueError if it is none of this version."""
        to = get(message.headers, "P2P-Dest")
        if message.content_type != P2P or to is None or ";" in to or len(message.body) < 52:
            raise ValueError(f"no frame of version 1: {message.headers}")
        data = message.body[48:-4]
        return cls(to, Header.decode(message.body), data, int.from_bytes(message.body[-4:], "big"))


def frames(first: Header, content: bytes) -> list[tuple[Header, bytes]]:
    """A message in frames of CHUNK bytes."""
    made = []
    for at in range(0, max(1, len(content)), CHUNK):
        data = content[at : at + CHUNK]
        made.append((replace(first, offset=at, total=len(content), size=len(data)), data))
    return made


# --- version 2 ---

Tlvs = tuple[tuple[int, bytes], ...]


def _tlvs(items: Tlvs, fixed: int) -> bytes:
    """Items as they stand behind *fixed* bytes of a header, which they fill up to a multiple of four."""
    data = b"".join(bytes((kind, len(value))) + value for kind, value in items)
    return data + bytes(-(fixed + len(data)) % 4)


def _items(data: bytes) -> Tlvs:
    found = []
    while data and data[0]:
        kind, length = data[:2]
        found.append((kind, data[2 : 2 + length]))
        data = data[2 + length :]
    return tuple(found)


@dataclass(frozen=True)
class HeaderV2:
    """Version 2: transport header, and data header where there is data.

    operation  1 SYN, 2 RAK
    base       counts the sender's bytes: the next frame's is *base* + length of data header and data
    items      TLVs: 1 peer info, 2 acknowledged base, 3 refused base
    first      TF: 1 the message begins here, 4 an object, 6 a file
    """

    operation: int = 0
    base: int = 0
    items: Tlvs = ()
    first: int = 0
    package: int = 0
    session: int = 0
    data_items: Tlvs = ()

    def encode(self, data: bytes = b"") -> bytes:
        """Both headers and the data."""
        inner = b""
        if data:
            tail = _tlvs(self.data_items, 8)
            inner = struct.pack("!BBHI", 8 + len(tail), self.first, self.package, self.session) + tail + data
        outer = _tlvs(self.items, 8)
        return struct.pack("!BBHI", 8 + len(outer), self.operation, len(inner), self.base) + outer + inner

    @classmethod
    def decode(cls, frame: bytes) -> tuple[HeaderV2, bytes]:
        """The headers, and the data behind them without footer."""
        length, operation, inside, base = struct.unpack_from("!BBHI", frame)
        made = cls(operation, base, _items(frame[8:length]))
        if not inside:
            return made, b""
        inner = frame[length : length + inside]
        start, first, package, session = struct.unpack_from("!BBHI", inner)
        items = _items(inner[8:start])
        return replace(made, first=first, package=package, session=session, data_items=items), inner[start:]


@dataclass(frozen=True)
class FrameV2:
    """A frame of version 2 on a switchboard; *to* and *sender* are ``mail;{guid}``."""

    to: str
    sender: str
    header: HeaderV2
    data: bytes = b""
    footer: int = FOOTER_TEXT

    def message(self) -> Message:
        """The payload of its ``MSG``."""
        body = self.header.encode(self.data) + self.footer.to_bytes(4, "big")
        return Message(mime(P2P, ("P2P-Dest", self.to), ("P2P-Src", self.sender)), body)

    @classmethod
    def of(cls, message: Message) -> FrameV2:
        """ValueError if it is none of this version."""
        to, sender = get(message.headers, "P2P-Dest"), get(message.headers, "P2P-Src")
        if message.content_type != P2P or to is None or sender is None or ";" not in to:
            raise ValueError(f"no frame of version 2: {message.headers}")
        header, data = HeaderV2.decode(message.body[:-4])
        return cls(to, sender, header, data, int.from_bytes(message.body[-4:], "big"))
