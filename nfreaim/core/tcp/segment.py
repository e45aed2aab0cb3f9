"""Segment: one IPv4/TCP packet as a buffer with named positions, and TCP's arithmetic.

No function raises on malformed packets, and none depends on a flow, a protocol or the clock.
Layouts: IPv4 RFC 791 section 3.1, TCP RFC 9293 section 3.1, incremental checksum RFC 1624 equation 3.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Final

FIN: Final = 0x01
SYN: Final = 0x02
RST: Final = 0x04
PSH: Final = 0x08
ACK: Final = 0x10
URG: Final = 0x20

TCP_PROTOCOL: Final = 6
FRAGMENT: Final = 0x3FFF  # more-fragments flag and fragment offset, without the don't-fragment bit
_FLAGS: Final = 13  # offset of the flags in the TCP header
_WINDOW: Final = 14
_CHECKSUM: Final = 16
_IP_CHECKSUM: Final = 10
_DONT_FRAGMENT: Final = 0x40
_NOP: Final = 1
_SACK: Final = 5
_SCALE: Final = 3
_END: Final = 0
_SIGNATURES: Final = (19, 29)  # RFC 2385, RFC 5925

# version+header length, total length, flags+fragment offset, protocol, then (header without options) TCP:
# sequence number, acknowledgement number, data offset, flags. One call unpacks every field the engine needs.
HEADERS: Final = struct.Struct("!BxHxxHxB14xIIBB")
_TCP: Final = struct.Struct("!IIBB")
_NUMBERS: Final = struct.Struct("!II")
_BARE_IP: Final = struct.Struct("!BBHHHBBH8s")
_BARE_TCP: Final = struct.Struct("!4sIIBBHHH")
_TTL: Final = 64
MASK: Final = 0xFFFFFFFF
HALF: Final = 0x80000000
"""Half of the sequence numbers: a number farther ahead is behind."""


def wrap(number: int) -> int:
    """*number* as a header has it: sequence numbers have 32 bits (RFC 9293 section 3.4)."""
    return number & MASK


def distance(start: int, number: int) -> int:
    """Bytes from sequence number *start* to *number*, from -2**31 to 2**31 - 1; negative if it is before."""
    return ((number - start + HALF) & MASK) - HALF


class Segment:
    """One IPv4/TCP packet.

    raw      the whole packet, from the first byte of the IPv4 header
    key      12 bytes as on the wire: source address, destination address, source port, destination port
    seq, ack sequence and acknowledgement number (32 bits, as in the header)
    flags    the TCP flag byte (FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32)
    tcp      offset of the TCP header in raw
    start    offset of the payload in raw; it ends with raw
    """

    __slots__ = ("ack", "flags", "key", "raw", "seq", "start", "tcp")

    def __init__(self, raw: bytes, tcp: int, seq: int, ack: int, offset: int, flags: int) -> None:
        self.raw = raw
        self.key = raw[12:24] if tcp == 20 else raw[12:20] + raw[tcp : tcp + 4]
        self.tcp = tcp
        self.seq = seq
        self.ack = ack
        self.start = tcp + (offset >> 4 << 2)
        self.flags = flags

    @classmethod
    def parse(cls, raw: bytes) -> Segment | None:
        """The segment in *raw*; None if *raw* is no whole, unfragmented IPv4/TCP packet.

        A packet is whole if its size is its own total length. The queue silently cuts packets at 4016 bytes,
        and a packet that was cut must never be written back.
        """
        size = len(raw)
        if size < 40:
            return None
        first, total, fragment, protocol, seq, ack, offset, flags = HEADERS.unpack_from(raw)
        if total != size or protocol != TCP_PROTOCOL or fragment & FRAGMENT:
            return None
        if first == 0x45:
            segment = cls(raw, 20, seq, ack, offset, flags)
        else:
            tcp = (first & 15) << 2
            if first >> 4 != 4 or tcp < 20 or size < tcp + 20:
                return None
            seq, ack, offset, flags = _TCP.unpack_from(raw, tcp + 4)
            segment = cls(raw, tcp, seq, ack, offset, flags)
        if offset < 0x50 or segment.start > size:
            return None
        return segment

    def patched(self, at: int, data: bytes) -> Segment:
        """This segment with ``raw[at:at+len(data)]`` (payload bytes) replaced and the TCP checksum updated.

        The checksum is updated incrementally, so a wrong checksum stays wrong by the same amount.
        """
        raw = bytearray(self.raw)
        end = at + len(data)
        # The sum runs over 16-bit words counted from the TCP header: widen the span to whole words.
        low = at - ((at - self.tcp) & 1)
        high = end + ((end - self.tcp) & 1)
        before = _sum(raw[low:high])
        raw[at:end] = data
        _adjust(raw, self.tcp + _CHECKSUM, before, _sum(raw[low:high]))
        return Segment(bytes(raw), self.tcp, self.seq, self.ack, self._offset, self.flags)

    @property
    def size(self) -> int:
        """Bytes of payload."""
        return len(self.raw) - self.start

    @property
    def window(self) -> int:
        """The window field, not scaled."""
        return int.from_bytes(self.raw[self.tcp + _WINDOW : self.tcp + _WINDOW + 2], "big")

    @property
    def scale(self) -> int | None:
        """The sender's window scale, in bits; None without that option (RFC 7323 section 2.2)."""
        for at, kind, size in _options(self.raw, self.tcp + 20, self.start):
            if kind == _SCALE and size == 3:
                return min(self.raw[at + 2], 14)
        return None

    @property
    def ignorable(self) -> bool:
        """Whether hosts may ignore this segment for its options: a signature, or damaged ones.

        A host that has no such connection answers any other segment with a reset.
        """
        after = self.tcp + 20
        for at, kind, size in _options(self.raw, after, self.start):
            if kind in _SIGNATURES:
                return True
            after = at + size
        return after < self.start and self.raw[after] != _END

    def rebuilt(
        self,
        seq: int,
        ack: int,
        payload: bytes,
        blocks: Blocks | None,
        flags: int | None = None,
        window: int | None = None,
    ) -> Segment:
        """This segment with other numbers and another payload of any length, and lengths to match.

        blocks  maps the edges of each SACK block to new edges, or to None to blank the block (RFC 2018);
                without it the blocks stay
        window  the window field, not scaled

        Checksums are updated incrementally, as in ``patched``.
        """
        raw = bytearray(self.raw[: self.start]) + payload
        _NUMBERS.pack_into(raw, self.tcp + 4, wrap(seq), wrap(ack))
        flags = self.flags if flags is None else flags
        raw[self.tcp + _FLAGS] = flags
        if window is not None:
            raw[self.tcp + _WINDOW : self.tcp + _WINDOW + 2] = window.to_bytes(2, "big")
        if blocks is not None and self.start > self.tcp + 20:
            _translate_blocks(raw, self.tcp + 20, self.start, blocks)
        # The length of the TCP part is a term of both checksums: in the pseudo header and in the IPv4 header.
        old, new = len(self.raw), len(raw)
        head = _sum(raw[:8])
        raw[2:4] = new.to_bytes(2, "big")
        if new > old:
            # The packet may be too large for a later hop now. With this bit set, that hop would tell the
            # sender a size that its own packets have already, and the sender would repeat the same packet for
            # ever. Without it routers fragment. (A lower MSS in the SYN would change connections of any
            # protocol.)
            raw[6] &= 0xFF ^ _DONT_FRAGMENT
        _adjust(raw, _IP_CHECKSUM, head, _sum(raw[:8]))
        before = _sum(self.raw[self.tcp :]) + old - self.tcp
        _adjust(raw, self.tcp + _CHECKSUM, before, _sum(raw[self.tcp :]) + new - self.tcp)
        return Segment(bytes(raw), self.tcp, wrap(seq), wrap(ack), self._offset, flags)

    def overwritten(self, payload: bytes) -> Segment:
        """This segment with another payload of its length, and a TCP checksum that is computed afresh.

        So the checksum tells nothing of the former payload, also if it was left to the network card.
        """
        raw = bytearray(self.raw[: self.start]) + payload
        at = self.tcp + _CHECKSUM
        raw[at : at + 2] = bytes(2)
        pseudo = raw[12:20] + struct.pack("!HH", TCP_PROTOCOL, len(raw) - self.tcp)
        raw[at : at + 2] = _checksum(bytes(pseudo + raw[self.tcp :]))
        return Segment(bytes(raw), self.tcp, self.seq, self.ack, self._offset, self.flags)

    @property
    def _offset(self) -> int:
        return (self.start - self.tcp) << 2


def bare_packet(key: bytes, seq: int, ack: int, flags: int) -> bytes:
    """An IPv4 packet with the addresses and ports of *key*, a bare TCP header, no payload and no options."""
    tcp = _BARE_TCP.pack(key[8:12], wrap(seq), wrap(ack), 0x50, flags, 0, 0, 0)
    pseudo = key[:8] + struct.pack("!HH", TCP_PROTOCOL, len(tcp))
    tcp = tcp[:16] + _checksum(pseudo + tcp) + tcp[18:]
    header = _BARE_IP.pack(0x45, 0, 20 + len(tcp), 0, 0x4000, _TTL, TCP_PROTOCOL, 0, key[:8])
    return header[:10] + _checksum(header) + header[12:] + tcp


Blocks = Callable[[int, int], tuple[int, int] | None]


def _options(raw: bytes | bytearray, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Offset, kind and size of each TCP option (RFC 9293 section 3.1); stops at the first malformed one."""
    while at < end:
        kind = raw[at]
        size = 1 if kind == _NOP else raw[at + 1] if kind and at + 1 < end else 0
        if size < (1 if kind == _NOP else 2) or at + size > end:
            return
        yield at, kind, size
        at += size


def _translate_blocks(raw: bytearray, at: int, end: int, blocks: Blocks) -> None:
    for where, kind, size in list(_options(raw, at, end)):
        if kind != _SACK:
            continue
        kept = b""
        for edge in range(where + 2, where + size - 7, 8):
            found = blocks(*_NUMBERS.unpack_from(raw, edge))
            if found is not None:
                kept += _NUMBERS.pack(wrap(found[0]), wrap(found[1]))
        option = bytes([_SACK, 2 + len(kept)]) + kept if kept else b""
        raw[where : where + size] = option.ljust(size, bytes([_NOP]))


def _adjust(raw: bytearray, where: int, before: int, after: int) -> None:
    """Update the checksum at *where* for words whose sum was *before* and is *after* (RFC 1624)."""
    total = (int.from_bytes(raw[where : where + 2], "big") ^ 0xFFFF) + (_folded(before) ^ 0xFFFF) + after
    raw[where : where + 2] = (_folded(total) ^ 0xFFFF).to_bytes(2, "big")


def _checksum(data: bytes) -> bytes:
    """The checksum of *data* (RFC 1071)."""
    return (_folded(_sum(data)) ^ 0xFFFF).to_bytes(2, "big")


def _folded(total: int) -> int:
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def _sum(data: bytes | bytearray) -> int:
    """One's complement sum of *data* as 16-bit words; odd data is padded with a zero byte (RFC 1071)."""
    if len(data) & 1:
        data = data + b"\0"
    total = int.from_bytes(data, "big")
    # The sum is the value modulo 65535. Of the two zeros of one's complement, only all-zero data gives 0.
    return total and (total - 1) % 0xFFFF + 1
