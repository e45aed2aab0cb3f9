"""Slot: the position of one packet record in a capture file; and the exceptions for a damaged record.

The readers of the two formats, classic and pcapng, share them.
"""

from __future__ import annotations

from typing import Final, NamedTuple

MAX_FRAME: Final = 262_144  # libpcap and Wireshark refuse longer frames: the length field is damaged


class Slot(NamedTuple):
    """One packet record in the file.

    start, end  offsets of the whole record
    at, size    offset and number of the captured bytes
    length      number of bytes on the wire
    time, link  see Frame
    """

    start: int
    end: int
    at: int
    size: int
    length: int
    time: float
    link: int


class Damaged(Exception):
    """`Damaged(offset, cause)`: the bytes at *offset* contradict the format."""


class CutShort(Damaged):
    """The file ends inside the record at *offset*."""


def wire_length(slot: Slot, data: bytes) -> int:
    """The wire length of the frame in *slot* with the bytes *data*. A frame cut to a snapshot length stays
    cut by as many bytes."""
    if len(data) == slot.size:
        return slot.length
    return min(max(slot.length + len(data) - slot.size, len(data)), 0xFFFF_FFFF)
