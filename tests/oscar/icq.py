"""ICQ's direct connections: the published endpoint, the request to call back, and ports in type-2 messages.

Addresses are in network order; what stands in a type-2 message is little-endian, but the first of its ports.
After the sources of climm and Licq.
"""

from __future__ import annotations

import struct

from tests.golden import load
from tests.oscar.icbm import RENDEZVOUS, icbm_to_client
from tests.oscar.snac import TO_CLIENT, snac_frame
from tests.oscar.tlv import name8, tlv, user_info
from tests.oscar.values import WireError, u16

UIN = b"100003"
STATUS, ARRIVAL = load()["icq-status"].data, load()["icq-buddy-arrival"].data
REVERSE, FILE_ACK = load()["icq-reverse-connect"].data, load()["icq-file-ack"].data

EXTERNAL, DIRECT_INFO = 0x000A, 0x000C
"""TLVs of user info: the address that the server sees, and the block that the client published."""
DIRECT = struct.Struct("!4sIBHIII14x")
CALL_BACK = struct.Struct("<I4sIBIIHI")
CHAT_PLUGIN = bytes.fromhex("bff720b2378ed411bd280004ac96d905")
FILE_PLUGIN = bytes.fromhex("f02d12d93091d3118dd700104b06462e")
CHAT, FILE, PLUGIN = 2, 3, 0x1A
"""Types of type-2 messages."""
_RELAY_HEAD = struct.pack("<HH16xHIBH", 27, 8, 0, 3, 0, 0xFFFE) + struct.pack("<HH12x", 14, 0xFFFE)


def direct(address: bytes, port: int = 4001, kind: int = 4, cookie: int = 0x11223344) -> bytes:
    """TLV 0x000C: address, u32 port, u8 kind (0 none, 4 direct), u16 version, u32 cookie, u32 web port, u32
    features, zeros."""
    return DIRECT.pack(address, port, kind, 8, cookie, 0x50, 3)


def set_status(*infos: bytes) -> bytes:
    """Body of SNAC(01,1E)."""
    return tlv(6, bytes(4)) + b"".join(tlv(DIRECT_INFO, info) for info in infos)


def user(*items: bytes, name: bytes = UIN) -> bytes:
    """User info with these TLVs."""
    return user_info(name, *items)


def call_back(uin: int, address: bytes, port: int, failed: int = 0, again: int | None = None) -> bytes:
    """TLV 0x2711 of capability 1344: UIN, address, u32 port, u8 kind, u32 port that failed, u32 port again,
    u16 version, u32 request."""
    return CALL_BACK.pack(uin, address, port, 4, failed, port if again is None else again, 8, 0x101)


def text16(text: bytes) -> bytes:
    """u16 length, text, NUL, which is counted."""
    return struct.pack("<H", len(text) + 1) + text + b"\0"


def type2(kind: int, rest: bytes, status: int = 0) -> bytes:
    """TLV 0x2711 of capability 1349: two blocks with their lengths, u8 type, u8 flags, u16 status, u16
    priority, an empty text, and what the type has behind that. Status 1 refuses."""
    return _RELAY_HEAD + struct.pack("<BBHH", kind, 0, status, 0) + text16(b"") + rest


def chat_ports(port: int, twice: bool = True, nick: bytes = UIN) -> bytes:
    """The end of a chat request: nick, u16 big-endian port, u16 zero, u32 port again, which may be absent."""
    return text16(nick) + u16(port) + bytes(2) + (port.to_bytes(4, "little") if twice else b"")


def file_ports(port: int, name: bytes = b"a") -> bytes:
    """The end of a file request: description, u16 big-endian port, u16 zero, name, u32 size, u32 port."""
    return text16(b"") + u16(port) + bytes(2) + text16(name) + bytes(4) + port.to_bytes(4, "little")


def chat_request(port: int, *, plugin: bool = True, twice: bool = True) -> bytes:
    """A type-2 message that offers a chat: as a type of its own, or as a plug-in with GUID, title, reason."""
    if not plugin:
        return type2(CHAT, chat_ports(port, twice))
    title = struct.pack("<HI", 0, 21) + b"Send / Start ICQ Chat" + bytes(15)
    tail = struct.pack("<I", 2) + b"hi" + chat_ports(port, twice)
    head = struct.pack("<H", 16 + len(title)) + CHAT_PLUGIN + title
    return type2(PLUGIN, head + struct.pack("<I", len(tail)) + tail)


def offered_port(data: bytes) -> int:
    """The port of a chat request that has it twice; WireError unless both encodings agree."""
    port, zero, again = int.from_bytes(data[-8:-6], "big"), *struct.unpack("<HI", data[-6:])
    if zero or port != again or not port:
        raise WireError(f"ports {port} and {again}")
    return int(port)


def received(frame: bytes, info: bytes) -> bytes:
    """SNAC(04,06) on channel 2, to a UIN of six digits, as the SNAC(04,07) that becomes of it; *info* is the
    sender's, behind its name."""
    assert frame[24:27] == b"\0\2\6"
    body = icbm_to_client(frame[16:24], RENDEZVOUS, name8(UIN) + info, frame[33:])
    return snac_frame(TO_CLIENT, body, number=0, request=0x8000_0000)
