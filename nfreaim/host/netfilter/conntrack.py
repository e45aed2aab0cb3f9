"""Conntrack: what connection tracking knows of our flows and pinholes. The only module that knows pyroute2.

Reads only; never changes an entry. Questions are asked over a socket of our own: pyroute2 makes the message
once and reads the answers, of which it decodes only what is asked for. Its socket took five times as long,
and a proposal waits meanwhile. The outside address of a flow is asked for at each proposal, because it
belongs to that flow and to no interface: several uplinks and changing addresses need no configuration.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.errors import BackendError
from nfreaim.host.slim_imports import without_package_init

with without_package_init("pyroute2"):
    from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple, nfct_msg

_NETFILTER: Final = 12
_GROUP_UPDATE: Final = 2  # bit of NFNLGRP_CONNTRACK_UPDATE
_EVENT_BUFFER: Final = 1 << 20  # bytes: some thousand events
_SO_ATTACH_FILTER: Final = 26
_SO_RCVBUFFORCE: Final = 33
_ATTRIBUTES: Final = 20  # where the attributes of a conntrack message begin
_CTA_STATUS: Final = 3
_CTA_PROTOINFO: Final = 4
_CTA_PROTOINFO_TCP: Final = 1
_CTA_PROTOINFO_TCP_STATE: Final = 1
_CTA_MARK: Final = 8
_ASSURED: Final = 4  # IPS_ASSURED: the handshake was completed, by both ends
# TCP states in which a connection can still carry a proposal: SYN_SENT2 and the like never own a pinhole.
ESTABLISHED: Final = 3
# LAST_ACK, TIME_WAIT, CLOSE: both ends are done.
ENDING: Final = (6, 7, 8)


# An event begins with the tuple of the first packet: CTA_TUPLE_ORIG with CTA_TUPLE_IP (source, destination)
# and CTA_TUPLE_PROTO (number, ports), as ctnetlink_conntrack_event writes them. Attributes' headers are two
# numbers, length and type; 0x8000 is the flag of one that holds others.
_TUPLE: Final = struct.Struct(f"={_ATTRIBUTES}x4x8s4s4s4s12s8x4s2s")
_SHAPE: Final = (
    struct.pack("=HHHH", 20, 0x8001, 8, 1),
    struct.pack("=HH", 8, 2),
    struct.pack("=HHHHBxxx", 28, 0x8002, 5, 1, socket.IPPROTO_TCP),
    struct.pack("=HH", 6, 3),
)

_GET: Final = 0x0101  # IPCTNL_MSG_CT_GET of the subsystem of connection tracking
_REQUEST: Final = 1
_ERROR: Final = 2
_SEQUENCE: Final = 8  # where it is in a message; 4 bytes
_PATIENCE: Final = 1.0  # seconds for the kernel to answer; every packet waits meanwhile
# A question about ends that are easily found in the message, to be replaced by others.
_ENDS: Final = FlowId(Endpoint("1.2.3.4", 0x5152), Endpoint("5.6.7.8", 0x5354))


class Connection(NamedTuple):
    """A connection through a pinhole: the outside endpoint it asked for, and where it comes from."""

    outside: Endpoint
    peer: str


class Conntrack:
    """Look-ups in connection tracking."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER)
        self._socket.settimeout(_PATIENCE)
        self._question = bytearray(_question(_ENDS))
        self._places = [self._question.index(part) for part in _parts(_ENDS)]
        self._sequence = 0

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def outside_address(self, owner: FlowId) -> str | None:
        """Where the replies of this flow are sent: the address it has outside. None without an entry.

        Raises BackendError.
        """
        entry = self._find(owner)
        return None if entry is None else _destination(entry, "CTA_TUPLE_REPLY", owner).address

    def reached(self, owner: FlowId) -> Endpoint:
        """What this flow's client connected to, before any translation. Raises BackendError."""
        entry = self._find(owner)
        if entry is None:
            raise unknown(owner)
        asked = _destination(entry, "CTA_TUPLE_ORIG", owner)
        # An entry that came back after a flush may have begun with the server's packet: its reply is from us.
        return _destination(entry, "CTA_TUPLE_REPLY", owner) if asked == owner.client else asked

    def state(self, owner: FlowId) -> int | None:
        """The flow's TCP state (nf_conntrack_tcp.h), or None without an entry. Raises BackendError."""
        entry = self._find(owner)
        return None if entry is None else _state_of(entry)

    def carries(self, owner: FlowId, server_inside: bool) -> bool:
        """Whether the flow is established and its client and server are on these sides. Raises BackendError.

        The tuple as the inside sees it is the one of the side that the inside end is on: what a client inside
        sent, untranslated, or what a server inside will answer, to the client that asked for it.
        """
        entry = self._find(owner)
        if entry is None or _state_of(entry) != ESTABLISHED:
            return False
        which = "CTA_TUPLE_REPLY" if server_inside else "CTA_TUPLE_ORIG"
        ends = (owner.server, owner.client) if server_inside else (owner.client, owner.server)
        found = [
            (
                entry.get_nested(which, "CTA_TUPLE_IP", f"CTA_IP_V4_{end}"),
                entry.get_nested(which, "CTA_TUPLE_PROTO", f"CTA_PROTO_{end}_PORT"),
            )
            for end in ("SRC", "DST")
        ]
        return found == list(ends)

    def holds(self, owner: FlowId) -> bool:
        """Whether there is an entry of the flow in any state, half closed or ending. Raises BackendError."""
        return self._find(owner) is not None

    def _find(self, owner: FlowId) -> Any | None:
        """The flow's entry. What comes from the inside end is always one of its tuples, as it is seen here:
        from the client to a server outside, or back to the client from a server inside."""
        return self._get(owner) or self._get(FlowId(owner.server, owner.client))

    def _get(self, owner: FlowId) -> Any | None:
        question = self._question
        for at, part in zip(self._places, _parts(owner), strict=True):
            question[at : at + len(part)] = part
        self._sequence = self._sequence + 1 & 0xFFFFFFFF
        struct.pack_into("=I", question, _SEQUENCE, self._sequence)
        try:
            self._socket.send(question)
            while True:  # what else comes answers an earlier question, which was given up
                answer = self._socket.recv(65536)
                kind, sequence = struct.unpack_from("=4xH2xI", answer)
                if sequence == self._sequence:
                    break
        except OSError as error:
            raise BackendError(f"connection tracking: {error}") from error
        if kind == _ERROR:
            code = -struct.unpack_from("=16xi", answer)[0]
            if code == errno.ENOENT:
                return None
            raise BackendError(f"connection tracking: {os.strerror(code)}")
        entry = nfct_msg(answer)
        entry.decode()
        return entry


def unknown(owner: FlowId) -> BackendError:
    """Says that there is no entry of the flow."""
    return BackendError(f"connection tracking does not know {owner}")


def _destination(entry: Any, which: str, owner: FlowId) -> Endpoint:
    """The destination in one of the two tuples of the flow's entry. Raises BackendError."""
    address = entry.get_nested(which, "CTA_TUPLE_IP", "CTA_IP_V4_DST")
    port = entry.get_nested(which, "CTA_TUPLE_PROTO", "CTA_PROTO_DST_PORT")
    if not isinstance(address, str) or not isinstance(port, int):
        raise BackendError(f"connection tracking names no address of {owner}")
    return Endpoint(address, port)


def _parts(owner: FlowId) -> tuple[bytes, bytes, bytes, bytes]:
    """What a question says of the ends: addresses, then ports."""
    client, server = owner
    return (
        *(socket.inet_aton(client.address), socket.inet_aton(server.address)),
        *(client.port.to_bytes(2, "big"), server.port.to_bytes(2, "big")),
    )


def _question(owner: FlowId) -> bytes:
    client, server = owner
    ends = NFCTAttrTuple(
        saddr=client.address,
        daddr=server.address,
        proto=socket.IPPROTO_TCP,
        sport=client.port,
        dport=server.port,
    )
    message = nfct_msg.create_from(tuple_orig=ends)
    message["nfgen_family"] = socket.AF_INET
    message["header"]["type"] = _GET
    message["header"]["flags"] = _REQUEST
    message.encode()
    return bytes(message.data)


def _state_of(entry: Any) -> int:
    state = entry.get_nested("CTA_PROTOINFO", "CTA_PROTOINFO_TCP", "CTA_PROTOINFO_TCP_STATE")
    return state if isinstance(state, int) else 0


class PinholeEvents:
    """Connections through pinholes that have come about; the kernel filters out everything else.

    A small file is a whole connection, some 0.2 ms from one end to the other: so events are read by their
    layout, where pyroute2 takes 70 µs for each, and those of the states in between do not come.

    A SYN alone proves nothing, not even where it comes from: what counts are connections that completed their
    handshake, and where the first bytes are verified those that passed. *bit* of the connmark says that it is
    a pinhole's, *unverified* that its first bytes have not been looked at yet.
    """

    def __init__(self, bit: int, unverified: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _NETFILTER)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _EVENT_BUFFER)
            _attach(self._socket, bit, unverified)
            self._socket.bind((0, _GROUP_UPDATE))
        except OSError as error:
            self._socket.close()
            reason = f"no events of connection tracking: {error}; is CAP_NET_ADMIN there?"
            raise BackendError(reason) from error

    def fileno(self) -> int:
        """For a selector: readable when events wait."""
        return self._socket.fileno()

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def read(self) -> Iterator[Connection]:
        """What has come since the last call.

        Of each connection the one moment counts. Its end would be another event, perhaps when its port has a
        new pinhole, which is another peer's. Others' events fill no buffer: they stop at the filter.
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
    """The connection that a message of connection tracking is about; None if it says nothing of its ends."""
    if len(event) >= _TUPLE.size:
        ip, source, to, address, protocol, of, port = _TUPLE.unpack_from(event)
        if (ip, to, protocol, of) == _SHAPE:
            outside = Endpoint(socket.inet_ntoa(address), int.from_bytes(port, "big"))
            return Connection(outside, socket.inet_ntoa(source))
    message = nfct_msg(event)  # of a kernel that writes it otherwise
    message.decode()
    peer = message.get_nested("CTA_TUPLE_ORIG", "CTA_TUPLE_IP", "CTA_IP_V4_SRC")
    host = message.get_nested("CTA_TUPLE_ORIG", "CTA_TUPLE_IP", "CTA_IP_V4_DST")
    number = message.get_nested("CTA_TUPLE_ORIG", "CTA_TUPLE_PROTO", "CTA_PROTO_DST_PORT")
    if isinstance(peer, str) and isinstance(host, str) and isinstance(number, int):
        return Connection(Endpoint(host, number), peer)
    return None


def _attach(events: socket.socket, bit: int, unverified: int) -> None:
    """Let only messages through whose CTA_MARK has *bit* but not *unverified*, whose CTA_STATUS is assured,
    and whose state has become ESTABLISHED or has not changed: a busy router has thousands of others a second.

    A classic BPF program of the form linux/filter.h gives; the kernel finds the attributes for us.
    """
    load, load_index, load_at, equal, any_bit = 0x00, 0x01, 0x20, 0x15, 0x45
    to_index, load_behind_index, load_byte_behind_index, masked, give = 0x07, 0x40, 0x50, 0x54, 0x06
    extension = 0xFFFFFFFF - 0x1000 + 1  # SKF_AD_OFF
    find_attribute, find_nested = extension + 12, extension + 16  # SKF_AD_NLATTR, SKF_AD_NLATTR_NEST
    program = (
        (load, 0, 0, _ATTRIBUTES),
        (load_index, 0, 0, _CTA_MARK),
        (load_at, 0, 0, find_attribute),  # offset of the attribute, 0 if there is none
        (equal, 22, 0, 0),
        (to_index, 0, 0, 0),
        (load_behind_index, 0, 0, 4),
        (masked, 0, 0, bit | unverified),
        (equal, 0, 18, bit),
        (load, 0, 0, _ATTRIBUTES),
        (load_index, 0, 0, _CTA_STATUS),
        (load_at, 0, 0, find_attribute),
        (equal, 14, 0, 0),
        (to_index, 0, 0, 0),
        (load_behind_index, 0, 0, 4),
        (any_bit, 0, 11, _ASSURED),
        (load, 0, 0, _ATTRIBUTES),
        (load_index, 0, 0, _CTA_PROTOINFO),
        (load_at, 0, 0, find_attribute),
        (equal, 8, 0, 0),  # something else has changed than its state
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
