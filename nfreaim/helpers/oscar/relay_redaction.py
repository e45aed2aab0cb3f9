"""Which bytes of ICQ's own messages may stay in a copy: lengths, kinds, GUIDs, addresses and ports.

The layouts are those of layers/oscar_icq.py: ReverseConnect, and RelayMessage with what stands in its rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from nfreaim.layers.oscar_icq import PLUGIN_CHAT, PLUGIN_FILE, RELAY_BEGIN, RelayType

Range = tuple[int, int]
"""From the first byte of a frame that stays to behind the last."""

_REVERSE: Final = 27
_UIN: Final = 4


class _Walk:
    """Walks through [at, end) of a frame. Raises ValueError where it overruns."""

    def __init__(self, frame: bytes, at: int, end: int) -> None:
        self._frame, self.at, self._end = frame, at, end
        self.ranges: list[Range] = []

    def stays(self, size: int) -> int:
        """The next *size* bytes stay; returns them as a little-endian number."""
        start = self.at
        self.passes(size)
        self.ranges.append((start, self.at))
        return int.from_bytes(self._frame[start : self.at], "little")

    def passes(self, size: int) -> None:
        """The next *size* bytes are overwritten."""
        self.at += size
        if self.at > self._end:
            raise ValueError("a field overruns its message")

    @property
    def left(self) -> int:
        """How many bytes follow."""
        return self._end - self.at


def reverse_ranges(at: int, end: int) -> Iterator[Range]:
    """A ReverseConnect in [at, end): all but the number of its sender and that of the connection."""
    if end - at == _REVERSE:
        yield at + _UIN, end - 4


def relay_ranges(frame: bytes, at: int, end: int) -> Iterator[Range]:
    """A type-2 message in [at, end); nothing stays of what is none, or contradicts its lengths."""
    if frame[at : at + 2] != RELAY_BEGIN:
        return
    walk = _Walk(frame, at, end)
    try:
        walk.stays(walk.stays(2))
        walk.stays(walk.stays(2))
        kind = walk.stays(1)
        walk.stays(5)  # flags, status, priority
        walk.passes(walk.stays(2))
        _rest(walk, frame, kind)
    except ValueError:
        return
    yield from walk.ranges


def _rest(walk: _Walk, frame: bytes, kind: int) -> None:
    chat = kind == RelayType.CHAT
    if kind == RelayType.PLUGIN:
        size = walk.stays(2)
        guid = frame[walk.at : walk.at + 16]
        walk.stays(16)
        walk.passes(max(size - 16, 0))
        walk.stays(4)
        walk.passes(walk.stays(4))
        if guid not in (PLUGIN_FILE, PLUGIN_CHAT):
            return
        chat = guid == PLUGIN_CHAT
    elif kind == RelayType.FILE:
        walk.passes(walk.stays(2))
    elif not chat:
        return
    if chat:
        walk.passes(walk.stays(2))
        walk.stays(4)
        walk.stays(walk.left if walk.left == 4 else 0)
    else:
        walk.stays(4)
        walk.passes(walk.stays(2))
        walk.stays(4)
        walk.stays(walk.left if walk.left == 4 else 0)
