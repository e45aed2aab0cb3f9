"""SNAC: u16 family, u16 subtype, u16 flags, u32 request, perhaps an extra block, body; in a FLAP of
channel 2.

Flag 0x8000 announces the extra block, u16 length and as many bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from tests.oscar.flap import FLAP_SNAC, flap
from tests.oscar.values import WireError

EXTRA_BLOCK = 0x8000
HEADER = struct.Struct("!HHHI")

Kind = tuple[int, int]
"""(family, subtype)"""
FAMILY_LIST, SERVICE_REDIRECT, SELF_INFO = (1, 3), (1, 5), (1, 0x0F)
SERVICE_REQUEST, LOGIN = (1, 4), (0x17, 2)
MIGRATION, SET_STATUS = (1, 0x12), (1, 0x1E)
USER_INFO, BUDDY_ARRIVED, BUDDY_DEPARTED, LOGIN_REPLY = (2, 6), (3, 0x0B), (3, 0x0C), (0x17, 3)
ICBM_FAILED, TO_HOST, TO_CLIENT, CLIENT_ERROR = (4, 1), (4, 6), (4, 7), (4, 0x0B)


def kind_of(frame: bytes) -> Kind | None:
    """(family, subtype) of a frame of channel 2 that has a whole SNAC header."""
    if frame[:2] != b"\x2a\x02" or len(frame) < 16:
        return None
    return int.from_bytes(frame[6:8], "big"), int.from_bytes(frame[8:10], "big")


def body_of(frame: bytes) -> int:
    """Where the body of a frame's SNAC begins, behind the extra block, even if that overruns."""
    if len(frame) >= 18 and frame[10] & 0x80:
        return 18 + int.from_bytes(frame[16:18], "big")
    return 16


def snac_frame(
    kind: Kind, body: bytes = b"", *, number: int = 1, request: int = 0x77, flags: int = 0, extra: bytes = b""
) -> bytes:
    """A frame with these bytes behind the SNAC's header. *extra* is a whole extra block, with its length, and
    sets the flag; the flag alone makes the body's first bytes one."""
    head = HEADER.pack(*kind, flags | (EXTRA_BLOCK if extra else 0), request)
    return flap(FLAP_SNAC, number, head + extra + body)


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
    def kind(self) -> Kind:
        """(family, subtype)."""
        return self.family, self.subtype

    def encode(self) -> bytes:
        """Bytes of a FLAP channel 2 frame's data."""
        head = HEADER.pack(self.family, self.subtype, self.flags, self.request)
        if self.flags & EXTRA_BLOCK:
            head += struct.pack("!H", len(self.extra)) + self.extra
        return head + self.body

    @classmethod
    def decode(cls, data: bytes) -> Snac:
        """Inverse of :meth:`encode`."""
        if len(data) < HEADER.size:
            raise WireError("SNAC shorter than its header")
        family, subtype, flags, request = HEADER.unpack_from(data)
        offset, extra = HEADER.size, b""
        if flags & EXTRA_BLOCK:
            if len(data) < 12:
                raise WireError("no room for the extra block")
            (length,) = struct.unpack_from("!H", data, 10)
            offset = 12 + length
            extra = data[12:offset]
            if len(extra) != length:
                raise WireError("extra block overruns")
        return cls(family, subtype, data[offset:], request, flags, extra)
