"""A peer that writes its own TCP packets: what no operating system would send, a hostile one may."""

from __future__ import annotations

import itertools
import socket
import time
from types import TracebackType

from nfreaim.core.address import Endpoint
from nfreaim.core.tcp.segment import ACK, SYN, Segment
from tests.lab.namespace import socket_in
from tests.lab.net import ADDRESS, Lab
from tests.unit.fakes import PSH_ACK, packet

_PORTS = itertools.count(50000)
ISN = 4_294_967_290  # the numbers wrap within the greeting


class RawPeer:
    """One connection from bob to *target*, begun but for its handshake."""

    def __init__(self, lab: Lab, target: Endpoint) -> None:
        self.ends = (Endpoint(ADDRESS["bob"], next(_PORTS)), target)
        # Bob's own kernel knows nothing of this connection, and would reset it.
        rule = f"OUTPUT -p tcp --sport {self.ends[0].port} --tcp-flags RST RST -j DROP"
        lab.run("bob", "iptables-legacy", "-A", *rule.split())
        self._out = socket_in(lab, "bob", socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self._in = socket_in(lab, "bob", socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
        self.ack = 0

    def __enter__(self) -> RawPeer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._out.close()
        self._in.close()

    def send(self, at: int, data: bytes = b"", flags: int = PSH_ACK, fragments: int = 0) -> None:
        """Send *data* at stream offset *at*, in IPv4 fragments of that many bytes if they are asked for."""
        raw = packet(*self.ends, ISN + 1 + at & 0xFFFFFFFF, self.ack, flags, data)
        for piece in pieces(raw, fragments) if fragments else [raw]:
            self._out.sendto(piece, (self.ends[1].address, 0))

    def answer(self, flags: int, seconds: float = 5.0) -> Segment:
        """The next packet that comes back with these flags."""
        deadline = time.monotonic() + seconds
        while True:
            self._in.settimeout(max(0.01, deadline - time.monotonic()))
            segment = Segment.parse(self._in.recv(65535))
            ends = self.ends[1].port.to_bytes(2, "big") + self.ends[0].port.to_bytes(2, "big")
            if segment is not None and segment.key[8:] == ends and segment.flags & flags == flags:
                return segment

    def handshake(self, data: bytes = b"") -> RawPeer:
        """SYN (with *data* on it), SYN/ACK, ACK."""
        self.send(-1, data, SYN)
        self.ack = self.answer(SYN | ACK).seq + 1 & 0xFFFFFFFF
        self.send(0, flags=ACK)
        return self


def pieces(raw: bytes, size: int) -> list[bytes]:
    """An IPv4 packet as fragments of *size* payload bytes, a multiple of 8 (RFC 791 section 3.2)."""
    made = []
    for at in range(20, len(raw), size):
        data = raw[at : at + size]
        more = 0x2000 if at + size < len(raw) else 0
        head = bytearray(raw[:20])
        head[2:4] = (20 + len(data)).to_bytes(2, "big")
        head[6:8] = (more | (at - 20) // 8).to_bytes(2, "big")
        made.append(bytes(head) + data)  # the kernel fills in the checksum of a raw packet's IPv4 header
    return made
