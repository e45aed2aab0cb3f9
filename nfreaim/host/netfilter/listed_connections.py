"""The connections that entries of a set of flows stand for, with both ends.

An entry lacks the server's port, which connection tracking knows. Layouts:
linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterator
from contextlib import closing
from typing import Final

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.errors import BackendError
from nfreaim.host.netfilter.kernel_sets import FlowEntry
from nfreaim.host.netfilter.netlink import DUMP, REQUEST, Netlink, attributes, message

_GET: Final = 0x0101  # IPCTNL_MSG_CT_GET of the subsystem of connection tracking
_ORIGINAL, _REPLY = 1, 2  # CTA_TUPLE_ORIG, CTA_TUPLE_REPLY
_IP, _PROTO = 1, 2
_SOURCE = 1  # CTA_IP_V4_SRC
_NUMBER, _SOURCE_PORT = 1, 2  # CTA_PROTO_NUM, CTA_PROTO_SRC_PORT


def connections_of(entries: Collection[FlowEntry]) -> Iterator[FlowId]:
    """The TCP connections among *entries*, by the ends that the inside sees. Raises BackendError.

    These are the sources of both tuples: who sends in the original direction before source NAT, and who
    answers behind destination NAT. An entry that a packet of the server's made anew has them in turn.
    """
    wanted = set(entries)
    if not wanted:
        return
    with closing(Netlink()) as netlink:
        try:
            for body in netlink.dump(message(_GET, REQUEST | DUMP)):
                found = dict(attributes(body))
                ends = [_source(found.get(kind, b"")) for kind in (_ORIGINAL, _REPLY)]
                for client, server in (ends, ends[::-1]):
                    if client and server and FlowEntry(client, server.address) in wanted:
                        yield FlowId(client, server)
        except OSError as error:
            raise BackendError(f"connection tracking: {error}") from error


def _source(tuple_: bytes) -> Endpoint | None:
    """The source in one of an entry's tuples; None if that is not TCP over IPv4."""
    parts = dict(attributes(tuple_))
    ip, protocol = dict(attributes(parts.get(_IP, b""))), dict(attributes(parts.get(_PROTO, b"")))
    address, port = ip.get(_SOURCE, b""), protocol.get(_SOURCE_PORT, b"")
    if protocol.get(_NUMBER) != bytes((socket.IPPROTO_TCP,)) or len(address) != 4:
        return None
    return Endpoint(socket.inet_ntoa(address), int.from_bytes(port, "big"))
