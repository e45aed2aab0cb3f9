"""PinholeEvents: receives connection tracking's announcements of connections through pinholes."""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from nfreaim.core.address import Endpoint
from nfreaim.errors import BackendError
from nfreaim.host.netfilter.conntrack import ESTABLISHED, decoded
from nfreaim.host.netfilter.netlink import HEADERS_SIZE, NETFILTER

_GROUP_UPDATE: Final = 2  # bit of NFNLGRP_CONNTRACK_UPDATE
_EVENT_BUFFER: Final = 1 << 20  # bytes: some thousand events
_SO_ATTACH_FILTER: Final = 26
_SO_RCVBUFFORCE: Final = 33
_CTA_STATUS: Final = 3
_CTA_PROTOINFO: Final = 4
_CTA_PROTOINFO_TCP: Final = 1
_CTA_PROTOINFO_TCP_STATE: Final = 1
_CTA_MARK: Final = 8
_ASSURED: Final = 4  # IPS_ASSURED: both ends completed the handshake

# An event begins with the tuple of the first packet: CTA_TUPLE_ORIG with CTA_TUPLE_IP (source, destination)
# and CTA_TUPLE_PROTO (number, ports), as ctnetlink_conntrack_event writes them. An attribute's header is two
# numbers, length and type; type bit 0x8000 says that the attribute holds others.
_TUPLE: Final = struct.Struct(f"={HEADERS_SIZE}x4x8s4s4s4s12s8x4s2s")
_SHAPE: Final = (
    struct.pack("=HHHH", 20, 0x8001, 8, 1),
    struct.pack("=HH", 8, 2),
    struct.pack("=HHHHBxxx", 28, 0x8002, 5, 1, socket.IPPROTO_TCP),
    struct.pack("=HH", 6, 3),
)


class Connection(NamedTuple):
    """A connection through a pinhole: the outside endpoint it was made to, and the address of the peer."""

    outside: Endpoint
    peer: str


class PinholeEvents:
    """A socket that receives one event per pinhole connection; a filter in the kernel stops all others.

    The event comes when the connection has completed its handshake and, if its first bytes have to be
    verified, has passed verification. A SYN alone does not count, because its source address may be forged. A
    small file may take 0.2 ms from the first packet to the last, so events are parsed by their layout:
    pyroute2 needs 70 µs for each.

    pinhole     the connmark bit of connections through pinholes
    unverified  the connmark bit of those whose first bytes have not been verified yet
    """

    def __init__(self, pinhole: int, unverified: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, NETFILTER)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _EVENT_BUFFER)
            _attach(self._socket, pinhole, unverified)
            self._socket.bind((0, _GROUP_UPDATE))
        except OSError as error:
            self._socket.close()
            reason = f"no events of connection tracking: {error}; is CAP_NET_ADMIN there?"
            raise BackendError(reason) from error

    def fileno(self) -> int:
        """For a selector: readable when events wait."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def read(self) -> Iterator[Connection]:
        """The connections announced since the last call.

        A connection is announced once, when it is established. Its end is not announced, because by then its
        port may have a new pinhole for another peer. Events of other connections fill no buffer: the filter
        stops them.
        """
        while True:
            try:
                data = self._socket.recv(65536)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    continue
                raise
            if (found := connection_of(data)) is not None:
                yield found


def connection_of(event: bytes) -> Connection | None:
    """The connection that a message of connection tracking is about; None if the message names no ends."""
    if len(event) >= _TUPLE.size:
        ip, source, to, address, protocol, of, port = _TUPLE.unpack_from(event)
        if (ip, to, protocol, of) == _SHAPE:
            outside = Endpoint(socket.inet_ntoa(address), int.from_bytes(port, "big"))
            return Connection(outside, socket.inet_ntoa(source))
    message = decoded(event)  # a kernel that orders the attributes otherwise
    peer = message.get_nested("CTA_TUPLE_ORIG", "CTA_TUPLE_IP", "CTA_IP_V4_SRC")
    host = message.get_nested("CTA_TUPLE_ORIG", "CTA_TUPLE_IP", "CTA_IP_V4_DST")
    number = message.get_nested("CTA_TUPLE_ORIG", "CTA_TUPLE_PROTO", "CTA_PROTO_DST_PORT")
    if isinstance(peer, str) and isinstance(host, str) and isinstance(number, int):
        return Connection(Endpoint(host, number), peer)
    return None


def _attach(events: socket.socket, bit: int, unverified: int) -> None:
    """Attach a filter that passes messages whose CTA_MARK has *bit* but not *unverified*, whose CTA_STATUS is
    assured, and whose state has become ESTABLISHED or has not changed.

    A busy router has thousands of other events a second. The filter is a classic BPF program (linux/filter.h)
    that lets the kernel find the attributes.
    """
    load, load_index, load_at, equal, any_bit = 0x00, 0x01, 0x20, 0x15, 0x45
    to_index, load_behind_index, load_byte_behind_index, masked, give = 0x07, 0x40, 0x50, 0x54, 0x06
    extension = 0xFFFFFFFF - 0x1000 + 1  # SKF_AD_OFF
    find_attribute, find_nested = extension + 12, extension + 16  # SKF_AD_NLATTR, SKF_AD_NLATTR_NEST

    def value_of(attribute: int, absent: int) -> tuple[tuple[int, int, int, int], ...]:
        """Load the number in an attribute; if there is none, leave out *absent* steps behind that test."""
        return (
            (load, 0, 0, HEADERS_SIZE),
            (load_index, 0, 0, attribute),
            (load_at, 0, 0, find_attribute),  # offset of the attribute, 0 if there is none
            (equal, absent, 0, 0),
            (to_index, 0, 0, 0),
            (load_behind_index, 0, 0, 4),
        )

    program = (
        *value_of(_CTA_MARK, absent=22),
        (masked, 0, 0, bit | unverified),
        (equal, 0, 18, bit),
        *value_of(_CTA_STATUS, absent=14),
        (any_bit, 0, 11, _ASSURED),
        (load, 0, 0, HEADERS_SIZE),
        (load_index, 0, 0, _CTA_PROTOINFO),
        (load_at, 0, 0, find_attribute),
        (equal, 8, 0, 0),  # no state in the event: something else has changed
        (load_index, 0, 0, _CTA_PROTOINFO_TCP),
        (load_at, 0, 0, find_nested),
        (load_index, 0, 0, _CTA_PROTOINFO_TCP_STATE),
        (load_at, 0, 0, find_nested),
        (to_index, 0, 0, 0),
        (load_byte_behind_index, 0, 0, 4),
        (equal, 1, 0, ESTABLISHED),
        (give, 0, 0, 0),
        (give, 0, 0, 0xFFFFFFFF),
    )
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in program))
    events.setsockopt(
        socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HxxxxxxP", len(program), ctypes.addressof(code))
    )
