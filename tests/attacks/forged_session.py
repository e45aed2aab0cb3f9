"""A session in a LAN host's name, played by another LAN host and by a server outside that is its accomplice.

The forger sends what the host would, with its address, and the server tells the forger all that it needs to
know of its own side. The host answers what it did not ask for as it likes; the forger never sees it.
"""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass

from tests.attacks import wire
from tests.lab.forged import Forger, Sender
from tests.lab.net import ADDRESS
from tests.oscar.snac import SET_STATUS, snac_frame
from tests.oscar.tlv import tlv
from tests.oscar.values import ip4
from tests.tcp.packets import ACK, PSH_ACK, SYN, mss, packet

MD5 = bytes([1, 1, 19, 18]) + bytes(16)
"""TCP option 19 (RFC 2385): a Linux host without a key for it drops the segment and says nothing."""
PAUSE = 0.02
"""Seconds between two packets of amy's and the server's, so that they come in this order."""
FORGETTING = 13.0
"""Seconds after which conntrack has forgotten a connection that was reset (its time for CLOSE is ten)."""


@dataclass
class Session:
    """alice's session, as amy plays it from *own*; *options* are on each segment of the server."""

    forger: Sender
    server: Forger
    own: tuple[str, int]
    options: bytes = b""
    seq: int = 0x1000
    frames: int = 2

    def say(self, flags: int, data: bytes = b"") -> None:
        """amy sends that in alice's name."""
        ack = self.server.seq if flags & ACK else 0
        options = mss(1460) if flags & SYN else b""
        self.forger(packet(self.own, self.server.own, self.seq, ack, flags, data, tcp_options=options))
        self.seq += len(data) + bool(flags & SYN)
        time.sleep(PAUSE)

    def answer(self, data: bytes) -> None:
        """The server sends that."""
        self.server.send(PSH_ACK, data, ack=self.seq, tcp_options=self.options)
        time.sleep(PAUSE)

    def sign_on(self) -> None:
        """Handshake, both sign-on frames and the server's list of families."""
        self.say(SYN)
        self.server.accept(tcp_options=mss(1460) + self.options)
        self.say(ACK)
        self.answer(wire.SIGN_ON)
        self.say(PSH_ACK, wire.SIGN_ON)
        self.answer(wire.HOST_ONLINE)
        self.say(ACK)

    def pick_up(self) -> None:
        """A little more from both sides, so that conntrack takes the connection up amid it."""
        self.say(PSH_ACK, wire.keepalive(self.frames))
        self.frames += 1
        self.answer(wire.keepalive(3))
        self.say(ACK)

    def ask(self, port: int, standing: bool) -> None:
        """Ask for a pinhole to alice's *port*: one for a file, or an ICQ client's *standing* one."""
        if standing:
            direct = struct.pack("!IBHIIIIIIH", port, 4, 8, 0x1234, 0x50, 3, 0, 0, 0, 0)
            body = tlv(0x0C, ip4(ADDRESS["alice"]) + direct)
            data = snac_frame(SET_STATUS, body, number=self.frames, request=0)
        else:
            data = wire.proposal(ADDRESS["alice"], port, self.frames, b"%07d\0" % port, secure=True)
        self.say(PSH_ACK, data)
        self.frames += 1
