"""Marks: the bits of packet mark and connmark that are ours, the only definition of them.

The rules script has the same defaults in its head, and a test compares the two.

One bit of the packet mark is enough: the daemon sets it on the packet by which the peer gate releases a
connection, in the hook FORWARD, and the first rule of mangle POSTROUTING takes it off again. A table of
nftables sets it on a packet of a known flow while that is queued, and takes it off behind the guard (see
host.netfilter.nft_guard). So no packet has it while a route is looked for. What else the daemon and the rules
have to tell each other needs none: skewed flows are in a set, a packet that connection tracking knows before
our hook has been there before, and the daemon's own packets have a group of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

MARK_MASK: Final = 0x10000000
CONNMARK_MASK: Final = 0x0F000000
"""Defaults. They leave free what others are known to use: the lower 16 bits (plain numbers, mwan3 0x3f00,
Kubernetes 0x4000 and 0x8000), 0xff0000 (OpenWrt pbr, Tailscale) and its neighbours (Calico's packet marks),
and 0xc0000000 (Asus routers)."""

MOST: Final = 0xFFFFFFFF
MARK_BITS: Final = 1
CONNMARK_BITS: Final = 4


@dataclass(frozen=True, slots=True)
class Marks:
    """The bits in use.

    verified    of a packet: it verifies its connection through a pinhole
    incomplete  of a connection: the handshake is not complete, so each packet needs an open pinhole
    pinhole     of a connection: it came through a pinhole or a forward of the configuration
    unverified  of a connection: its first bytes still have to be verified
    forwarded   of a connection: beside *pinhole*, it came through a forward, which has no entry in the set of
                pinholes
    """

    verified: int
    incomplete: int
    pinhole: int
    unverified: int
    forwarded: int

    @classmethod
    def of(cls, mark_mask: int = MARK_MASK, connmark_mask: int = CONNMARK_MASK) -> Marks:
        """The lowest bits of two masks. Raises ValueError, whose text says what is wrong with them."""
        packet, connection = list(bits(mark_mask)), list(bits(connmark_mask))
        if len(packet) < MARK_BITS:
            raise ValueError("mark_mask needs a bit, such as 0x10000000")
        if len(connection) < CONNMARK_BITS:
            raise ValueError(f"connmark_mask needs {CONNMARK_BITS} bits, such as 0x0f000000")
        if mark_mask & connmark_mask:
            raise ValueError(
                f"mark_mask and connmark_mask share {mark_mask & connmark_mask:#x}; a rule that copies one "
                "mark to the other would confuse them, so choose bits of which neither has the other's"
            )
        return cls(packet[0], *connection[:CONNMARK_BITS])

    @property
    def packet(self) -> int:
        """The bits of the packet mark."""
        return self.verified

    @property
    def connection(self) -> int:
        """The bits of the connmark."""
        return self.incomplete | self.pinhole | self.unverified | self.forwarded

    def __str__(self) -> str:
        return f"mark_mask = {self.packet:#x} and connmark_mask = {self.connection:#x}"


def bits(mask: int) -> Iterator[int]:
    """The bits that are set in *mask*, the lowest first."""
    while mask:
        yield mask & -mask
        mask &= mask - 1


DEFAULT: Final = Marks.of()
