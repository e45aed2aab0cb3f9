"""The headers of peer links: OFT2 for files, ODC2 for direct IM. As recorded from libpurple 2.12.1."""

from __future__ import annotations

import struct
from dataclasses import dataclass

PROMPT, ACK, DONE = 0x0101, 0x0202, 0x0204
CONFIRM = 0x60
"""Flags of libpurple's first ODC2 frame."""
EMPTY_CHECKSUM = 0xFFFF0000
ODC_HEAD = b"ODC2\x00\x4c"
ODC_SIZE = 76


def oft_checksum(data: bytes) -> int:
    """OFT2's file checksum: subtract each byte (times 256 at even positions), carrying the borrow; in the
    top half."""
    total = 0xFFFF
    for position, byte in enumerate(data):
        before = total
        total = (total - (byte if position & 1 else byte << 8)) & 0xFFFFFFFF
        if total > before:
            total = (total - 1) & 0xFFFFFFFF
    for _ in range(2):
        total = (total & 0xFFFF) + (total >> 16)
    return (total << 16) & 0xFFFFFFFF


def oft(
    kind: int, cookie: bytes = bytes(8), fields: bytes = b"", *, magic: bytes = b"OFT2", length: int = 256
) -> bytes:
    """``OFT2``, u16 length, u16 type, cookie[8], and *fields* with zeros behind them."""
    return (magic + struct.pack("!HH", length, kind) + cookie + fields).ljust(length, b"\0")


def oft_header(
    kind: int,
    cookie: bytes,
    size: int,
    checksum: int,
    name: str,
    received: int = 0,
    received_sum: int = EMPTY_CHECKSUM,
) -> bytes:
    """256 bytes, whose fields are counts, sizes, checksums, "Cool FileXfer", file name[64]."""
    head = struct.pack("!HHHHHH", 0, 0, 1, 1, 1, 1) + struct.pack("!IIII", size, size, 0, checksum)
    head += struct.pack("!IIII", EMPTY_CHECKSUM, 0, 0, EMPTY_CHECKSUM)
    head += struct.pack("!II", received, received_sum) + b"Cool FileXfer".ljust(32, b"\0")
    return oft(kind, cookie, head + bytes(3 + 69 + 16 + 4) + name.encode().ljust(64, b"\0"))


@dataclass(frozen=True)
class OftHeader:
    """The fields of an OFT2 header that matter here."""

    kind: int
    cookie: bytes
    size: int
    checksum: int
    received: int
    received_sum: int
    name: str

    @classmethod
    def decode(cls, head: bytes) -> OftHeader:
        """Read a whole header."""
        kind, cookie = struct.unpack_from("!H8s", head, 6)
        size, _, checksum = struct.unpack_from("!III", head, 32)
        received, received_sum = struct.unpack_from("!II", head, 60)
        name = head[192:].split(b"\0", 1)[0].decode("ascii", "replace")
        return cls(kind, cookie, size, checksum, received, received_sum, name)


def odc_frame(cookie: bytes, name: str = "", payload: bytes = b"", flags: int = 0) -> bytes:
    """76 bytes ("ODC2", u16 length, 1, 6, cookie[8], u32 payload length, charset, u32 flags, name[32]) and
    payload."""
    head = ODC_HEAD + struct.pack("!HHH8s8xI", 1, 6, 0, cookie, len(payload))
    return head + struct.pack("!HHI4x", 0, 0, flags) + name.encode().ljust(32, b"\0") + payload


def odc_fields(head: bytes) -> tuple[bytes, int, int]:
    """Cookie, flags and payload length of an ODC2 header."""
    (length,) = struct.unpack_from("!I", head, 28)
    (flags,) = struct.unpack_from("!I", head, 36)
    return head[12:20], flags, length
