"""YmsgReader: cuts one direction of a connection into YMSG packets.

A packet is found by the length of the one before it only, never by a search for its first bytes: a text may
hold them.
"""

from __future__ import annotations

import struct
from collections.abc import Set
from typing import Final, NamedTuple

from nfreaim.errors import Foreign, Malformed
from nfreaim.layers.yahoo_packets import AUTH, HEADER, LENGTH_AT, LOGON, MAGIC, SERVICE_AT, VERIFY, VERSIONS

MAX_DATA: Final = 4096
"""Bytes behind the header of a packet that is read; a longer one passes unread."""

_FIRST: Final = frozenset({AUTH, VERIFY, LOGON})  # with which a client begins
_KNOWN: Final = SERVICE_AT  # bytes of a header that say where the packet ends
_POSITION: Final = struct.Struct("!IB6s")  # bytes to skip; bytes of a header, and those behind its first four
_MAX_MISSES: Final = 64  # segments that do not begin with a packet, before the search is given up


class YmsgPacket(NamedTuple):
    """One packet: its stream offset, fields of its header, and all its bytes if they were asked for."""

    at: int
    service: int
    status: int
    session: int
    data: bytes


class YmsgReader:
    """One direction.

    kept     bytes of the last packet, from stream offset *kept_at* on, if more of it is needed
    first    no packet has been read yet, and the first one has to begin the sign-on
    settled  the session is past sign-on
    session  of the last header
    packets  how many headers were read
    """

    __slots__ = (
        "_broken",
        "_misses",
        "_skip",
        "_synced",
        "_wanted",
        "first",
        "kept",
        "kept_at",
        "packets",
        "session",
        "settled",
    )

    def __init__(self, wanted: Set[int], midstream: bool, first: bool) -> None:
        """*wanted*: services whose packets come whole; *first*: its sender begins the sign-on."""
        self._wanted = wanted
        self.settled = midstream
        self.first = first and not midstream
        self.kept, self.kept_at = b"", 0
        self._skip = 0
        self._synced = not midstream
        self._misses = 0
        self._broken = ""
        self.session = 0
        self.packets = 0

    def feed(self, data: bytes, start: int) -> list[YmsgPacket]:
        """The packets whose header, or whose whole if they are wanted, *data* completes.

        Raises Malformed where a packet does not begin as one, Foreign before sign-on. The packets before such
        a place are returned first, and the next call, or ``check``, raises: cuts make no difference.
        """
        self.check()
        pos, self._skip = self._skip, 0
        if self.kept:
            data, start = self.kept + data, self.kept_at
        elif not self._synced and not self._synchronise(data):
            return []
        packets: list[YmsgPacket] = []
        size = len(data)
        while pos < size:
            if flaw := self._flaw(data[pos : pos + SERVICE_AT + 2]):
                return self._break(flaw, packets)
            if size - pos < HEADER.size:
                break
            _, _, _, length, service, status, session = HEADER.unpack_from(data, pos)
            length += HEADER.size
            whole = b""
            if service in self._wanted and length <= MAX_DATA + HEADER.size:
                if size - pos < length:
                    break
                whole = data[pos : pos + length]
            packets.append(YmsgPacket(start + pos, service, status, session, whole))
            self.session = session
            self.packets += 1
            self.first = False
            pos += length
        self.kept = data[pos:]
        self.kept_at = start + pos
        self._skip = max(0, pos - size)
        return packets

    def check(self) -> None:
        """Raise if the reading of this direction has ended."""
        if self._broken:
            raise self._error(self._broken)

    def skips(self, raw: bytes, start: int, read: Set[int]) -> bool:
        """Whether *raw* from *start* on, the next bytes, is one whole packet of no service in *read*.

        Then it is read. If not, nothing has happened.
        """
        size = len(raw) - start
        if size < HEADER.size or self._skip or self.kept or self._broken or not self._synced:
            return False
        magic, _, _, length, service, _, session = HEADER.unpack_from(raw, start)
        if magic != MAGIC or length + HEADER.size != size or service in read:
            return False
        self.session = session
        self.packets += 1
        return True

    @property
    def resting(self) -> bool:
        """Whether what was read last ended with the end of a packet."""
        return not self._skip and not self.kept

    def begun(self) -> tuple[int, int] | None:
        """Of the packet that is kept, the length of its data, and its service or -1 while that is missing.

        None while nothing has come of the length.
        """
        kept = self.kept
        if len(kept) < LENGTH_AT + 1:
            return None
        length = int.from_bytes(kept[LENGTH_AT:SERVICE_AT].ljust(2, b"\0"), "big")
        whole = len(kept) >= SERVICE_AT + 2
        return length, int.from_bytes(kept[SERVICE_AT : SERVICE_AT + 2], "big") if whole else -1

    def position(self) -> bytes:
        """Where reading stands: numbers, and of a header what its packet's length cannot be told without."""
        kept, skip = self.kept, self._skip
        if len(kept) >= _KNOWN:
            skip = HEADER.size + int.from_bytes(kept[LENGTH_AT:_KNOWN], "big") - len(kept)
            kept = b""
        return _POSITION.pack(skip, len(kept), kept[len(MAGIC) :])

    def resume(self, position: bytes, at: int) -> None:
        """Go on at *position*, which is stream offset *at*, past sign-on. Raises ValueError if it is none."""
        if len(position) != _POSITION.size:
            raise ValueError(f"a position has {_POSITION.size} bytes, not {len(position)}")
        skip, count, header = _POSITION.unpack(position)
        if skip > 0xFFFF + HEADER.size or count >= _KNOWN or (skip and count):
            raise ValueError("no position in a stream of packets")
        self.settled = self._synced = True
        self.first = False
        self._skip = skip
        self.kept, self.kept_at = (MAGIC + header)[:count], at - count

    def _flaw(self, head: bytes) -> str:
        """What shows that no packet begins with *head*, as many bytes as have come of the first twelve."""
        if not MAGIC.startswith(head[:4]):
            return "a packet does not begin as one"
        if not self.first:
            return ""
        if len(head) >= 6 and int.from_bytes(head[4:6], "big") not in VERSIONS:
            return "another version"
        if len(head) == SERVICE_AT + 2 and int.from_bytes(head[SERVICE_AT:], "big") not in _FIRST:
            return "the first packet is none of a sign-on"
        return ""

    def _synchronise(self, data: bytes) -> bool:
        """In a flow met in the middle: whether *data* is a chain of whole packets, so that reading begins."""
        pos, size = 0, len(data)
        while size - pos >= HEADER.size and data.startswith(MAGIC, pos):
            pos += HEADER.size + int.from_bytes(data[pos + LENGTH_AT : pos + SERVICE_AT], "big")
        self._synced = pos == size
        if not self._synced:
            self._misses += 1
            if self._misses > _MAX_MISSES:
                raise Malformed("no segment begins with a packet")
        return self._synced

    def _break(self, flaw: str, packets: list[YmsgPacket]) -> list[YmsgPacket]:
        """Reading ends here: with *packets*, if there are any."""
        self._broken, self.kept = flaw, b""
        if not packets:
            raise self._error(flaw)
        return packets

    def _error(self, flaw: str) -> Malformed:
        return Malformed(flaw) if self.settled else Foreign(flaw)
