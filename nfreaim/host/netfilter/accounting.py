"""Accounting: what connection tracking counts of each connection, where the operator has switched that on."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

from nfreaim.host.netfilter.netlink import HEADERS_SIZE, attributes

PATH: Final = Path("/proc/sys/net/netfilter/nf_conntrack_acct")

_CTA_COUNTERS: Final = (9, 10)  # of the original and the reply direction
_COUNTS: Final = (1, 2)  # CTA_COUNTERS_PACKETS, CTA_COUNTERS_BYTES


class Traffic(NamedTuple):
    """What a connection carried, both directions together; *size* in bytes, with the headers of IP."""

    packets: int
    size: int


def traffic_of(message: bytes) -> Traffic | None:
    """What the connection of *message* carried in both directions; None where the kernel does not count."""
    found = dict(attributes(message[HEADERS_SIZE:]))
    each = [dict(attributes(found[kind])) for kind in _CTA_COUNTERS if kind in found]
    if not each:
        return None
    packets, size = (sum(int.from_bytes(one.get(kind, b""), "big") for one in each) for kind in _COUNTS)
    return Traffic(packets, size)


def is_accounting() -> bool:
    """Whether the kernel counts the packets and bytes of connections that begin now."""
    try:
        return PATH.read_text().strip() == "1"
    except OSError:
        return False
