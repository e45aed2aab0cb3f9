"""Packet captures, read and rewritten without loss: classic pcap and pcapng.

An unchanged capture is saved byte for byte as it was read. A change of a frame changes its record, and the
lengths that the file has elsewhere; options, comments, unknown blocks, time stamps and byte order stay. This
package reads no further than the first byte of an IPv4 header, and repairs no checksum: its callers decide
the frames' bytes.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from nfreaim.capture.classic import PCAP_MAGIC, Classic
from nfreaim.capture.pcapng import SHB_MAGIC, Blocks
from nfreaim.capture.slot import MAX_FRAME, CutShort, Damaged, Slot, wire_length


class CaptureError(Exception):
    """A capture cannot be read, changed or written. The text names file, offset or frame, and cause."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One captured frame, as the file has it or as `Capture.replace` left it.

    number  from 1, as tshark counts
    time    seconds since the epoch, 0.0 if the record has no time
    link    link type, see tcpdump.org/linktypes.html
    data    the captured bytes
    length  number of bytes on the wire
    """

    number: int
    time: float
    link: int
    data: bytes
    length: int


_Section = Classic | Blocks


class Capture:
    """A whole capture file in memory, with the replacements made so far.

    truncated  None, or in words the damage of a record that the file's end cuts short; the record is saved
               again, but is no frame
    """

    def __init__(self, raw: bytes, name: str = "capture") -> None:
        """Read a capture from its bytes. Raises CaptureError, whose text calls the file *name*."""
        self._raw, self._name = raw, name
        self._sections: list[_Section] = []
        self._replaced: dict[int, bytes] = {}
        self.truncated: str | None = None
        try:
            self._scan()
        except Damaged as damage:
            offset, cause = damage.args
            message = f"{name}: offset {offset}: {cause}"
            if not isinstance(damage, CutShort) or not self._sections:
                raise CaptureError(message) from None
            self.truncated = message

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Capture:
        """Read the file at *path*. Raises CaptureError if it is unreadable, of another format, or damaged."""
        try:
            with open(path, "rb") as file:
                raw = file.read()
        except OSError as error:
            raise CaptureError(f"{os.fspath(path)}: {error.strerror}") from error
        return cls(raw, os.fspath(path))

    def _scan(self) -> None:
        raw, magic = self._raw, self._raw[:4]
        if magic in PCAP_MAGIC:
            classic = Classic(raw)
            self._sections.append(classic)
            classic.scan()
            return
        if magic != SHB_MAGIC:
            raise Damaged(0, f"neither pcap nor pcapng, it begins with {magic.hex() or 'nothing'}")
        position, first = 0, 1
        while position < len(raw):
            blocks = Blocks(raw, position, first)
            self._sections.append(blocks)
            position = blocks.scan()
            first += len(blocks.offsets)

    def __iter__(self) -> Iterator[Frame]:
        """The frames in order. Numbers of records without a packet (custom block, journal) are left out."""
        for section in self._sections:
            for number, start in enumerate(section.offsets, section.first):
                slot = section.slot(start)
                if slot is not None:
                    data = self._replaced.get(number, self._raw[slot.at : slot.at + slot.size])
                    yield Frame(number, slot.time, slot.link, data, wire_length(slot, data))

    def _find(self, number: int) -> tuple[_Section, Slot]:
        section = self._sections[bisect_right(self._sections, number, key=lambda section: section.first) - 1]
        slot = None
        if 0 <= number - section.first < len(section.offsets):
            slot = section.slot(section.offsets[number - section.first])
        if slot is None:
            raise CaptureError(f"{self._name}: there is no frame {number}")
        return section, slot

    def replace(self, number: int, data: bytes) -> None:
        """Make *data* the captured bytes of frame *number*; the wire length grows and shrinks with them.

        Raises CaptureError if the frame does not exist or its record cannot hold that many bytes.
        """
        section, slot = self._find(number)
        try:
            if len(data) > MAX_FRAME:
                raise ValueError(f"{len(data)} bytes, more than {MAX_FRAME}")
            if len(data) != slot.size:
                section.resized(slot, data)
        except ValueError as error:
            raise CaptureError(f"{self._name}: frame {number}: {error}") from None
        self._replaced[number] = bytes(data)

    def _patches(self) -> Iterator[tuple[int, int, bytes]]:
        """(start, end, new bytes) of each part of the file that changes."""
        growth: dict[_Section, int] = {}
        sizes: dict[_Section, dict[int, int]] = {}
        for number, data in self._replaced.items():
            section, slot = self._find(number)
            if len(data) == slot.size:
                yield slot.at, slot.at + slot.size, data
                continue
            record = section.resized(slot, data)
            yield slot.start, slot.end, record
            growth[section] = growth.get(section, 0) + len(record) - (slot.end - slot.start)
            sizes.setdefault(section, {})[slot.start] = len(data)
        for section, more in growth.items():
            yield from section.grown(more, sizes[section])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the capture in the format in which it was read. Raises CaptureError if that fails."""
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
