"""Slot: where one packet record lies in a capture file; and what is wrong with one that is damaged.

The readers of the two formats (classic, pcapng) share it. Nothing here reads a file.
"""

from __future__ import annotations

from typing import Final, NamedTuple

MAX_FRAME: Final = 262_144  # libpcap and Wireshark refuse longer frames: the length field is damaged


class Slot(NamedTuple):
    """Where one packet record lies in the file, and what it says."""

    start: int
    end: int
    at: int
    size: int
    length: int
    time: float
    link: int


class Damaged(Exception):
    """`Damaged(offset, cause)`: the bytes at `offset` are not what the format demands."""


class CutShort(Damaged):
    """The file ends inside the record at `offset`."""


def wire_length(slot: Slot, data: bytes) -> int:
    """A frame cut to a snapshot length keeps its missing tail."""
    if len(data) == slot.size:
        return slot.length
    return min(max(slot.length + len(data) - slot.size, len(data)), 0xFFFF_FFFF)
