"""The headers of P2P frames, in the payload of a MSG of MSN Messenger: versions 1 and 2.

Version 1 has a header of 48 bytes, little-endian: u32 session, u32 message, u64 offset, u64 total size, u32
size of this frame, u32 flags (2: acknowledgement), u32 acknowledged message, u32, u64 acknowledged size.
Version 2, big-endian: u8 length of the header, u8, u16 length of what follows it, u32 base, options; then,
if there is data, u8 length of the data header, u8 flags (1: first chunk), u16 package, u32 session, options
(1: bytes that remain). Behind the data of either version stands a footer of 4 bytes, 0 for signalling.

A sender speaks version 2 if the envelope's P2P-Dest has ``;{guid}`` behind the address, and the frame does
not begin with the session 0 of version 1.
Sources: Miranda msn_p2p.cpp (055d446), msnp-sharp P2PHeader.cs (2f4a4af), libpurple p2p.c (2.10.9).
"""

from __future__ import annotations

import re
import struct
from typing import Final, NamedTuple

_V1: Final = struct.Struct("<IIQQIIIIQ")
_V2: Final = struct.Struct(">BBHI")
_V2_DATA: Final = struct.Struct(">BBHI")
_FOOTER: Final = b"\0\0\0\0"
_ENVELOPE: Final = re.compile(rb"(?:\A|\n)P2P-Dest:[ \t]*+([^\r\n;]{1,320}+)(;\{)?", re.IGNORECASE)
_MORE: Final = 1  # the option of a data header that says how many bytes are still to come

TOTAL_AT: Final = 16
SIZE_AT: Final = 24
ACKED_AT: Final = 40
"""Offsets of sizes in a header of version 1; ACKED_AT is that of the acknowledged size."""


class Frame(NamedTuple):
    """A P2P frame that is all of one signalling message, or an acknowledgement of version 1.

    version   1 or 2
    to        the account that the envelope names, in lower case
    at        where in the payload its header begins
    start, end  where the data stand, in the payload; equal for an acknowledgement
    message   number of the message; of an acknowledgement, of that which it acknowledges
    total, size  of version 1, as the header has them; *size* is 0 in frames of some clients
    """

    version: int
    to: bytes
    at: int
    start: int
    end: int
    message: int
    total: int = 0
    size: int = 0

    @property
    def acknowledges(self) -> bool:
        """Whether it is an acknowledgement."""
        return self.start == self.end


def carries_data(payload: bytes, at: int) -> bool | None:
    """Whether the frame whose header begins at *at* carries a file and no signalling; None: not known yet.

    *payload* may lack its end. Of version 2 nothing is told.
    """
    found = _ENVELOPE.search(payload, 0, at)
    if found is None or found[2]:
        return None
    return any(payload[at : at + 4]) or None


def frame_of(payload: bytes, at: int) -> Frame | None:
    """The frame in *payload* whose header begins at *at*; None if it is none that may be edited.

    Raises ValueError if its sizes contradict each other.
    """
    found = _ENVELOPE.search(payload, 0, at)
    if found is None:
        return None
    to = found[1].strip().lower()
    second = found[2] and any(payload[at : at + 4])
    return _second(payload, at, to) if second else _first(payload, at, to)


def _first(payload: bytes, at: int, to: bytes) -> Frame | None:
    start = at + _V1.size
    if len(payload) < start + len(_FOOTER):
        return None
    session, message, offset, total, size, flags, acked, _, _ = _V1.unpack_from(payload, at)
    end = len(payload) - len(_FOOTER)
    if session or offset or payload[end:] != _FOOTER:
        return None
    if flags & 0xFF == 2:
        return Frame(1, to, at, end, end, acked, total, size) if start == end else None
    if (start < end and size not in (0, end - start)) or total < size:
        raise ValueError("its sizes contradict each other")
    if start == end or total != end - start:
        return None  # a piece of a message
    return Frame(1, to, at, start, end, message, total, size)


def _second(payload: bytes, at: int, to: bytes) -> Frame | None:
    if len(payload) < at + _V2.size + len(_FOOTER):
        return None
    head, _, size, _ = _V2.unpack_from(payload, at)
    inner, end = at + head, len(payload) - len(_FOOTER)
    if payload[end:] != _FOOTER or not size:
        return None
    if head < _V2.size or inner + size != end or size <= _V2_DATA.size:
        raise ValueError("its sizes contradict each other")
    header, flags, _, session = _V2_DATA.unpack_from(payload, inner)
    start = inner + header
    if session or flags != 1 or not _V2_DATA.size <= header < size:
        return None
    if _has_more(payload, inner + _V2_DATA.size, start):
        return None
    return Frame(2, to, at, start, end, 0)


def _has_more(payload: bytes, at: int, end: int) -> bool:
    """Whether the options in [at, end) say that more data follow, or are none."""
    while at < end and payload[at]:
        if at + 2 > end or payload[at] == _MORE:
            return True
        at += 2 + payload[at + 1]
    return at > end


def acked_sizes(payload: bytes, at: int) -> tuple[int, int]:
    """The total size and the acknowledged size in a header of version 1."""
    fields = _V1.unpack_from(payload, at)
    return fields[3], fields[8]
