"""TCP segments and IP fragments made by hand, and an end of a connection that sends nothing else.

The end lives at an address whose node does not answer for it, so no kernel resets what is forged. Offloads
must be off (tests.lab.impair) where segments are counted.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from types import TracebackType

from tests.lab.capture import Capture, Packet
from tests.lab.namespace import socket_in
from tests.lab.net import Lab
from tests.lab.scene import eventually

FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32
DATA = PSH | ACK
End = tuple[str, int]

_MASK = 0xFFFFFFFF
_MORE = 0x2000


def mss(size: int) -> bytes:
    """The TCP option that announces a maximum segment size (RFC 9293 section 3.7.1)."""
    return struct.pack("!BBH", 2, 4, size)


def segment(
    source: End,
    destination: End,
    seq: int,
    ack: int,
    flags: int,
    data: bytes = b"",
    window: int = 64240,
    options: bytes = b"",
    urgent: int = 0,
    damage: int = 0,
) -> bytes:
    """A whole IPv4 packet; its checksums are right, but for *damage* added to that of TCP."""
    offset = (20 + len(options)) // 4 << 4
    numbers = (seq & _MASK, ack & _MASK)
    tcp = struct.pack("!HHIIBBHHH", source[1], destination[1], *numbers, offset, flags, window, 0, urgent)
    tcp += options + data
    ends = socket.inet_aton(source[0]) + socket.inet_aton(destination[0])
    total = _sum(ends + struct.pack("!HH", socket.IPPROTO_TCP, len(tcp)) + tcp)
    tcp = tcp[:16] + struct.pack("!H", (total ^ 0xFFFF) + damage & 0xFFFF) + tcp[18:]
    return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0, 64, socket.IPPROTO_TCP, 0) + ends + tcp


def fragment(packet: bytes, ident: int, at: int, data: bytes, more: bool) -> bytes:
    """*data* as what stands *at* bytes (a multiple of 8) into the IP payload of *packet*."""
    place = at // 8 | (_MORE if more else 0)
    return packet[:2] + struct.pack("!HHH", 20 + len(data), ident, place) + packet[8:20] + data


def cut(packet: bytes, ident: int, size: int) -> list[bytes]:
    """*packet* in fragments of *size* bytes, a multiple of 8."""
    body = packet[20:]
    starts = range(0, len(body), size)
    return [fragment(packet, ident, at, body[at : at + size], at + size < len(body)) for at in starts]


def _sum(data: bytes) -> int:
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


class Sender:
    """Sends packets from a node just as they are, whatever their source; a context manager."""

    def __init__(self, lab: Lab, node: str) -> None:
        self._socket = socket_in(lab, node, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)

    def __enter__(self) -> Sender:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def __call__(self, *packets: bytes) -> None:
        for packet in packets:
            self._socket.sendto(packet, (socket.inet_ntoa(packet[16:20]), 0))


class Forger(Sender):
    """One end of a connection, by hand.

    seq, ack  what it sends next, and what it has received in order
    got       the bytes that it received in order; *came* every segment with data, as (sequence number, data)
    """

    def __init__(self, lab: Lab, node: str, own: End, peer: End = ("", 0)) -> None:
        super().__init__(lab, node)
        self._lab, self._node = lab, node
        self.own, self.peer = own, peer
        self.seq, self.ack = 0x70000000, 0
        self.got = b""
        self.came: list[tuple[int, bytes]] = []
        self._seen = 0
        self._capture = Capture(lab, node, "eth0")

    def __enter__(self) -> Forger:
        address, ignore = f"{self.own[0]}/24", f"-d {self.own[0]} -p tcp -j DROP"
        self._lab.run(self._node, *f"ip address replace {address} dev eth0".split())
        self._lab.run(self._node, *f"iptables-legacy -t raw -A PREROUTING {ignore}".split())
        self._capture.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.peer[1]:  # no connection is left behind in any table
            self.send(RST | ACK)
        self._capture.__exit__(kind, error, trace)
        super().__exit__(kind, error, trace)

    def made(
        self, flags: int, data: bytes = b"", off: int = 0, ack: int | None = None, **more: int | bytes
    ) -> bytes:
        """A segment that stands *off* bytes from where this end stands."""
        number = self.ack if ack is None else ack
        return segment(self.own, self.peer, self.seq + off, number, flags, data, **more)  # type: ignore[arg-type]

    def send(self, flags: int, data: bytes = b"", **more: int | bytes) -> None:
        """Send it, and go on behind it."""
        self(self.made(flags, data, **more))
        self.seq += len(data) + bool(flags & SYN) + bool(flags & FIN)

    def look(self) -> list[Packet]:
        """What has come since the last look; data in order are taken, but not acknowledged."""
        packets = self._capture.packets[self._seen :]
        self._seen += len(packets)
        mine = [p for p in packets if not p.leaving and self._concerns(p)]
        for packet in mine:
            if packet.data[packet.tcp + 13] & SYN:
                continue
            if packet.payload:
                self.came.append((packet.seq, packet.payload))
            old = (self.ack - packet.seq) & _MASK
            if old < len(packet.payload):
                self.got += packet.payload[old:]
                self.ack = (self.ack + len(packet.payload) - old) & _MASK
        return mine

    def await_packet(self, wanted: Callable[[int, bytes], bool]) -> Packet:
        """The first packet whose flags and data are *wanted*."""
        return eventually(lambda: next((p for p in self.look() if wanted(flags_of(p), p.payload)), None))  # type: ignore[return-value]

    def await_bytes(self, size: int) -> None:
        """Wait until *size* bytes have come in order."""
        eventually(lambda: self.look() is not None and len(self.got) >= size)

    def accept(self, **more: int | bytes) -> None:
        """Be the server: answer a client's SYN, and take its data from now on."""
        syn = self.await_packet(lambda flags, _: flags & (SYN | ACK) == SYN)
        source = socket.inet_ntoa(syn.data[12:16])
        self.peer, self.ack, self.got, self.came = (source, syn.ports[0]), syn.seq + 1, b"", []
        self.send(SYN | ACK, **more)

    def connect(self) -> None:
        """Be the client: SYN, and what answers it; the third packet is the caller's."""
        self.send(SYN, options=mss(1460))
        answer = self.await_packet(lambda flags, _: flags == SYN | ACK)
        self.ack, self.got, self.came = answer.seq + 1, b"", []

    def _concerns(self, packet: Packet) -> bool:
        fits = (socket.inet_ntoa(packet.data[16:20]), packet.ports[1]) == self.own
        if not fits or flags_of(packet) & (SYN | ACK) == SYN:
            return fits
        return (socket.inet_ntoa(packet.data[12:16]), packet.ports[0]) == self.peer


def flags_of(packet: Packet) -> int:
    """The TCP flag byte."""
    return packet.data[packet.tcp + 13]
