"""An end of a connection in the lab that sends what a test makes by hand, and nothing else.

The end lives at an address whose node does not answer for it, so no kernel resets what is forged. Offloads
must be off (tests.lab.impair) where segments are counted.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from types import TracebackType
from typing import Unpack

from tests.lab.capture import Capture, Passed
from tests.lab.namespace import socket_in
from tests.lab.net import Lab
from tests.lab.scene import eventually
from tests.tcp.packets import ACK, FIN, RST, SYN, WRAP, Endpoint, Rest, mss, packet


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
        for raw in packets:
            self._socket.sendto(raw, (socket.inet_ntoa(raw[16:20]), 0))


class Forger(Sender):
    """One end of a connection, by hand.

    seq, ack  what it sends next, and what it has received in order
    got       the bytes that it received in order; *came* every segment with data, as (sequence number, data)
    """

    def __init__(self, lab: Lab, node: str, own: Endpoint, peer: Endpoint = ("", 0)) -> None:
        super().__init__(lab, node)
        self._lab, self._node = lab, node
        self.own, self.peer = own, peer
        self.seq, self.ack = 0x70000000, 0
        self.got = b""
        self.came: list[tuple[int, bytes]] = []
        self._seen = 0
        self._capture = Capture(lab, node, "eth0")

    def __enter__(self) -> Forger:
        address, ignore = f"{self.own[0]}/24", f"-d {self.own[0]} -p tcp --dport {self.own[1]} -j DROP"
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
        self, flags: int, data: bytes = b"", off: int = 0, ack: int | None = None, **rest: Unpack[Rest]
    ) -> bytes:
        """A segment that stands *off* bytes from where this end stands."""
        number = self.ack if ack is None else ack
        return packet(self.own, self.peer, self.seq + off, number, flags, data, **rest)

    def send(self, flags: int, data: bytes = b"", ack: int | None = None, **rest: Unpack[Rest]) -> None:
        """Send it, and go on behind it."""
        self(self.made(flags, data, ack=ack, **rest))
        self.seq += len(data) + bool(flags & SYN) + bool(flags & FIN)

    def look(self) -> list[Passed]:
        """What has come since the last look; data in order are taken, but not acknowledged."""
        packets = self._capture.packets[self._seen :]
        self._seen += len(packets)
        mine = [p for p in packets if not p.leaving and self._concerns(p)]
        for one in mine:
            if one.flags & SYN:
                continue
            if one.payload:
                self.came.append((one.seq, one.payload))
            old = (self.ack - one.seq) % WRAP
            if old < len(one.payload):
                self.got += one.payload[old:]
                self.ack = (self.ack + len(one.payload) - old) % WRAP
        return mine

    def await_packet(self, wanted: Callable[[int, bytes], bool], seconds: float = 15.0) -> Passed:
        """The first packet whose flags and data are *wanted*."""
        return eventually(lambda: [p for p in self.look() if wanted(p.flags, p.payload)], seconds)[0]

    def await_bytes(self, size: int) -> None:
        """Wait until *size* bytes have come in order."""
        eventually(lambda: self.look() is not None and len(self.got) >= size)

    def accept(self, **rest: Unpack[Rest]) -> None:
        """Be the server: answer a client's SYN, and take its data from now on."""
        syn = self.await_packet(lambda flags, _: flags & (SYN | ACK) == SYN)
        self.peer, self.ack, self.got, self.came = syn.source, syn.seq + 1, b"", []
        self.send(SYN | ACK, **rest)

    def connect(self, early: bytes = b"") -> None:
        """Be the client: SYN, with *early* on it that counts for nothing, and what answers it; the third
        packet is the caller's."""
        self(self.made(SYN, early, tcp_options=mss(1460)))
        self.seq += 1
        answer = self.await_packet(lambda flags, _: flags == SYN | ACK)
        self.ack, self.got, self.came = answer.seq + 1, b"", []

    def _concerns(self, one: Passed) -> bool:
        if one.target != self.own or one.flags & (SYN | ACK) == SYN:
            return one.target == self.own
        return one.source == self.peer
