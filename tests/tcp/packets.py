"""IPv4/TCP packets: made field by field with right checksums, and read again.

Layouts: RFC 791 section 3.1, RFC 9293 section 3.1, RFC 2018 (SACK). Checksums are counted from scratch.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import Final, TypedDict, Unpack

FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32
PSH_ACK: Final = PSH | ACK
WRAP: Final = 1 << 32
_DF, _MORE = 0x4000, 0x2000
_NOP, _MSS, _SACK = 1, 2, 5

Endpoint = tuple[str, int]
Direction = tuple[str, int, str, int]
"""Source address and port, destination address and port."""


class Rest(TypedDict, total=False):
    """Fields of a packet that are seldom of interest."""

    tcp_options: bytes  # padded with NOPs to a multiple of four, as ip_options
    ip_options: bytes
    window: int  # 64240
    urgent: int
    ident: int
    damage: int  # what is added to the TCP checksum


def packet(
    source: Endpoint,
    target: Endpoint,
    seq: int,
    ack: int,
    flags: int,
    data: bytes = b"",
    **rest: Unpack[Rest],
) -> bytes:
    """A whole packet that may not be fragmented; its checksums are right but for `damage`."""
    ip_options, options = padded(rest.get("ip_options", b"")), padded(rest.get("tcp_options", b""))
    ends = packed(source[0]) + packed(target[0])
    ports = struct.pack("!HH", source[1], target[1])
    offset = (20 + len(options)) // 4 << 4
    window, urgent = rest.get("window", 64240), rest.get("urgent", 0)
    tcp = ports + struct.pack("!IIBBHHH", seq % WRAP, ack % WRAP, offset, flags, window, 0, urgent)
    tcp += options + data
    first, size = 0x45 + len(ip_options) // 4, 20 + len(ip_options) + len(tcp)
    ip = struct.pack("!BBHHHBBH", first, 0, size, rest.get("ident", 0), _DF, 64, 6, 0) + ends + ip_options
    return checked(ip + tcp, rest.get("damage", 0))


def checked(raw: bytes, damage: int = 0) -> bytes:
    """The packet with both checksums counted anew."""
    tcp = tcp_at(raw)
    ip = raw[:10] + bytes(2) + raw[12:tcp]
    ip = ip[:10] + (ones_sum(ip) ^ 0xFFFF).to_bytes(2, "big") + ip[12:]
    rest = raw[tcp : tcp + 16] + bytes(2) + raw[tcp + 18 :]
    right = checksum_error(ip + rest)
    return ip + rest[:16] + (right + damage & 0xFFFF).to_bytes(2, "big") + rest[18:]


def padded(options: bytes) -> bytes:
    return options + bytes([_NOP]) * (-len(options) % 4)


def mss(size: int) -> bytes:
    """The TCP option that announces a maximum segment size (RFC 9293 section 3.7.1)."""
    return struct.pack("!BBH", _MSS, 4, size)


def sack(*edges: int) -> bytes:
    """The TCP option with these block edges, left and right by turns, behind two NOPs."""
    return struct.pack(f"!BBBB{len(edges)}I", 1, 1, _SACK, 2 + 4 * len(edges), *(e % WRAP for e in edges))


def fragment(raw: bytes, ident: int, at: int, data: bytes, more: bool) -> bytes:
    """*data* as what stands *at* bytes (a multiple of 8) into the IP payload; the kernel counts the sum."""
    place = at // 8 | (_MORE if more else 0)
    return raw[:2] + struct.pack("!HHH", 20 + len(data), ident, place) + raw[8:20] + data


def cut(raw: bytes, ident: int, size: int) -> list[bytes]:
    """A packet without IP options in fragments of *size* bytes, a multiple of 8."""
    body = raw[20:]
    starts = range(0, len(body), size)
    return [fragment(raw, ident, at, body[at : at + size], at + size < len(body)) for at in starts]


def packed(address: str) -> bytes:
    return socket.inet_aton(address)


def near(number: int, to: int) -> int:
    """*number* modulo 2**32, as the number nearest to *to*."""
    return to + (number - to + WRAP // 2) % WRAP - WRAP // 2


def ones_sum(data: bytes | bytearray) -> int:
    """The sum of RFC 1071; 0xFFFF over what includes its right checksum."""
    words: tuple[int, ...] = struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2))
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def checksum_error(raw: bytes | bytearray) -> int:
    """0 if the TCP checksum is right; pseudo-header included."""
    tcp = tcp_at(raw)
    pseudo = raw[12:20] + struct.pack("!HH", 6, len(raw) - tcp)
    return ones_sum(pseudo + raw[tcp:]) ^ 0xFFFF


def ip_checksum_error(raw: bytes | bytearray) -> int:
    return ones_sum(raw[: tcp_at(raw)]) ^ 0xFFFF


def tcp_at(raw: bytes | bytearray) -> int:
    return (raw[0] & 15) * 4


def payload_at(raw: bytes | bytearray) -> int:
    return tcp_at(raw) + (raw[tcp_at(raw) + 12] >> 4) * 4


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet, read. *raw*: from the IP header on, nothing behind it."""

    raw: bytes

    @property
    def tcp(self) -> int:
        """Where the TCP header begins."""
        return tcp_at(self.raw)

    @property
    def ident(self) -> int:
        return int.from_bytes(self.raw[4:6], "big")

    @property
    def source(self) -> Endpoint:
        return socket.inet_ntoa(self.raw[12:16]), self.ports[0]

    @property
    def target(self) -> Endpoint:
        return socket.inet_ntoa(self.raw[16:20]), self.ports[1]

    @property
    def direction(self) -> Direction:
        return *self.source, *self.target

    @property
    def ports(self) -> tuple[int, int]:
        """Source and destination port."""
        source, target = struct.unpack_from("!HH", self.raw, self.tcp)
        return source, target

    @property
    def seq(self) -> int:
        return self._number(4)

    @property
    def ack(self) -> int:
        return self._number(8)

    def _number(self, at: int) -> int:
        return int.from_bytes(self.raw[self.tcp + at : self.tcp + at + 4], "big")

    @property
    def flags(self) -> int:
        return self.raw[self.tcp + 13]

    @property
    def window(self) -> int:
        return int.from_bytes(self.raw[self.tcp + 14 : self.tcp + 16], "big")

    @property
    def options(self) -> dict[int, bytes]:
        """The TCP options by kind, without NOPs; well-formed ones only."""
        left, found = self.raw[self.tcp + 20 : self.start], dict[int, bytes]()
        while left and left[0]:
            size = 1 if left[0] == _NOP else max(left[1], 2)
            if size > 1:
                found[left[0]] = left[2:size]
            left = left[size:]
        return found

    @property
    def blocks(self) -> list[tuple[int, int]]:
        """The SACK blocks: left and right edge each."""
        return list(struct.iter_unpack("!II", self.options.get(_SACK, b"")))

    @property
    def start(self) -> int:
        """Where the payload begins."""
        return payload_at(self.raw)

    @property
    def payload(self) -> bytes:
        return self.raw[self.start :]

    def judged(self) -> Packet:
        """Itself; AssertionError if a length or a checksum is wrong."""
        assert int.from_bytes(self.raw[2:4], "big") == len(self.raw), "the length in the IP header is wrong"
        assert ip_checksum_error(self.raw) == 0, "the IP checksum is wrong"
        assert checksum_error(self.raw) == 0, "the TCP checksum is wrong"
        return self

    def changed(
        self, *, seq: int | None = None, flags: int | None = None, payload: bytes | None = None
    ) -> Packet:
        """The packet with what is given in place of what it had; lengths and checksums fit."""
        head = bytearray(self.raw[: self.start])
        payload = self.payload if payload is None else payload
        tcp = self.tcp
        head[2:4] = (len(head) + len(payload)).to_bytes(2, "big")
        head[tcp + 4 : tcp + 8] = ((self.seq if seq is None else seq) % WRAP).to_bytes(4, "big")
        head[tcp + 13] = self.flags if flags is None else flags
        return Packet(checked(bytes(head) + payload))
