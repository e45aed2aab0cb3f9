"""The connections that inside hosts have to a server on the inside, as connection tracking holds them.

Only connections that pass this router are there: of hosts in another network than the server's, of hosts that
use the router's outside address, and, with bridge-nf-call-iptables, across a bridge of the router.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from nfreaim.core.address import Endpoint
from nfreaim.errors import BackendError
from nfreaim.host.netfilter.conntrack import ESTABLISHED
from nfreaim.host.netfilter.netlink import (
    DUMP,
    REQUEST,
    Netlink,
    attribute,
    attributes,
    message,
    nest,
)

_GET: Final = 0x0101  # IPCTNL_MSG_CT_GET of the subsystem of connection tracking
_TUPLE_ORIG, _TUPLE_REPLY, _STATUS, _PROTOINFO, _FILTER = 1, 2, 3, 4, 25
_IP, _PROTO = 1, 2  # in a tuple
_SRC, _DST = 1, 2  # addresses
_NUMBER, _SPORT = 1, 2
_TCP, _STATE, _FLAGS_ORIG, _FLAGS_REPLY = 1, 1, 4, 5
_ORIG_FLAGS, _REPLY_FLAGS = 1, 2  # in a filter
_BY_SOURCE: Final = 1 << 0 | 1 << 3 | 1 << 4  # address, protocol, port

_SEEN_REPLY, _ASSURED = 1 << 1, 1 << 2
# A connection that was picked up in the middle is judged liberally, because nobody knows its windows.
_BE_LIBERAL: Final = 0x08


class OwnConnection(NamedTuple):
    """An established connection of *host*; *whole*: it was seen from its SYN on, and in both directions."""

    host: str
    whole: bool


class OwnConnections:
    """Asks connection tracking. One dump is filtered by the kernel (Linux 5.8), else here."""

    def __init__(self) -> None:
        self._netlink = Netlink()

    def close(self) -> None:
        """Close the socket."""
        self._netlink.close()

    def to(self, server: Endpoint) -> list[OwnConnection]:
        """The established connections to *server*. Raises BackendError."""
        try:
            return [one for body in self._netlink.dump(_question(server)) for one in _found(body, server)]
        except OSError as error:
            raise BackendError(f"connection tracking: {error}") from error


def _found(body: bytes, server: Endpoint) -> Iterator[OwnConnection]:
    if socket.inet_aton(server.address) not in body:
        return
    entry = dict(attributes(body))
    tcp = _nested(_nested(entry, _PROTOINFO), _TCP)
    if tcp.get(_STATE) != bytes([ESTABLISHED]) or _source(entry, _TUPLE_REPLY) != server:
        return
    status = int.from_bytes(entry.get(_STATUS, b""), "big")
    liberal = any(tcp.get(flags, b"\xff")[0] & _BE_LIBERAL for flags in (_FLAGS_ORIG, _FLAGS_REPLY))
    if status & _SEEN_REPLY:
        yield OwnConnection(_source(entry, _TUPLE_ORIG).address, bool(status & _ASSURED) and not liberal)


def _nested(entry: dict[int, bytes], kind: int) -> dict[int, bytes]:
    return dict(attributes(entry.get(kind, b"")))


def _source(entry: dict[int, bytes], which: int) -> Endpoint:
    found = _nested(entry, which)
    address, port = _nested(found, _IP).get(_SRC, bytes(4)), _nested(found, _PROTO).get(_SPORT, bytes(2))
    return Endpoint(socket.inet_ntoa(address), int.from_bytes(port, "big"))


def _question(server: Endpoint) -> bytearray:
    port = server.port.to_bytes(2, "big")
    address = nest(_IP, attribute(_SRC, socket.inet_aton(server.address)))
    tcp = nest(_PROTO, attribute(_NUMBER, bytes([socket.IPPROTO_TCP])) + attribute(_SPORT, port))
    by = attribute(_ORIG_FLAGS, struct.pack("=I", 0)) + attribute(_REPLY_FLAGS, struct.pack("=I", _BY_SOURCE))
    return message(_GET, REQUEST | DUMP, nest(_TUPLE_REPLY, address + tcp) + nest(_FILTER, by))
