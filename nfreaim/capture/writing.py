"""Writes a capture as pcapng (draft-ietf-opsawg-pcapng): packets from the IPv4 header on, by interface."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import BinaryIO, Final

from nfreaim.capture.pcapng import SHB_MAGIC

_RAW: Final = 101  # LINKTYPE_RAW
_ORDER: Final = b"\x4d\x3c\x2b\x1a"
_INTERFACE, _PACKET = 1, 6  # types of blocks
_NAME, _RESOLUTION, _END = 2, 9, 0  # options of an interface
_NANOSECONDS: Final = 9


class Writer:
    """Writes to *file*; *size*: bytes so far. Raises OSError as *file* does."""

    def __init__(self, file: BinaryIO, interfaces: Sequence[str] = ()) -> None:
        self._file, self.size = file, 0
        self._interfaces = 0
        self._write(SHB_MAGIC, _ORDER + struct.pack("<HHq", 1, 0, -1))
        for name in interfaces:
            self.interface(name)

    def interface(self, name: str) -> int:
        """Describe an interface; returns its number."""
        text = name.encode()
        options = struct.pack("<HH", _NAME, len(text)) + _padded(text)
        options += struct.pack("<HHB3xHH", _RESOLUTION, 1, _NANOSECONDS, _END, 0)
        self._write(struct.pack("<I", _INTERFACE), struct.pack("<HHI", _RAW, 0, 0) + options)
        self._interfaces += 1
        return self._interfaces - 1

    def packet(self, time: float, interface: int, raw: bytes) -> None:
        """Write one packet, seen at *time*, in seconds since the epoch; its end may be missing."""
        stamp, length = round(time * 10**9), int.from_bytes(raw[2:4], "big")
        head = struct.pack("<IIIII", interface, stamp >> 32, stamp & 0xFFFFFFFF, len(raw), length)
        self._write(struct.pack("<I", _PACKET), head + _padded(raw))

    def _write(self, kind: bytes, body: bytes) -> None:
        length = struct.pack("<I", len(body) + 12)
        self._file.write(kind + length + body + length)
        self.size += len(body) + 12


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
