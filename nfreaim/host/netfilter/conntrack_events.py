"""PinholeEvents, PinholeEnds: receive connection tracking's announcements of connections through pinholes."""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from nfreaim.core.address import Endpoint
from nfreaim.errors import BackendError
from nfreaim.host.netfilter.accounting import Traffic, traffic_of
from nfreaim.host.netfilter.conntrack import ESTABLISHED, decoded
from nfreaim.host.netfilter.netlink import HEADERS_SIZE, NETFILTER

_GROUP_UPDATE: Final = 2  # bit of NFNLGRP_CONNTRACK_UPDATE
_GROUP_DESTROY: Final = 4  # bit of NFNLGRP_CONNTRACK_DESTROY
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
_TUPLE: Final = struct.Struct(f"={HEADERS_SIZE}x4x8s4s4s4s12s4x2s2x4s2s")
_Step = tuple[int, int, int, int]
_SHAPE: Final = (
    struct.pack("=HHHH", 20, 0x8001, 8, 1),
    struct.pack("=HH", 8, 2),
    struct.pack("=HHHHBxxx", 28, 0x8002, 5, 1, socket.IPPROTO_TCP),
    struct.pack("=HH", 6, 3),
)


class Ends(NamedTuple):
    """A connection through a pinhole: the outside endpoint it was made to, and the peer's endpoint."""

    outside: Endpoint
    peer: Endpoint


class PinholeEvents:
    """A socket that receives one event per pinhole connection; a filter in the kernel stops all others.

    The event comes when the connection has completed its handshake and, if its first bytes have to be
    verified, has passed verification. A SYN alone does not count, because its source address may be forged. A
    small file may take 0.2 ms from the first packet to the last, so events are parsed by their layout:
    pyroute2 needs 70 µs for each.

    pinhole     the connmark bits that a connection must have, such as that of connections through pinholes
    unverified  a connmark bit that it must not have, such as that of those whose first bytes have not been
                verified yet; 0: none
    """

    def __init__(self, pinhole: int, unverified: int) -> None:
        self._socket = _listening(_GROUP_UPDATE, _begins(pinhole, unverified))

    def fileno(self) -> int:
        """For a selector: readable when events wait."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def ends(self) -> Iterator[Ends]:
        """The connections announced since the last call.

        A connection is announced once, when it is established. Its end is not announced, because by then its
        port may have a new pinhole for another peer. Events of other connections fill no buffer: the filter
        stops them.
        """
        for data in _waiting(self._socket):
            if (found := ends_of(data)) is not None:
                yield found


class PinholeEnds:
    """A socket that receives one event for each connection with the connmark bits *pinhole* that is over."""

    def __init__(self, pinhole: int) -> None:
        self._socket = _listening(_GROUP_DESTROY, _marked(pinhole))

    def fileno(self) -> int:
        """For a selector: readable when events wait."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def ended(self) -> Iterator[tuple[Ends, Traffic | None]]:
        """The connections that ended since the last call, and what each carried; None: not known."""
        for data in _waiting(self._socket):
            if (found := ends_of(data)) is not None:
                yield found, traffic_of(data)


def _listening(group: int, program: Sequence[_Step]) -> socket.socket:
    """A socket that receives the messages of *group* that *program* passes. Raises BackendError."""
    events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, NETFILTER)
    try:
        events.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _EVENT_BUFFER)
        code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in program))
        filtering = struct.pack("HxxxxxxP", len(program), ctypes.addressof(code))
        events.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filtering)
        events.bind((0, group))
    except OSError as error:
        events.close()
        reason = f"no events of connection tracking: {error}; is CAP_NET_ADMIN there?"
        raise BackendError(reason) from error
    return events


def _waiting(events: socket.socket) -> Iterator[bytes]:
    """The messages that wait; those that found no room in the buffer are lost."""
    while True:
        try:
            yield events.recv(65536)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise


def ends_of(event: bytes) -> Ends | None:
    """The connection that a message of connection tracking is about; None if the message names no ends."""
    if len(event) >= _TUPLE.size:
        ip, source, to, address, protocol, peers, of, port = _TUPLE.unpack_from(event)
        if (ip, to, protocol, of) == _SHAPE:
            outside = Endpoint(socket.inet_ntoa(address), int.from_bytes(port, "big"))
            return Ends(outside, Endpoint(socket.inet_ntoa(source), int.from_bytes(peers, "big")))
    message = decoded(event)  # a kernel that orders the attributes otherwise
    found = [
        (
            message.get_nested("CTA_TUPLE_ORIG", "CTA_TUPLE_IP", f"CTA_IP_V4_{end}"),
            message.get_nested("CTA_TUPLE_ORIG", "CTA_TUPLE_PROTO", f"CTA_PROTO_{end}_PORT"),
        )
        for end in ("DST", "SRC")
    ]
    if all(isinstance(address, str) and isinstance(port, int) for address, port in found):
        outside, peer = (Endpoint(*end) for end in found)
        return Ends(outside, peer)
    return None


# Steps of a classic BPF program (linux/filter.h), which lets the kernel find the attributes.
_LOAD, _LOAD_INDEX, _LOAD_AT, _EQUAL, _ANY_BIT = 0x00, 0x01, 0x20, 0x15, 0x45
_TO_INDEX, _LOAD_BEHIND_INDEX, _LOAD_BYTE_BEHIND_INDEX, _MASKED, _GIVE = 0x07, 0x40, 0x50, 0x54, 0x06
_EXTENSION: Final = 0xFFFFFFFF - 0x1000 + 1  # SKF_AD_OFF
_FIND_ATTRIBUTE, _FIND_NESTED = _EXTENSION + 12, _EXTENSION + 16  # SKF_AD_NLATTR, SKF_AD_NLATTR_NEST
_NOTHING: Final = (_GIVE, 0, 0, 0)
_ALL: Final = (_GIVE, 0, 0, 0xFFFFFFFF)


def _value_of(attribute: int, absent: int) -> tuple[_Step, ...]:
    """Load the number in an attribute; if there is none, leave out *absent* steps behind that test."""
    return (
        (_LOAD, 0, 0, HEADERS_SIZE),
        (_LOAD_INDEX, 0, 0, attribute),
        (_LOAD_AT, 0, 0, _FIND_ATTRIBUTE),  # offset of the attribute, 0 if there is none
        (_EQUAL, absent, 0, 0),
        (_TO_INDEX, 0, 0, 0),
        (_LOAD_BEHIND_INDEX, 0, 0, 4),
    )


def _marked(bits: int) -> tuple[_Step, ...]:
    """A filter that passes messages whose CTA_MARK has *bits*."""
    return (*_value_of(_CTA_MARK, absent=5), (_MASKED, 0, 0, bits), (_EQUAL, 0, 1, bits), _ALL, _NOTHING)


def _begins(bit: int, unverified: int) -> tuple[_Step, ...]:
    """A filter that passes messages whose CTA_MARK has *bit* but not *unverified*, whose CTA_STATUS is
    assured, and whose state has become ESTABLISHED or has not changed.

    A busy router has thousands of other events a second.
    """
    return (
        *_value_of(_CTA_MARK, absent=22),
        (_MASKED, 0, 0, bit | unverified),
        (_EQUAL, 0, 18, bit),
        *_value_of(_CTA_STATUS, absent=14),
        (_ANY_BIT, 0, 11, _ASSURED),
        (_LOAD, 0, 0, HEADERS_SIZE),
        (_LOAD_INDEX, 0, 0, _CTA_PROTOINFO),
        (_LOAD_AT, 0, 0, _FIND_ATTRIBUTE),
        (_EQUAL, 8, 0, 0),  # no state in the event: something else has changed
        (_LOAD_INDEX, 0, 0, _CTA_PROTOINFO_TCP),
        (_LOAD_AT, 0, 0, _FIND_NESTED),
        (_LOAD_INDEX, 0, 0, _CTA_PROTOINFO_TCP_STATE),
        (_LOAD_AT, 0, 0, _FIND_NESTED),
        (_TO_INDEX, 0, 0, 0),
        (_LOAD_BYTE_BEHIND_INDEX, 0, 0, 4),
        (_EQUAL, 1, 0, ESTABLISHED),
        _NOTHING,
        _ALL,
    )
