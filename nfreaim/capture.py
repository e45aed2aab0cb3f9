"""Packet captures, read and rewritten without loss: classic pcap and pcapng.

An unchanged capture is saved byte for byte as it was read, and a change touches its own frame's record only:
options, comments, unknown blocks, time stamps and byte order stay. This module may not look behind the first
byte of an IPv4 header, repair a checksum, or decide what a frame should become.

Formats: draft-ietf-opsawg-pcap (either byte order, microseconds or nanoseconds), draft-ietf-opsawg-pcapng.
"""

import os
import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

_MAX_FRAME = 262_144  # libpcap and Wireshark refuse longer frames: the length field is damaged
_MAX_BLOCK = 16 * 1024 * 1024  # Wireshark's limit for a pcapng block

# magic -> (struct byte order, time stamp units per second)
_PCAP_MAGIC = {
    b"\xd4\xc3\xb2\xa1": ("<", 10**6),
    b"\xa1\xb2\xc3\xd4": (">", 10**6),
    b"\x4d\x3c\xb2\xa1": ("<", 10**9),
    b"\xa1\xb2\x3c\x4d": (">", 10**9),
}
_PCAP_HEADER, _PCAP_RECORD = 24, 16

_SHB_MAGIC = b"\x0a\x0d\x0d\x0a"
_SECTION_ORDER = {b"\x4d\x3c\x2b\x1a": "<", b"\x1a\x2b\x3c\x4d": ">"}
_IDB, _OPB, _SPB, _EPB = 1, 2, 3, 6
_NUMBERED = frozenset((9, 0xBAD, 0x40000BAD))  # journal, custom blocks: no packets, but tshark numbers them
_OPT_END, _OPT_TSRESOL, _OPT_TSOFFSET = 0, 9, 14
_UNKNOWN_LENGTH = 0xFFFF_FFFF_FFFF_FFFF  # of a section whose writer could not seek back

_ETHERTYPE_IPV4, _ETHERTYPE_PPPOE, _PPP_IPV4 = 0x0800, 0x8864, 0x0021
_VLAN_TAGS = frozenset((0x8100, 0x88A8, 0x9100))
_AF_INET = (b"\x02\x00\x00\x00", b"\x00\x00\x00\x02")


class CaptureError(Exception):
    """A capture cannot be read, changed or written; the text names file, offset or frame, and cause."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One captured frame as it stands in the file, or as `Capture.replace` left it.

    number: from 1, as tshark counts. time: seconds since the epoch, 0.0 if the record keeps none. link: see
    tcpdump.org/linktypes.html. data: the captured bytes. length: how many there were on the wire.
    """

    number: int
    time: float
    link: int
    data: bytes
    length: int


class _Slot(NamedTuple):
    """Where one packet record lies in the file, and what it says."""

    start: int
    end: int
    at: int
    size: int
    length: int
    time: float
    link: int


class _Interface(NamedTuple):
    link: int
    snaplen: int
    ticks: int  # per second
    offset: int  # seconds to add


class _Damaged(Exception):
    """`_Damaged(offset, cause)`: the bytes at `offset` are not what the format demands."""


class _CutShort(_Damaged):
    """The file ends inside the record at `offset`."""


def _wire_length(slot: _Slot, data: bytes) -> int:
    """A frame cut to a snapshot length keeps its missing tail."""
    if len(data) == slot.size:
        return slot.length
    return min(max(slot.length + len(data) - slot.size, len(data)), 0xFFFF_FFFF)


class _Classic:
    """pcap: a header of 24 bytes, then records: seconds, fraction, captured and wire length, data."""

    def __init__(self, raw: bytes) -> None:
        self._raw, self.first, self.offsets = raw, 1, array("Q")
        self._order, self._ticks = _PCAP_MAGIC[raw[:4]]
        if len(raw) < _PCAP_HEADER:
            raise _Damaged(0, f"the pcap header has {_PCAP_HEADER} bytes, {len(raw)} are here")
        major, minor, link = struct.unpack_from(f"{self._order}HH12xI", raw, 4)
        if (major, minor) != (2, 4):
            raise _Damaged(4, f"pcap version {major}.{minor}, this reads 2.4")
        self._link: int = link & 0xFFFF  # the upper half tells the length of the frame check sequence

    def scan(self) -> None:
        position = _PCAP_HEADER
        while position < len(self._raw):
            slot = self.slot(position)
            self.offsets.append(position)
            position = slot.end

    def slot(self, start: int) -> _Slot:
        left = len(self._raw) - start - _PCAP_RECORD
        if left < 0:
            raise _CutShort(start, f"the file ends {-left} bytes before the record's header does")
        seconds, fraction, size, length = struct.unpack_from(f"{self._order}IIII", self._raw, start)
        if size > _MAX_FRAME:
            raise _Damaged(start, f"a frame of {size} bytes, more than {_MAX_FRAME}")
        if size > left:
            raise _CutShort(start, f"the file ends {size - left} bytes before the frame does")
        at = start + _PCAP_RECORD
        time = (seconds * self._ticks + fraction) / self._ticks
        return _Slot(start, at + size, at, size, length, time, self._link)

    def resized(self, slot: _Slot, data: bytes) -> bytes:
        """The whole record with `data`, of another length, in place of its captured bytes."""
        lengths = struct.pack(f"{self._order}II", len(data), _wire_length(slot, data))
        return self._raw[slot.start : slot.start + 8] + lengths + data

    def grown(self, more: int) -> Iterator[tuple[int, int, bytes]]:
        return iter(())  # the file header tells no length


class _Blocks:
    """A section of a pcapng: blocks of type (4), total length (4), body, padding to 4, total length (4)."""

    def __init__(self, raw: bytes, start: int, first: int) -> None:
        self._raw, self._start, self.first, self.offsets = raw, start, first, array("Q")
        if len(raw) < start + 28:
            raise _CutShort(start, "the file ends inside a section header block")
        order = _SECTION_ORDER.get(raw[start + 8 : start + 12])
        if order is None:
            raise _Damaged(start + 8, f"byte order magic {raw[start + 8 : start + 12].hex()}")
        self._order = order
        self._interfaces: list[_Interface] = []
        if self._end_of_block(start) < start + 28:
            raise _Damaged(start, "a section header block of less than 28 bytes")
        major, minor = self._unpack("HH", start + 12)
        if major != 1:
            raise _Damaged(start + 12, f"pcapng version {major}.{minor}, this reads 1.x")

    def _unpack(self, fields: str, at: int) -> tuple[int, ...]:
        return struct.unpack_from(self._order + fields, self._raw, at)

    def scan(self) -> int:
        """Walk from the section header to the next one; return where the section ends."""
        position = self._end_of_block(self._start)
        while position < len(self._raw) and self._raw[position : position + 4] != _SHB_MAGIC:
            end = self._end_of_block(position)
            (kind,) = self._unpack("I", position)
            if kind == _IDB:
                self._interfaces.append(self._interface(position, end))
            elif kind in (_EPB, _SPB, _OPB):
                self.slot(position)
                self.offsets.append(position)
            elif kind in _NUMBERED:
                self.offsets.append(position)
            position = end
        return position

    def _end_of_block(self, start: int) -> int:
        left = len(self._raw) - start
        if left < 12:
            raise _CutShort(start, f"{left} bytes are left, a block has at least 12")
        (total,) = self._unpack("I", start + 4)
        if total < 12 or total % 4 or total > _MAX_BLOCK:
            raise _Damaged(start, f"a block of {total} bytes")
        if total > left:
            raise _CutShort(start, f"the file ends {total - left} bytes before the block does")
        (again,) = self._unpack("I", start + total - 4)
        if again != total:
            raise _Damaged(start, f"the block's two lengths differ, {total} and {again}")
        return start + total

    def _interface(self, start: int, end: int) -> _Interface:
        """Link type (2), reserved (2), snapshot length (4), options: code (2), length (2), value, pad."""
        if end < start + 20:
            raise _Damaged(start, "an interface description block of less than 20 bytes")
        link, snaplen = self._unpack("H2xI", start + 8)
        ticks, offset, position = 10**6, 0, start + 16
        while position + 4 <= end - 4:
            code, size = self._unpack("HH", position)
            if code == _OPT_END:
                break
            position += 4
            if position + size > end - 4:
                raise _Damaged(position - 4, f"an option of {size} bytes overruns its block")
            if code == _OPT_TSRESOL and size == 1:
                exponent = self._raw[position]
                ticks = 2 ** (exponent & 0x7F) if exponent & 0x80 else 10**exponent
            elif code == _OPT_TSOFFSET and size == 8:
                (offset,) = self._unpack("q", position)
            position += size + -size % 4
        return _Interface(link, snaplen, ticks, offset)

    def slot(self, start: int) -> _Slot | None:
        kind, total = self._unpack("II", start)
        end = start + total
        if kind in _NUMBERED:
            return None
        at = start + (12 if kind == _SPB else 28)
        if at > end - 4:
            raise _Damaged(start, f"a packet block of {total} bytes")
        if kind == _SPB:
            (length,) = self._unpack("I", start + 8)
            number = high = low = 0
            size = length
        else:
            # interface (4; in the OPB 2, and 2 of drops), time high and low, captured and wire length
            number, high, low, size, length = self._unpack("H2xIIII" if kind == _OPB else "IIIII", start + 8)
        if number >= len(self._interfaces):
            raise _Damaged(start, f"a packet of interface {number}, which is not described before it")
        interface = self._interfaces[number]
        if kind == _SPB:
            size = min(length, interface.snaplen or length)
        time = (high << 32 | low) / interface.ticks + interface.offset if kind != _SPB else 0.0
        if size > _MAX_FRAME or at + size > end - 4:
            raise _Damaged(start, f"a frame of {size} bytes in a block of {total}")
        return _Slot(start, end, at, size, length, time, interface.link)

    def resized(self, slot: _Slot, data: bytes) -> bytes:
        """The same for a block; ValueError if it cannot tell such a length."""
        (kind,) = self._unpack("I", slot.start)
        if kind == _SPB:
            # The block tells no captured length: it is the lesser of wire length and snapshot length.
            snaplen = self._interfaces[0].snaplen or len(data)
            if len(data) > snaplen or slot.size < slot.length:
                raise ValueError(f"a simple packet block cut at {snaplen} bytes cannot hold {len(data)}")
            head = struct.pack(f"{self._order}I", len(data))
        else:
            lengths = struct.pack(f"{self._order}II", len(data), _wire_length(slot, data))
            head = self._raw[slot.start + 8 : slot.start + 20] + lengths
        options = self._raw[slot.at + slot.size + -slot.size % 4 : slot.end - 4]
        body = head + data + bytes(-len(data) % 4) + options
        total = struct.pack(f"{self._order}I", len(body) + 12)
        return self._raw[slot.start : slot.start + 4] + total + body + total

    def grown(self, more: int) -> Iterator[tuple[int, int, bytes]]:
        """The patch to the section's own length, unless it is left open."""
        at = self._start + 16
        (length,) = self._unpack("Q", at)
        if length != _UNKNOWN_LENGTH:
            yield at, at + 8, struct.pack(f"{self._order}Q", (length + more) % 2**64)


_Section = _Classic | _Blocks


class Capture:
    """A whole capture file in memory, with the replacements made so far.

    truncated: None, or what is cut short at the end of the file; it is saved again, but is no frame.
    """

    def __init__(self, raw: bytes, name: str = "capture") -> None:
        """Read a capture from its bytes. Raises CaptureError, in which `name` stands for the file."""
        self._raw, self._name = raw, name
        self._sections: list[_Section] = []
        self._replaced: dict[int, bytes] = {}
        self.truncated: str | None = None
        try:
            self._scan()
        except _Damaged as damage:
            offset, cause = damage.args
            message = f"{name}: offset {offset}: {cause}"
            if not isinstance(damage, _CutShort) or not self._sections:
                raise CaptureError(message) from None
            self.truncated = message

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Capture":
        """Read the file at `path`. Raises CaptureError if it is unreadable, of another format, or damaged."""
        try:
            with open(path, "rb") as file:
                raw = file.read()
        except OSError as error:
            raise CaptureError(f"{os.fspath(path)}: {error.strerror}") from error
        return cls(raw, os.fspath(path))

    def _scan(self) -> None:
        raw, magic = self._raw, self._raw[:4]
        if magic in _PCAP_MAGIC:
            classic = _Classic(raw)
            self._sections.append(classic)
            classic.scan()
            return
        if magic != _SHB_MAGIC:
            raise _Damaged(0, f"neither pcap nor pcapng, it begins with {magic.hex() or 'nothing'}")
        position, first = 0, 1
        while position < len(raw):
            blocks = _Blocks(raw, position, first)
            self._sections.append(blocks)
            position = blocks.scan()
            first += len(blocks.offsets)

    def __iter__(self) -> Iterator[Frame]:
        """The frames in order. A number without a packet (custom block, journal entry) is passed over."""
        for section in self._sections:
            for number, start in enumerate(section.offsets, section.first):
                slot = section.slot(start)
                if slot is not None:
                    data = self._replaced.get(number, self._raw[slot.at : slot.at + slot.size])
                    yield Frame(number, slot.time, slot.link, data, _wire_length(slot, data))

    def _find(self, number: int) -> tuple[_Section, _Slot]:
        section = self._sections[bisect_right(self._sections, number, key=lambda section: section.first) - 1]
        slot = None
        if 0 <= number - section.first < len(section.offsets):
            slot = section.slot(section.offsets[number - section.first])
        if slot is None:
            raise CaptureError(f"{self._name}: there is no frame {number}")
        return section, slot

    def replace(self, number: int, data: bytes) -> None:
        """Let `data` be the captured bytes of frame `number`; if longer or shorter, the wire length follows.

        Raises CaptureError if there is no such frame or its record cannot hold that many bytes.
        """
        section, slot = self._find(number)
        try:
            if len(data) > _MAX_FRAME:
                raise ValueError(f"{len(data)} bytes, more than {_MAX_FRAME}")
            if len(data) != slot.size:
                section.resized(slot, data)
        except ValueError as error:
            raise CaptureError(f"{self._name}: frame {number}: {error}") from None
        self._replaced[number] = bytes(data)

    def _patches(self) -> Iterator[tuple[int, int, bytes]]:
        """(start, end, new bytes) of every stretch of the file that changes."""
        growth: dict[_Section, int] = {}
        for number, data in self._replaced.items():
            section, slot = self._find(number)
            if len(data) == slot.size:
                yield slot.at, slot.at + slot.size, data
                continue
            record = section.resized(slot, data)
            yield slot.start, slot.end, record
            growth[section] = growth.get(section, 0) + len(record) - (slot.end - slot.start)
        for section, more in growth.items():
            yield from section.grown(more)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the capture in the format it was read in. Raises CaptureError if that fails."""
        view, done = memoryview(self._raw), 0
        try:
            with open(path, "wb") as file:
                for start, end, new in sorted(self._patches()):
                    file.write(view[done:start])
                    file.write(new)
                    done = end
                file.write(view[done:])
        except OSError as error:
            raise CaptureError(f"{os.fspath(path)}: {error.strerror}") from error


def network_offset(link: int, data: bytes) -> int | None:
    """Where in a frame of link type `link` the IPv4 header begins, in bytes; None if it holds no IPv4.

    Known: Ethernet (1), Linux cooked v1 (113) and v2 (276), with VLAN tags (IEEE 802.1Q, 802.1ad) and PPPoE
    sessions (RFC 2516); raw IP (12, 14, 101, 228); BSD loopback (0 in its machine's byte order, 108).
    """
    if link == 1:
        at = _behind_ethertype(data, 12, 14)
    elif link == 113:
        at = _behind_ethertype(data, 14, 16)
    elif link == 276:
        at = _behind_ethertype(data, 0, 20)
    elif link in (12, 14, 101, 228):
        at = 0
    elif link in (0, 108) and data[:4] in _AF_INET:
        at = 4
    else:
        return None
    return at if at is not None and data[at : at + 1].hex().startswith("4") else None


def _behind_ethertype(data: bytes, kind_at: int, at: int) -> int | None:
    """Follow the EtherType at `kind_at`, payload at `at`, through tags. A field cut off matches nothing."""
    kind = int.from_bytes(data[kind_at : kind_at + 2])
    while kind in _VLAN_TAGS:
        kind = int.from_bytes(data[at + 2 : at + 4])
        at += 4
    if kind == _ETHERTYPE_PPPOE and int.from_bytes(data[at + 6 : at + 8]) == _PPP_IPV4:
        return at + 8
    return at if kind == _ETHERTYPE_IPV4 else None
