"""Where nfreaim may change a byte, found by a parser that shares nothing with it.

`Reader` cuts a stream into FLAP frames and lists, for each whole frame, the address and port fields that its
message may have; see docs/design.md, section 7 and 11, and docs/icq.md. Nothing here changes anything.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

Format = Literal["ip", "~ip", "port", "~port", "port32", "little32", "host"]
CLIENT, SERVER = 0, 1  # ways

REVERSE: Final = bytes.fromhex("094613444c7f11d18222444553540000")
RELAY: Final = bytes.fromhex("094613494c7f11d18222444553540000")
FILE_PLUGIN: Final = bytes.fromhex("f02d12d93091d3118dd700104b06462e")
CHAT_PLUGIN: Final = bytes.fromhex("bff720b2378ed411bd280004ac96d905")
_INNER: Final[dict[int, tuple[int, Format]]] = {
    2: (4, "ip"),
    3: (4, "ip"),
    4: (4, "ip"),
    5: (2, "port"),
    0x16: (4, "~ip"),
    0x17: (2, "~port"),
}


@dataclass(frozen=True, slots=True)
class Field:
    """Bytes [start, end) of a stream that name an address or a port; "host" is text of any length."""

    start: int
    end: int
    format: Format


@dataclass(slots=True)
class Reader:
    """One direction of a connection, as it is read in order.

    signed_on  it began with a sign-on frame of version 1
    lists_icbm it had a SNAC(01,03) that names family 4
    broken     it was no FLAP from somewhere on, or a frame had a wrong number
    due        the number that the next frame should have
    strict     whether numbers matter: whoever finds the frames again looks no farther back
    fields     of all whole frames so far, ascending
    """

    way: int
    server_inside: bool
    data: bytearray = field(default_factory=bytearray)
    pos: int = 0
    frames: int = 0
    signed_on: bool = False
    lists_icbm: bool = False
    broken: bool = False
    due: int | None = None
    strict: bool = True
    fields: list[Field] = field(default_factory=list)

    def feed(self, data: bytes) -> None:
        self.data += data
        while not self.broken and len(self.data) - self.pos >= 6:
            magic, channel, _, length = struct.unpack_from("!BBHH", self.data, self.pos)
            beginning = bytes(self.data[self.pos : self.pos + 6])
            follows = not self.strict or runs_on(beginning, self.due, self.way)
            if magic != 0x2A or not 1 <= channel <= 5 or not follows:
                self.broken = True
                return
            end = self.pos + 6 + length
            if not self.frames and len(self.data) >= self.pos + 10:  # it may end later
                first = bytes(self.data[self.pos + 6 : min(end, self.pos + 10)])
                self.signed_on = channel == 1 and first == b"\0\0\0\1"
                self.broken = not self.signed_on
            if len(self.data) < end:
                return
            frame = bytes(self.data[self.pos : end])
            if not self.signed_on:
                self.broken = True
            self.frames += 1
            self.due = number_of(frame) + 1 & 0xFFFF
            at = self.pos
            self.pos = end
            for low, high, name in sorted(set(found(frame, self.way, self.server_inside))):
                self.fields.append(Field(at + low, at + high, name))
            if channel == 2 and frame[6:10] == b"\0\1\0\3":
                families = frame[_body(frame) :]
                self.lists_icbm |= b"\0\4" in [families[x : x + 2] for x in range(0, len(families), 2)]

    def within(self, start: int, end: int) -> list[Field]:
        """The fields that have a byte of [start, end)."""
        return [each for each in self.fields if each.start < end and start < each.end]


def number_of(frame: bytes) -> int:
    return int.from_bytes(frame[2:4], "big")


def runs_on(frame: bytes, due: int | None, way: int) -> bool:
    """Whether *frame* may follow where number *due* is expected: a server's may be off by 16, and any
    counter of 8, 15 or 16 bits may begin anew."""
    number = number_of(frame)
    if due is None or number == due:
        return True
    if number in (0, 1) and due in (0x100, 0x8000, 0x8001, 0):
        return True
    off = (number - due) % 0x10000
    return way == SERVER and (off <= 16 or off >= 0x10000 - 16)


Spans = Iterator[tuple[int, int, Format]]


def frames_of(stream: bytes) -> list[bytes]:
    """The whole frames at the beginning of *stream*."""
    frames = []
    while len(stream) >= 6 and stream[0] == 0x2A and 1 <= stream[1] <= 5:
        size = 6 + int.from_bytes(stream[4:6], "big")
        if len(stream) < size:
            break
        frames.append(stream[:size])
        stream = stream[size:]
    return frames


def found(frame: bytes, way: int, server_inside: bool) -> Spans:
    """Offsets in a whole FLAP frame, and what may be there."""
    if frame[1] == 4 and server_inside and way == SERVER:
        yield from _hosts(frame, 6)
    if frame[1] != 2 or len(frame) < 16:
        return
    name, body = frame[6:10], _body(frame)
    if server_inside:
        if way == SERVER:
            if name == b"\0\4\0\7":
                yield from _icbm(frame, body, way, True)
            elif name in (b"\0\x17\0\3", b"\0\1\0\5"):
                yield from _hosts(frame, body)
            elif name == b"\0\1\0\x12":
                yield from _hosts(frame, body + 2 + 2 * int.from_bytes(frame[body : body + 2], "big"))
        return
    if way == CLIENT:
        if name == b"\0\4\0\6":
            yield from _icbm(frame, body, way, False)
        elif name == b"\0\1\0\x1e":
            for tag, at, size in _tlvs(frame, body, len(frame)):
                yield from _direct(tag, at, size, False)
        elif name == b"\0\4\0\x0b" and frame[body + 8 : body + 10] == b"\0\2":
            at = body + 11 + frame[body + 10] if len(frame) > body + 10 else len(frame)
            if frame[at : at + 2] == b"\0\3":
                yield from _relay(frame, at + 2, len(frame))
    elif name == b"\0\4\0\7":
        yield from _icbm(frame, body, way, False)
    elif name in (b"\0\3\0\x0b", b"\0\2\0\6", b"\0\1\0\x0f"):
        at = body
        while at < len(frame):
            spans, at = _user(frame, at, name != b"\0\1\0\x0f")
            yield from spans
            if name == b"\0\2\0\6":
                return


def _body(frame: bytes) -> int:
    if len(frame) >= 18 and frame[10] & 0x80:
        return 18 + int.from_bytes(frame[16:18], "big")
    return 16


def _tlvs(data: bytes, at: int, end: int, count: int = 1 << 16) -> Iterator[tuple[int, int, int]]:
    """Type, place of the value, size; ends at the first one that overruns."""
    while at + 4 <= end and count:
        tag, size = struct.unpack_from("!HH", data, at)
        if at + 4 + size > end:
            return
        yield tag, at + 4, size
        at += 4 + size
        count -= 1


def _direct(tag: int, at: int, size: int, external: bool) -> Spans:
    if tag == 0xC and size == 37:
        yield at, at + 4, "ip"
        yield at + 4, at + 8, "port32"
    elif external and tag == 0xA and size == 4:
        yield at, at + 4, "ip"


def _user(frame: bytes, at: int, external: bool) -> tuple[list[tuple[int, int, Format]], int]:
    """The fields of a user-info block, and where it ends."""
    at += 1 + frame[at] if at < len(frame) else 1
    count = int.from_bytes(frame[at + 2 : at + 4], "big")
    at += 4
    spans: list[tuple[int, int, Format]] = []
    for tag, value, size in _tlvs(frame, at, len(frame), count):
        spans += _direct(tag, value, size, external)
        at = value + size
        count -= 1
    return spans, at if not count else len(frame)


def _icbm(frame: bytes, body: int, way: int, server_inside: bool) -> Spans:
    at = body + 10
    if at >= len(frame):
        return
    if way == SERVER:
        spans, at = _user(frame, at, True)
        if not server_inside:
            yield from spans
    else:
        at += 1 + frame[at]
    if frame[body + 8 : body + 10] != b"\0\2":
        return
    blocks = [(value, size) for tag, value, size in _tlvs(frame, at, len(frame)) if tag == 5]
    if len(blocks) == 1 and blocks[0][1] >= 26:
        yield from _rendezvous(frame, *blocks[0], way, server_inside)


def _rendezvous(frame: bytes, at: int, size: int, way: int, server_inside: bool) -> Spans:
    kind, capability = frame[at : at + 2], frame[at + 10 : at + 26]
    inner = list(_tlvs(frame, at + 26, at + size))
    if kind != b"\0\0" or any(tag == 0x10 for tag, _, _ in inner):
        return
    for tag, value, length in inner:
        width, name = _INNER.get(tag, (0, "ip"))
        if length and length == width:
            yield value, value + length, name
        elif tag == 0x2711 and not server_inside:
            if capability == REVERSE and length == 27:
                yield value + 4, value + 8, "ip"
                yield value + 8, value + 12, "little32"
                yield value + 17, value + 21, "little32"
            elif capability == RELAY:
                yield from _relay(frame, value, value + length)


def _little(data: bytes, at: int, end: int, size: int = 2) -> int:
    """The place behind a block with a little-endian length before it; beyond *end* if it overruns."""
    return at + size + int.from_bytes(data[at : at + size], "little") if at + size <= end else end + 1


def _relay(data: bytes, at: int, end: int) -> Spans:
    """The port of a type-2 message, in both encodings."""
    at = _little(data, _little(data, at, end), end)
    if at + 8 > end:
        return
    kind = data[at]
    at = _little(data, at + 6, end)
    chat = kind == 2
    if kind == 3:
        at = _little(data, at, end)
    elif kind == 0x1A and at + 18 <= end:
        guid = data[at + 2 : at + 18]
        chat = guid == CHAT_PLUGIN
        if guid not in (CHAT_PLUGIN, FILE_PLUGIN):
            return
        at = _little(data, max(_little(data, at, end), at + 18) + 4, end, 4)
    elif not chat:
        return
    port = _little(data, at, end) if chat else at
    if port + 4 > end:
        return
    yield port, port + 2, "port"
    again = port + 4 if chat else _little(data, port + 4, end) + 4
    if again + 4 == end:
        yield again, again + 4, "little32"


def _hosts(frame: bytes, at: int) -> Spans:
    for tag, value, size in _tlvs(frame, at, len(frame)):
        if tag == 5:
            yield value, value + size, "host"
