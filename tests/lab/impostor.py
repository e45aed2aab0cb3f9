"""A LAN host that plays a client's whole session in another host's name, with a server outside that helps.

The server tells the forger each number it needs, so nothing has to be guessed. What the host whose name is
used does with the packets that reach it is the test's.
"""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass

from tests.lab.capture import Capture
from tests.lab.forged import Forger, Sender
from tests.lab.net import ADDRESS, Lab
from tests.lab.scene import eventually
from tests.lab.slipstream import HOST_ONLINE, SIGN_ON, proposal
from tests.oscar.snac import SET_STATUS, snac_frame
from tests.oscar.tlv import tlv
from tests.oscar.values import ip4
from tests.tcp.packets import ACK, PSH_ACK, SYN, Endpoint, checked, mss, packet

MD5 = bytes([19, 18]) + bytes(16)
"""TCP option 19 (RFC 2385), which a host without a key for it drops in silence."""
AO = bytes([29, 16, 1, 1]) + bytes(12)
"""TCP option 29 (RFC 5925): the same."""
KEEP_ALIVE = b"\x2a\x05"


def status(address: str, port: int, number: int) -> bytes:
    """SNAC(01,1E) of an ICQ client that listens on *port*."""
    direct = struct.pack("!IBHIIIIIIH", port, 4, 8, 0x1234, 0x50, 3, 0, 0, 0, 0)
    return snac_frame(SET_STATUS, tlv(0x0C, ip4(address) + direct), number=number, request=0)


def mortal(raw: bytes) -> bytes:
    """The packet with a time to live of 1: it reaches the router and nothing behind it."""
    return checked(raw[:8] + b"\1" + raw[9:])


@dataclass
class Session:
    """The session of *own*, whose packets *sender* makes; it knows all numbers of *server*."""

    lab: Lab
    sender: Sender
    server: Forger
    own: Endpoint
    air: Capture
    seq: int = 0x1000
    frames: int = 2

    def say(self, flags: int, data: bytes = b"") -> None:
        """Send that in the client's name, and wait until the router has had it."""
        ack = self.server.seq if flags & ACK else 0
        raw = packet(self.own, self.server.own, self.seq, ack, flags, data, tcp_options=self._options(flags))
        known = self._came()
        self.sender(raw)
        eventually(lambda: self._came() > known)
        self.seq += len(data) + bool(flags & SYN)

    @staticmethod
    def _options(flags: int) -> bytes:
        return mss(1460) if flags & SYN else b""

    def _came(self) -> int:
        return sum(not p.leaving and p.source == self.own for p in list(self.air.packets))

    def _went(self) -> int:
        return sum(p.leaving and p.target == self.own for p in list(self.air.packets))

    def hear(self, data: bytes, options: bytes = b"") -> None:
        """The server sends that, again and again, as TCP does, until the router has forwarded it.

        Connection tracking drops it while what it acknowledges waits in the queue.
        """
        raw = self.server.made(PSH_ACK, data, ack=self.seq, tcp_options=options)
        known, due = self._went(), 0.0

        def went() -> bool:
            nonlocal due
            if (now := time.monotonic()) >= due:
                self.server(raw)
                due = now + 0.5
            return self._went() > known

        eventually(went)
        self.server.seq += len(data)

    def handshake(self, options: bytes = b"") -> None:
        """All three packets; *options* are on the server's."""
        self.say(SYN)
        self.server.accept(tcp_options=mss(1460) + options)
        self.say(ACK)

    def sign_on(self, options: bytes = b"") -> None:
        """Up to where proposals are read."""
        self.frames = 2
        self.hear(SIGN_ON, options)
        self.say(PSH_ACK, SIGN_ON)
        self.hear(HOST_ONLINE, options)
        self.say(ACK)

    def go_on(self, options: bytes = b"") -> None:
        """A frame of each end: enough for connection tracking to take up a connection that it forgot."""
        self.say(PSH_ACK, self._keep_alive())
        self.hear(b"\x2a\x05\0\3\0\0", options)
        self.say(ACK)

    def _keep_alive(self) -> bytes:
        self.frames += 1
        return KEEP_ALIVE + (self.frames - 1).to_bytes(2, "big") + bytes(2)

    def ask(self, port: int, standing: bool = False) -> None:
        """Ask for a pinhole to *port*: for a file, or as an ICQ client that listens there."""
        make = status if standing else proposal
        self.say(PSH_ACK, make(self.own[0], port, self.frames))
        self.frames += 1


@contextlib.contextmanager
def session(lab: Lab, node: str, name: str, port: int, at: str) -> Iterator[Session]:
    """A session of host *name*'s *port* with a server at *at* (an address on node bob), made by *node*."""
    with (
        Forger(lab, "bob", (at, 5190)) as server,
        Sender(lab, node) as sender,
        Capture(lab, "A", "lan") as air,
    ):
        yield Session(lab, sender, server, (ADDRESS[name], port), air)
