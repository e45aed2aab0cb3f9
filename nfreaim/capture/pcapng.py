"""Blocks: reads the records of one section of a pcapng file, and rewrites their lengths.

Format: draft-ietf-opsawg-pcapng, either byte order. Blocks other than packets and interfaces are skipped.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from nfreaim.capture.slot import MAX_FRAME, CutShort, Damaged, Slot, wire_length

SHB_MAGIC: Final = b"\x0a\x0d\x0d\x0a"
_SECTION_ORDER: Final = {b"\x4d\x3c\x2b\x1a": "<", b"\x1a\x2b\x3c\x4d": ">"}
_MAX_BLOCK: Final = 16 * 1024 * 1024  # Wireshark's limit
_IDB, _OPB, _SPB, _EPB = 1, 2, 3, 6
# Journal and custom blocks hold no packets, but tshark numbers them.
_NUMBERED: Final = frozenset((9, 0xBAD, 0x40000BAD))
_OPT_END, _OPT_TSRESOL, _OPT_TSOFFSET = 0, 9, 14
_UNKNOWN_LENGTH: Final = 0xFFFF_FFFF_FFFF_FFFF  # of a section whose writer could not seek back


class _Interface(NamedTuple):
    start: int
    link: int
    snaplen: int
    ticks: int  # per second
    offset: int  # seconds to add


class Blocks:
    """A section of a pcapng: blocks of type (4), total length (4), body, padding to 4, total length (4)."""

    def __init__(self, raw: bytes, start: int, first: int) -> None:
        self._raw, self._start, self.first, self.offsets = raw, start, first, array("Q")
        if len(raw) < start + 28:
            raise CutShort(start, "the file ends inside a section header block")
        order = _SECTION_ORDER.get(raw[start + 8 : start + 12])
        if order is None:
            raise Damaged(start + 8, f"byte order magic {raw[start + 8 : start + 12].hex()}")
        self._order = order
        self._interfaces: list[_Interface] = []
        self._simple = False
        if self._end_of_block(start) < start + 28:
            raise Damaged(start, "a section header block of less than 28 bytes")
        major, minor = self._unpack("HH", start + 12)
        if major != 1:
            raise Damaged(start + 12, f"pcapng version {major}.{minor}, this reads 1.x")

    def _unpack(self, fields: str, at: int) -> tuple[int, ...]:
        return struct.unpack_from(self._order + fields, self._raw, at)

    def scan(self) -> int:
        """Read the blocks from this section header to the next one. Returns where the section ends."""
        position = self._end_of_block(self._start)
        while position < len(self._raw) and self._raw[position : position + 4] != SHB_MAGIC:
            end = self._end_of_block(position)
            (kind,) = self._unpack("I", position)
            if kind == _IDB:
                self._interfaces.append(self._interface(position, end))
            elif kind in (_EPB, _SPB, _OPB):
                self._simple |= kind == _SPB
                self.slot(position)
                self.offsets.append(position)
            elif kind in _NUMBERED:
                self.offsets.append(position)
            position = end
        return position

    def _end_of_block(self, start: int) -> int:
        remaining = len(self._raw) - start
        if remaining < 12:
            raise CutShort(start, f"{remaining} bytes are left, a block has at least 12")
        (total,) = self._unpack("I", start + 4)
        if total < 12 or total % 4 or total > _MAX_BLOCK:
            raise Damaged(start, f"a block of {total} bytes")
        if total > remaining:
            raise CutShort(start, f"the file ends {total - remaining} bytes before the block does")
        (again,) = self._unpack("I", start + total - 4)
        if again != total:
            raise Damaged(start, f"the block's two lengths differ, {total} and {again}")
        return start + total

    def _interface(self, start: int, end: int) -> _Interface:
        """Link type (2), reserved (2), snapshot length (4), options: code (2), length (2), value, pad."""
        if end < start + 20:
            raise Damaged(start, "an interface description block of less than 20 bytes")
        link, snaplen = self._unpack("H2xI", start + 8)
        ticks, offset, position = 10**6, 0, start + 16
        while position + 4 <= end - 4:
            code, size = self._unpack("HH", position)
            if code == _OPT_END:
                break
            position += 4
            if position + size > end - 4:
                raise Damaged(position - 4, f"an option of {size} bytes overruns its block")
            if code == _OPT_TSRESOL and size == 1:
                exponent = self._raw[position]
                ticks = 2 ** (exponent & 0x7F) if exponent & 0x80 else 10**exponent
            elif code == _OPT_TSOFFSET and size == 8:
                (offset,) = self._unpack("q", position)
            position += size + -size % 4
        return _Interface(start, link, snaplen, ticks, offset)

    def slot(self, start: int) -> Slot | None:
        kind, total = self._unpack("II", start)
        end = start + total
        if kind in _NUMBERED:
            return None
        at = start + (12 if kind == _SPB else 28)
        if at > end - 4:
            raise Damaged(start, f"a packet block of {total} bytes")
        if kind == _SPB:
            (length,) = self._unpack("I", start + 8)
            number = high = low = 0
            size = length
        else:
            # interface (4; in the OPB 2, and 2 of drops), time high and low, captured and wire length
            number, high, low, size, length = self._unpack("H2xIIII" if kind == _OPB else "IIIII", start + 8)
        if number >= len(self._interfaces):
            raise Damaged(start, f"a packet of interface {number}, which is not described before it")
        interface = self._interfaces[number]
        if kind == _SPB:
            size = min(length, interface.snaplen or length)
        time = (high << 32 | low) / interface.ticks + interface.offset if kind != _SPB else 0.0
        if size > MAX_FRAME or at + size > end - 4:
            raise Damaged(start, f"a frame of {size} bytes in a block of {total}")
        return Slot(start, end, at, size=size, length=length, time=time, link=interface.link)

    def resized(self, slot: Slot, data: bytes) -> bytes:
        """The whole block with *data*, of another length, in place of the captured bytes.

        Raises ValueError if a block of this type cannot have such a length.
        """
        (kind,) = self._unpack("I", slot.start)
        if kind == _SPB:
            # The block has no field for the captured length: that is the lesser of wire and snapshot length.
            snaplen = self._interfaces[0].snaplen or len(data)
            if len(data) > snaplen or slot.size < slot.length:
                raise ValueError(f"a simple packet block cut at {snaplen} bytes cannot hold {len(data)}")
            head = struct.pack(f"{self._order}I", len(data))
        else:
            lengths = struct.pack(f"{self._order}II", len(data), wire_length(slot, data))
            head = self._raw[slot.start + 8 : slot.start + 20] + lengths
        options = self._raw[slot.at + slot.size + -slot.size % 4 : slot.end - 4]
        body = head + data + bytes(-len(data) % 4) + options
        total = struct.pack(f"{self._order}I", len(body) + 12)
        return self._raw[slot.start : slot.start + 4] + total + body + total

    def grown(self, more: int, sizes: Mapping[int, int]) -> Iterator[tuple[int, int, bytes]]:
        """The patches to lengths elsewhere in the section after frames have changed theirs.

        more   bytes that the section has grown by; patches the section's length, unless that is left open
        sizes  new sizes of frames, by the offset of their blocks; patch snapshot lengths that they exceed
        """
        at = self._start + 16
        (length,) = self._unpack("Q", at)
        if length != _UNKNOWN_LENGTH:
            yield at, at + 8, struct.pack(f"{self._order}Q", (length + more) % 2**64)
        largest: dict[int, int] = {}
        for start, size in sizes.items():
            number = self._number(start)
            largest[number] = max(size, largest.get(number, 0))
        for number, size in largest.items():
            interface = self._interfaces[number]
            # The length of each frame in a simple packet block follows from this snapshot length, so it
            # stays.
            if 0 < interface.snaplen < size and not (self._simple and number == 0):
                at = interface.start + 12
                yield at, at + 4, struct.pack(f"{self._order}I", size)

    def _number(self, start: int) -> int:
        """The interface of the packet block at *start*."""
        (kind,) = self._unpack("I", start)
        return 0 if kind == _SPB else self._unpack("H" if kind == _OPB else "I", start + 8)[0]
