"""Classic: reads the records of a pcap file, and rewrites their lengths.

Format: draft-ietf-opsawg-pcap, either byte order, microseconds or nanoseconds.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator, Mapping
from typing import Final

from nfreaim.capture.slot import MAX_FRAME, CutShort, Damaged, Slot, wire_length

# magic -> (struct byte order, time stamp units per second)
PCAP_MAGIC: Final = {
    b"\xd4\xc3\xb2\xa1": ("<", 10**6),
    b"\xa1\xb2\xc3\xd4": (">", 10**6),
    b"\x4d\x3c\xb2\xa1": ("<", 10**9),
    b"\xa1\xb2\x3c\x4d": (">", 10**9),
}
_PCAP_HEADER: Final = 24
_PCAP_RECORD: Final = 16
_SNAPLEN: Final = 16


class Classic:
    """pcap: a header of 24 bytes, then records: seconds, fraction, captured and wire length, data."""

    def __init__(self, raw: bytes) -> None:
        self._raw, self.first, self.offsets = raw, 1, array("Q")
        self._order, self._ticks = PCAP_MAGIC[raw[:4]]
        if len(raw) < _PCAP_HEADER:
            raise Damaged(0, f"the pcap header has {_PCAP_HEADER} bytes, {len(raw)} are here")
        major, minor, link = struct.unpack_from(f"{self._order}HH12xI", raw, 4)
        if (major, minor) != (2, 4):
            raise Damaged(4, f"pcap version {major}.{minor}, this reads 2.4")
        self._link: int = link & 0xFFFF  # the upper half has the length of the frame check sequence

    def scan(self) -> None:
        position = _PCAP_HEADER
        while position < len(self._raw):
            slot = self.slot(position)
            self.offsets.append(position)
            position = slot.end

    def slot(self, start: int) -> Slot:
        remaining = len(self._raw) - start - _PCAP_RECORD
        if remaining < 0:
            raise CutShort(start, f"the file ends {-remaining} bytes before the record's header does")
        seconds, fraction, size, length = struct.unpack_from(f"{self._order}IIII", self._raw, start)
        if size > MAX_FRAME:
            raise Damaged(start, f"a frame of {size} bytes, more than {MAX_FRAME}")
        if size > remaining:
            raise CutShort(start, f"the file ends {size - remaining} bytes before the frame does")
        at = start + _PCAP_RECORD
        time = (seconds * self._ticks + fraction) / self._ticks
        end = at + size
        return Slot(start, end, at, size=size, length=length, time=time, link=self._link)

    def resized(self, slot: Slot, data: bytes) -> bytes:
        """The whole record with *data*, of another length, in place of the captured bytes."""
        lengths = struct.pack(f"{self._order}II", len(data), wire_length(slot, data))
        return self._raw[slot.start : slot.start + 8] + lengths + data

    def grown(self, more: int, sizes: Mapping[int, int]) -> Iterator[tuple[int, int, bytes]]:
        """The patch to the snapshot length if one of *sizes* exceeds it, because readers cut frames to it."""
        (snaplen,) = struct.unpack_from(f"{self._order}I", self._raw, _SNAPLEN)
        if 0 < snaplen < max(sizes.values()):
            yield _SNAPLEN, _SNAPLEN + 4, struct.pack(f"{self._order}I", max(sizes.values()))
