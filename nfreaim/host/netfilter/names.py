"""Names that the rules and the daemon share: chains, sets, time-outs, and bits of packet mark and connmark.

The script rules/nfreaim-rules has the same values in its head, and `nfreaim-rules names` prints them; a test
compares the two. Nothing else in the package spells one of them out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

CHAIN: Final = "NFREAIM"
"""In raw and mangle: the client is inside. In nat: pinholes. The names of all our chains begin with it."""

SERVER_CHAIN: Final = "NFREAIM_SERVER"
OWN_CHAIN: Final = "NFREAIM_OWN"
GATE_CHAIN: Final = "NFREAIM_GATE"
VERIFIED_CHAIN: Final = "NFREAIM_VERIFIED"
CHAINS: Final = (CHAIN, SERVER_CHAIN, OWN_CHAIN, GATE_CHAIN, VERIFIED_CHAIN)

BUCKET_CHAIN: Final = "NFREAIM_D"
"""And a number: the daemon's own chains in nat, see host.netfilter.iptables."""

LAN_SET: Final = "nfreaim_lan"
"""Networks inside."""

OFFLOAD_SET: Final = "nfreaim_off"
"""Flows that skip the queue."""

SKEW_SET: Final = "nfreaim_skew"
"""Flows whose packets wait for a daemon, because only a daemon can translate them."""

SERVER_SET: Final = "nfreaim_srv"
"""Followed servers: server, port, client that was redirected there; the comment names the protocol."""

PIN_SET: Final = "nfreaim_pin"
"""Pinholes."""

SETS: Final = (LAN_SET, OFFLOAD_SET, SKEW_SET, SERVER_SET, PIN_SET)

OFFLOAD_TIMEOUT_S: Final = 3600
SKEW_TIMEOUT_S: Final = 432000
SERVER_TIMEOUT_S: Final = 7200
PIN_TIMEOUT_S: Final = 600
"""Of an entry that names no time-out of its own; the daemon's always do."""

COMMENT: Final = "nfreaim"
"""Begins the comment of every rule and entry of ours; in rules of a protocol its name follows."""

PACKET_MARK_MASK: Final = 0x9D0000
CONNMARK_MASK: Final = 0x600000


def bits(mask: int) -> Iterator[int]:
    """The bits that are set in *mask*, the lowest first."""
    while mask:
        yield mask & -mask
        mask &= mask - 1


SKEWED_MARK, DONE_MARK, OWN_MARK, INSIDE_MARK, VERIFIED_MARK = bits(PACKET_MARK_MASK)
"""Packet marks, in this order: the rules say that the packet's flow is skewed; the daemon changed the packet,
so it is never queued again; the daemon made it; and that one is on its way to inside; the connection of the
packet is verified, so the rules take it out of the queue."""

PINHOLE_MARK, UNVERIFIED_MARK = bits(CONNMARK_MASK)
"""Bits of the connmark: the connection came through a pinhole; and its first bytes are to be verified."""
