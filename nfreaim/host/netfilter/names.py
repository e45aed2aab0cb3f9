"""Names that the rules and the daemon share: chains, sets, time-outs, and bits of packet mark and connmark.

The script rules/nfreaim-rules has the same values in its head, and `nfreaim-rules names` prints them; a test
compares the two. No other module of the package spells one of them out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

CHAIN: Final = "NFREAIM"
"""In raw and mangle it queues flows whose client is inside; in nat and filter it serves pinholes. The names
of all our chains begin with it."""

SERVER_CHAIN: Final = "NFREAIM_SERVER"
OWN_CHAIN: Final = "NFREAIM_OWN"
GATE_CHAIN: Final = "NFREAIM_GATE"
VERIFIED_CHAIN: Final = "NFREAIM_VERIFIED"
CHAINS: Final = (CHAIN, SERVER_CHAIN, OWN_CHAIN, GATE_CHAIN, VERIFIED_CHAIN)

BUCKET_CHAIN: Final = "NFREAIM_D"
"""Prefix of the daemon's own chains in nat; a number follows. See host.netfilter.iptables."""

LAN_SET: Final = "nfreaim_lan"
"""Networks inside."""

OFFLOAD_SET: Final = "nfreaim_off"
"""Flows that skip the queue."""

SKEW_SET: Final = "nfreaim_skew"
"""Skewed flows. Their packets are queued without bypass, because only a daemon can translate them."""

SERVER_SET: Final = "nfreaim_srv"
"""Followed servers: server, port, client that was redirected there; the comment names the protocol."""

PIN_SET: Final = "nfreaim_pin"
"""Pinholes."""

SETS: Final = (LAN_SET, OFFLOAD_SET, SKEW_SET, SERVER_SET, PIN_SET)

OFFLOAD_TIMEOUT_S: Final = 3600
SKEW_TIMEOUT_S: Final = 432000
SERVER_TIMEOUT_S: Final = 7200
PIN_TIMEOUT_S: Final = 600
"""Of an entry that is added without a time-out of its own; the daemon always gives one."""

COMMENT: Final = "nfreaim"
"""The comment of every rule and entry of ours begins with it; in a protocol's rules the protocol's name
follows."""

PACKET_MARK_MASK: Final = 0x9D0000
CONNMARK_MASK: Final = 0x600000


def bits(mask: int) -> Iterator[int]:
    """The bits that are set in *mask*, the lowest first."""
    while mask:
        yield mask & -mask
        mask &= mask - 1


SKEWED_MARK, DONE_MARK, OWN_MARK, INSIDE_MARK, VERIFIED_MARK = bits(PACKET_MARK_MASK)
"""Packet marks.

SKEWED    set by the rules: the packet's flow is skewed
DONE      set by the daemon on a packet that it changed, so that the rules do not queue it again
OWN       set by the daemon on a packet of its own making
INSIDE    set beside OWN if that packet goes to an inside host
VERIFIED  set by the daemon: the packet's connection is verified, and the rules stop queueing it
"""

PINHOLE_MARK, UNVERIFIED_MARK = bits(CONNMARK_MASK)
"""Connmark bits. PINHOLE: the connection came through a pinhole. UNVERIFIED: its first bytes still have to be
verified."""
