"""FLAP: ``2A``, u8 channel, u16 number, u16 length, data. Numbers run on in each direction, modulo 2**16."""

from __future__ import annotations

import struct

from tests.oscar.values import WireError

MAGIC = 0x2A
FLAP_SIGNON, FLAP_SNAC, FLAP_ERROR, FLAP_SIGNOFF, FLAP_KEEPALIVE = 1, 2, 3, 4, 5
HEADER = struct.Struct("!BBHH")
CLIENT, SERVER = 0, 1
"""Ways: who sent it."""


def flap(channel: int, number: int = 1, data: bytes = b"") -> bytes:
    """A whole frame."""
    return HEADER.pack(MAGIC, channel, number & 0xFFFF, len(data)) + data


def number_of(frame: bytes) -> int:
    """The number in a frame's header."""
    return int.from_bytes(frame[2:4], "big")


def numbered(frame: bytes, number: int) -> bytes:
    """*frame* with another number."""
    return frame[:2] + (number & 0xFFFF).to_bytes(2, "big") + frame[4:]


def resized(frame: bytes) -> bytes:
    """*frame* with the length that it has."""
    return frame[:4] + (len(frame) - 6).to_bytes(2, "big") + frame[6:]


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


def begins(stream: bytes) -> bool:
    """Whether a header stands at the beginning of *stream*, of six bytes at least."""
    return stream[0] == MAGIC and 1 <= stream[1] <= 5


def frames_of(stream: bytes) -> list[bytes]:
    """The whole frames at the beginning of *stream*."""
    frames = []
    while len(stream) >= 6 and begins(stream):
        size = 6 + int.from_bytes(stream[4:6], "big")
        if len(stream) < size:
            break
        frames.append(stream[:size])
        stream = stream[size:]
    return frames


class FlapReader:
    """Cuts a byte stream into frames, however it arrives; what is no frame raises :class:`WireError`."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> list[tuple[int, int, bytes]]:
        """Take bytes; return the frames now complete as (channel, number, data)."""
        self._buffer += data
        whole = frames_of(self._buffer)
        self._buffer = self._buffer[sum(map(len, whole)) :]
        if len(self._buffer) >= 6 and not begins(self._buffer):
            raise WireError(f"not a FLAP header: {self._buffer[:6].hex()}")
        return [(frame[1], number_of(frame), frame[6:]) for frame in whole]
