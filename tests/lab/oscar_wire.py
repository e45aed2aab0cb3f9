"""FLAP, SNAC, TLV and rendezvous blocks as plain bytes, for the stand-ins only.

Independent of ``nfreaim`` on purpose: a mistake made there must not be repeated here and so go unseen.
Nothing in this module does I/O, and nothing is tolerant: what does not parse raises :class:`WireError`.

All integers are big-endian. Layouts and orders as recorded from libpurple 2.12.1 and open-oscar-server
v0.24.0.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field

Tlv = tuple[int, bytes]

FLAP_SIGNON, FLAP_SNAC, FLAP_SIGNOFF, FLAP_KEEPALIVE = 1, 2, 4, 5
EXTRA_BLOCK = 0x8000  # SNAC flag: a length-prefixed block stands between header and body

PROPOSE, CANCEL, ACCEPT = 0, 1, 2
RDV_IP, REQUESTER_IP, VERIFIED_IP, PORT, SEQUENCE = 0x0002, 0x0003, 0x0004, 0x0005, 0x000A
CANCEL_REASON, HOST_CHECK, USE_RELAY, COUNTER_REASON = 0x000B, 0x000F, 0x0010, 0x0014
IP_CHECK, PORT_CHECK, SERVICE_DATA = 0x0016, 0x0017, 0x2711
ICBM_ACK, ICBM_RDV = 0x0003, 0x0005  # outer TLVs: ask the server for (04,0C); the rendezvous block


class WireError(ValueError):
    """The bytes are not what their framing promises."""


def capability(short: int) -> bytes:
    """The 16 bytes of ``0946xxxx-4C7F-11D1-8222-444553540000``."""
    return struct.pack("!HH", 0x0946, short) + bytes.fromhex("4c7f11d18222444553540000")


SEND_FILE = capability(0x1343)
DIRECT_IM = capability(0x1345)


def ip4(text: str) -> bytes:
    """Four bytes of a dotted address."""
    return ipaddress.IPv4Address(text).packed


def ip_text(raw: bytes) -> str:
    """Dotted form of four bytes."""
    return str(ipaddress.IPv4Address(raw))


# --- FLAP ----------


def flap(channel: int, sequence: int, data: bytes = b"") -> bytes:
    """``2A``, u8 channel, u16 sequence, u16 length, data."""
    return struct.pack("!BBHH", 0x2A, channel, sequence & 0xFFFF, len(data)) + data


class FlapReader:
    """Cuts a byte stream into FLAP frames, however it arrives."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> list[tuple[int, int, bytes]]:
        """Take bytes; return the frames now complete as (channel, sequence, data)."""
        self._buffer += data
        frames = []
        while len(self._buffer) >= 6:
            start, channel, sequence, length = struct.unpack_from("!BBHH", self._buffer)
            if start != 0x2A or not 1 <= channel <= 5:
                raise WireError(f"not a FLAP header: {self._buffer[:6].hex()}")
            if len(self._buffer) < 6 + length:
                break
            frames.append((channel, sequence, self._buffer[6 : 6 + length]))
            self._buffer = self._buffer[6 + length :]
        return frames


# --- SNAC and TLV ----------


@dataclass(frozen=True)
class Snac:
    """One SNAC; ``extra`` is the block announced by flag 0x8000, without its length."""

    family: int
    subtype: int
    body: bytes = b""
    request: int = 0
    flags: int = 0
    extra: bytes = b""

    @property
    def kind(self) -> tuple[int, int]:
        """(family, subtype)."""
        return self.family, self.subtype

    def encode(self) -> bytes:
        """Bytes of a FLAP channel 2 frame's data."""
        head = struct.pack("!HHHI", self.family, self.subtype, self.flags, self.request)
        if self.flags & EXTRA_BLOCK:
            head += struct.pack("!H", len(self.extra)) + self.extra
        return head + self.body

    @classmethod
    def decode(cls, data: bytes) -> Snac:
        """Inverse of :meth:`encode`."""
        if len(data) < 10:
            raise WireError("SNAC shorter than its header")
        family, subtype, flags, request = struct.unpack_from("!HHHI", data)
        offset, extra = 10, b""
        if flags & EXTRA_BLOCK:
            if len(data) < 12:
                raise WireError("no room for the extra block")
            (length,) = struct.unpack_from("!H", data, 10)
            offset = 12 + length
            extra = data[12:offset]
            if len(extra) != length:
                raise WireError("extra block overruns")
        return cls(family, subtype, data[offset:], request, flags, extra)


def tlv(kind: int, value: bytes = b"") -> bytes:
    """u16 type, u16 length, value."""
    return struct.pack("!HH", kind, len(value)) + value


def tlvs(items: Iterable[Tlv]) -> bytes:
    """Several TLVs in the order given."""
    return b"".join(tlv(kind, value) for kind, value in items)


def parse_tlvs(data: bytes, count: int | None = None) -> tuple[list[Tlv], bytes]:
    """Read *count* TLVs, or all to the end; return them and what is left."""
    items: list[Tlv] = []
    while data if count is None else len(items) < count:
        if len(data) < 4:
            raise WireError("TLV header cut off")
        kind, length = struct.unpack_from("!HH", data)
        if len(data) < 4 + length:
            raise WireError(f"TLV {kind:#06x} overruns")
        items.append((kind, data[4 : 4 + length]))
        data = data[4 + length :]
    return items, data


def first(items: Iterable[Tlv], kind: int) -> bytes | None:
    """Value of the first TLV of that type (libpurple's choice where a type occurs twice)."""
    return next((value for k, value in items if k == kind), None)


def name8(name: str) -> bytes:
    """u8 length and the name."""
    return bytes([len(name)]) + name.encode("ascii")


def take_name8(data: bytes) -> tuple[str, bytes]:
    """Inverse of :func:`name8`; also returns the rest."""
    if not data or len(data) < 1 + data[0]:
        raise WireError("name cut off")
    return data[1 : 1 + data[0]].decode("ascii", "replace"), data[1 + data[0] :]


def user_info(name: str, items: list[Tlv], warning: int = 0) -> bytes:
    """u8 name length, name, u16 warning level, u16 count, TLVs."""
    return name8(name) + struct.pack("!HH", warning, len(items)) + tlvs(items)


def take_user_info(data: bytes) -> tuple[str, list[Tlv], bytes]:
    """Name, TLVs and what follows the block; the count is the only delimiter."""
    name, rest = take_name8(data)
    if len(rest) < 4:
        raise WireError("user info cut off")
    items, rest = parse_tlvs(rest[4:], struct.unpack_from("!H", rest, 2)[0])
    return name, items, rest


# --- ICBM and rendezvous ----------


@dataclass(frozen=True)
class Rendezvous:
    """Value of the outer TLV 0x0005 of a channel 2 ICBM: u16 type, cookie[8], capability[16], TLVs."""

    kind: int
    cookie: bytes
    capability: bytes
    tlvs: list[Tlv] = field(default_factory=list)

    def encode(self) -> bytes:
        """The block's bytes."""
        return struct.pack("!H8s16s", self.kind, self.cookie, self.capability) + tlvs(self.tlvs)

    @classmethod
    def decode(cls, data: bytes) -> Rendezvous:
        """Inverse of :meth:`encode`."""
        if len(data) < 26:
            raise WireError("rendezvous block cut off")
        kind, cookie, cap = struct.unpack_from("!H8s16s", data)
        return cls(kind, cookie, cap, parse_tlvs(data[26:])[0])

    def get(self, kind: int) -> bytes | None:
        """Value of the first inner TLV of that type."""
        return first(self.tlvs, kind)

    def address(self, kind: int) -> str | None:
        """An inner TLV of four bytes as a dotted address."""
        value = self.get(kind)
        return ip_text(value) if value is not None and len(value) == 4 else None

    def number(self, kind: int) -> int:
        """An inner TLV of two bytes as a number; 0 where it is absent or of another length."""
        value = self.get(kind)
        return int.from_bytes(value) if value is not None and len(value) == 2 else 0


def icbm_to_server(cookie: bytes, channel: int, to: str, outer: list[Tlv]) -> bytes:
    """Body of SNAC(04,06): cookie[8], u16 channel, u8 length, recipient, outer TLVs."""
    return struct.pack("!8sH", cookie, channel) + name8(to) + tlvs(outer)


def icbm_to_client(cookie: bytes, channel: int, sender_info: bytes, outer: list[Tlv]) -> bytes:
    """Body of SNAC(04,07): cookie[8], u16 channel, the sender's user info, outer TLVs."""
    return struct.pack("!8sH", cookie, channel) + sender_info + tlvs(outer)


@dataclass(frozen=True)
class Icbm:
    """A message as read: *name* is the recipient in SNAC(04,06) and the sender in SNAC(04,07)."""

    cookie: bytes
    channel: int
    name: str
    outer: list[Tlv]
    info: list[Tlv] = field(default_factory=list)

    def rendezvous(self) -> Rendezvous | None:
        """The rendezvous block of a channel 2 message, if it has one."""
        block = first(self.outer, ICBM_RDV) if self.channel == 2 else None
        return None if block is None else Rendezvous.decode(block)


def parse_icbm(snac: Snac) -> Icbm:
    """Read SNAC(04,06) or SNAC(04,07)."""
    if len(snac.body) < 11:
        raise WireError("ICBM cut off")
    cookie, channel = struct.unpack_from("!8sH", snac.body)
    info: list[Tlv] = []
    if snac.subtype == 6:
        name, rest = take_name8(snac.body[10:])
    else:
        name, info, rest = take_user_info(snac.body[10:])
    return Icbm(cookie, channel, name, parse_tlvs(rest)[0], info)


def client_error(cookie: bytes, name: str, code: int) -> bytes:
    """Body of SNAC(04,0B) that refuses a rendezvous: cookie, u16 channel, name, u16 reason 3, ``00 02``,
    u16 code."""
    return struct.pack("!8sH", cookie, 2) + name8(name) + struct.pack("!HHH", 3, 2, code)
