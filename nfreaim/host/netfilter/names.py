"""Names that the rules and the daemon share: chains, sets and time-outs. Bits of marks are in nfreaim.marks.

The script rules/nfreaim-rules has the same values in its head, and `nfreaim-rules names` prints them; a test
compares the two. No other module of the package spells one of them out.
"""

from __future__ import annotations

from typing import Final

CHAIN: Final = "NFREAIM"
"""In raw and mangle it queues flows whose client is inside; in nat and filter it serves pinholes. The names
of all our chains begin with it."""

SERVER_CHAIN: Final = "NFREAIM_SERVER"
OWN_CHAIN: Final = "NFREAIM_OWN"
GATE_CHAIN: Final = "NFREAIM_GATE"
VERIFIED_CHAIN: Final = "NFREAIM_VERIFIED"
RESTORED_CHAIN: Final = "NFREAIM_RESTORED"
"""In mangle it takes our bits off packet marks that another program took from the connmark."""

ENTRY_CHAIN: Final = "NFREAIM_ENTRY"
HELPER_CHAIN: Final = "NFREAIM_HELPER"
"""In raw it assigns the kernel's own helpers."""

LOCAL_CHAIN: Final = "NFREAIM_LOCAL"
"""Serves clients on this router itself."""
FLOWTABLE_CHAIN: Final = "NFREAIM_FLOWTABLE"
"""In raw it keeps connections that have to be read out of flowtables."""

TRIED_CHAIN: Final = "NFREAIM_TRIED"
"""Exists only while the rules script tries whether the kernel has a helper."""

CHAINS: Final = (
    *(CHAIN, SERVER_CHAIN, OWN_CHAIN, GATE_CHAIN, VERIFIED_CHAIN, RESTORED_CHAIN, ENTRY_CHAIN),
    *(HELPER_CHAIN, LOCAL_CHAIN, FLOWTABLE_CHAIN, TRIED_CHAIN),
)

BUCKET_CHAIN: Final = "NFREAIM_D"
"""Prefix of the daemon's own chains in nat; a number follows. See host.netfilter.iptables."""

LAN_SET: Final = "nfreaim_lan"
"""Networks inside."""

OFFLOAD_SET: Final = "nfreaim_off"
"""Flows that skip the queue."""

KNOWN_SET: Final = "nfreaim_flow"
"""Flows that the daemon knows. Packets of others wait in queues of their own."""

SKEW_SET: Final = "nfreaim_skew"
"""Skewed flows. Their packets are queued without bypass, because only a daemon can translate them."""

SERVER_SET: Final = "nfreaim_srv"
"""Followed servers: server, port, client that was redirected there; the comment names the protocol."""

PIN_SET: Final = "nfreaim_pin"
"""Pinholes."""

SHUT_SET: Final = "nfreaim_shut"
"""Outside endpoints of pinholes that were closed just now, where new connections get no answer."""

LOCAL_SET: Final = "nfreaim_local"
"""Flows of clients on this router that are served. The rules fill it."""

NFT_TABLE: Final = "nfreaim"
"""Of nftables, family ip: everything of ours where that is the back end. Its sets have the names above."""

OUR_TABLES: Final = (NFT_TABLE, f"{NFT_TABLE}_")
"""Tables of nftables, family ip, that are ours have the first name, or one that begins with the second."""

ANY_SET: Final = "nfreaim_any"
"""Of NFT_TABLE: pinholes that admit every peer; those in PIN_SET are for the peers that it names."""

PEER_SET: Final = "nfreaim_peer"
OPEN_SET: Final = "nfreaim_open"
"""Of NFT_TABLE: the keys of PIN_SET and ANY_SET as sets, because before Linux 6.4 no rule can ask whether a
map has a key."""

VERIFY_SET: Final = "nfreaim_verify"
"""Of NFT_TABLE: outside endpoints of pinholes where the first bytes of connections have to be verified."""

FORWARD_SET: Final = "nfreaim_forward"
"""Of NFT_TABLE: ports of the configuration's forwards, and the host that each leads to."""

SETS: Final = (LAN_SET, OFFLOAD_SET, SKEW_SET, SERVER_SET, PIN_SET, KNOWN_SET, SHUT_SET, LOCAL_SET)

GUARD_TABLE: Final = "nfreaim_guard"
"""The name of each process's table of nftables that guards its skewed flows begins so; its number follows."""

LAN_INTERFACES: Final = "lan"
WAN_INTERFACES: Final = "wan"
"""Of NFT_TABLE: sets of interfaces."""


def is_our_table(family: str, name: str) -> bool:
    """Whether this table of nftables is ours."""
    whole, beginning = OUR_TABLES
    return family == "ip" and (name == whole or name.startswith(beginning))


OFFLOAD_TIMEOUT_S: Final = 3600
KNOWN_TIMEOUT_S: Final = 7200
MOST_KNOWN: Final = 1048576
"""Entries of the set of known flows."""
SKEW_TIMEOUT_S: Final = 432000
SERVER_TIMEOUT_S: Final = 180
PIN_TIMEOUT_S: Final = 600
"""Of an entry that is added without a time-out of its own; the daemon always gives one."""
SHUT_TIMEOUT_S: Final = 30
MOST_SHUT: Final = 1024
"""Entries of that set."""

COMMENT: Final = "nfreaim"
"""The comment of every rule and entry of ours begins with it; in a protocol's rules the protocol's name
follows."""

FLOWTABLE_HELPER: Final = "nfreaim"
"""The helper of connection tracking that these connections get, see host.netfilter.conntrack_helper."""

OWN_GROUP: Final = 28262
"""The group of the sockets that send the daemon's own packets."""

OWN_PRIORITY: Final = 0x6E660000
"""The priority (SO_PRIORITY) of the same sockets, by which NFT_TABLE tells them: nft does not look at the
further groups of a process. No class of traffic control has this number, and its band is the usual one."""

TEST_LAN: Final = "nfrtest-lan"
"""The inside interface of a self-test; it exists only as long as that runs."""
TEST_WAN: Final = "nfrtest-wan"
TEST_CHAIN: Final = "NFRTEST"
"""In several tables it leads the packets of a self-test to our chains."""
TEST_TABLE: Final = "nfrtest"
"""Of nftables: it traces the packets of a self-test."""
TEST_CLIENT: Final = "192.0.2.2"
TEST_SERVER: Final = "192.0.2.6"
TEST_OUTSIDE: Final = "192.0.2.5"
TEST_CLIENTS: Final = "192.0.2.0/30"
"""The inside network of a self-test."""
TEST_RULE: Final = 19
"""The preference of a self-test's `ip rule`s."""
TEST_ROUTES: Final = 19202
"""The number of its routing table."""
