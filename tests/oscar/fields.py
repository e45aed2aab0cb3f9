"""Where a frame has addresses and ports that a router may change, and in which form.

`Reader` cuts a stream into FLAP frames and lists, for each whole frame, the address and port fields that its
message may have; see docs/oscar.md and docs/icq.md. `announcing` writes others there.
Unlike the codec beside it this reads anything, and stops where a length overruns.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

from tests.oscar import icq, snac
from tests.oscar import rendezvous as rdv
from tests.oscar.flap import CLIENT, FLAP_SIGNOFF, HEADER, SERVER, begins, number_of, runs_on
from tests.oscar.snac import body_of, kind_of
from tests.oscar.values import complement, ip4

Format = Literal["ip", "~ip", "port", "~port", "port32", "little32", "host"]
"""~: the complement; port: u16, which Licq writes little-endian; port32, little32: u32; host: text."""

_INNER: Final[dict[int, tuple[int, Format]]] = {
    rdv.RDV_IP: (4, "ip"),
    rdv.REQUESTER_IP: (4, "ip"),
    rdv.VERIFIED_IP: (4, "ip"),
    rdv.PORT: (2, "port"),
    rdv.IP_CHECK: (4, "~ip"),
    rdv.PORT_CHECK: (2, "~port"),
}
_FAMILY_ICBM: Final = b"\0\4"


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
            _, channel, _, length = HEADER.unpack_from(self.data, self.pos)
            beginning = bytes(self.data[self.pos : self.pos + 6])
            follows = not self.strict or runs_on(beginning, self.due, self.way)
            if not begins(beginning) or not follows:
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
            if kind_of(frame) == snac.FAMILY_LIST:
                families = frame[body_of(frame) :]
                self.lists_icbm |= _FAMILY_ICBM in [families[x : x + 2] for x in range(0, len(families), 2)]

    def within(self, start: int, end: int) -> list[Field]:
        """The fields that have a byte of [start, end)."""
        return [each for each in self.fields if each.start < end and start < each.end]


Spans = Iterator[tuple[int, int, Format]]


def found(frame: bytes, way: int, server_inside: bool) -> Spans:
    """Offsets in a whole FLAP frame, and what may be there."""
    if server_inside:
        return _of_inside_server(frame) if way == SERVER else iter(())
    return _of_inside_client(frame) if way == CLIENT else _to_inside_client(frame)


def _of_inside_server(frame: bytes) -> Spans:
    if frame[1] == FLAP_SIGNOFF:
        yield from _hosts(frame, HEADER.size)
    kind, body = kind_of(frame), body_of(frame)
    if kind == snac.TO_CLIENT:
        yield from _icbm(frame, body, SERVER)
    elif kind in (snac.BUDDY_ARRIVED, snac.USER_INFO):
        yield from _to_inside_client(frame)
    elif kind in (snac.LOGIN_REPLY, snac.SERVICE_REDIRECT):
        yield from _hosts(frame, body)
    elif kind == snac.MIGRATION:
        yield from _hosts(frame, body + 2 + 2 * int.from_bytes(frame[body : body + 2], "big"))


def _of_inside_client(frame: bytes) -> Spans:
    kind, body = kind_of(frame), body_of(frame)
    if kind == snac.TO_HOST:
        yield from _icbm(frame, body, CLIENT)
    elif kind == snac.SET_STATUS:
        for tag, at, size in _tlvs(frame, body, len(frame)):
            yield from _direct(tag, at, size, False)
    elif kind == snac.CLIENT_ERROR and frame[body + 8 : body + 10] == b"\0\2":
        at = body + 11 + frame[body + 10] if len(frame) > body + 10 else len(frame)
        if frame[at : at + 2] == b"\0\3":
            yield from _relay(frame, at + 2, len(frame))


def _to_inside_client(frame: bytes) -> Spans:
    kind, at = kind_of(frame), body_of(frame)
    if kind == snac.TO_CLIENT:
        yield from _icbm(frame, at, SERVER)
    elif kind in (snac.BUDDY_ARRIVED, snac.USER_INFO, snac.SELF_INFO):
        while at < len(frame):
            spans, at = _user(frame, at, kind != snac.SELF_INFO)
            yield from spans
            if kind == snac.USER_INFO:
                return


def announcing(frame: bytes, way: int, host: str, port: int | None = None) -> bytes:
    """*frame* with this address, and port if one is given, in all its fields, for a client inside."""
    out = bytearray(frame)
    for low, high, form in found(frame, way, False):
        if form in ("ip", "~ip"):
            value = ip4(host)
        elif port is None:
            continue
        else:
            value = port.to_bytes(high - low, "little" if form == "little32" else "big")
        out[low:high] = complement(value) if form[0] == "~" else value
    return bytes(out)


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
    if tag == icq.DIRECT_INFO and size == icq.DIRECT.size:
        yield at, at + 4, "ip"
        yield at + 4, at + 8, "port32"
    elif external and tag == icq.EXTERNAL and size == 4:
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


def _icbm(frame: bytes, body: int, way: int) -> Spans:
    at = body + 10
    if at >= len(frame):
        return
    if way == SERVER:
        spans, at = _user(frame, at, True)
        yield from spans
    else:
        at += 1 + frame[at]
    if frame[body + 8 : body + 10] != b"\0\2":
        return
    blocks = [(value, size) for tag, value, size in _tlvs(frame, at, len(frame)) if tag == 5]
    if len(blocks) == 1 and blocks[0][1] >= 26:
        yield from _rendezvous(frame, *blocks[0])


def _rendezvous(frame: bytes, at: int, size: int) -> Spans:
    kind, capability = frame[at : at + 2], frame[at + 10 : at + 26]
    inner = list(_tlvs(frame, at + 26, at + size))
    if kind != b"\0\0" or any(tag == rdv.USE_RELAY for tag, _, _ in inner):
        return
    for tag, value, length in inner:
        width, name = _INNER.get(tag, (0, "ip"))
        if length and length == width:
            yield value, value + length, name
        elif tag == rdv.SERVICE_DATA:
            if capability == rdv.REVERSE and length == icq.CALL_BACK.size:
                yield value + 4, value + 8, "ip"
                yield value + 8, value + 12, "little32"
                yield value + 17, value + 21, "little32"
            elif capability == rdv.RELAY:
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
    chat = kind == icq.CHAT
    if kind == icq.FILE:
        at = _little(data, at, end)
    elif kind == icq.PLUGIN and at + 18 <= end:
        guid = data[at + 2 : at + 18]
        chat = guid == icq.CHAT_PLUGIN
        if guid not in (icq.CHAT_PLUGIN, icq.FILE_PLUGIN):
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
