"""The sets that decide which packets are queued and what is open, by netlink.

The rules make them, this fills them.

A raw socket, because this happens in the packet path: 10 microseconds a call, against 400 for pyroute2 and
5000 for the ipset program. Message layout: linux/netfilter/ipset/ip_set.h, protocol version 7.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.errors import BackendError

LAN_SET: Final = "nfreaim_lan"
OFFLOAD_SET: Final = "nfreaim_off"
SKEW_SET: Final = "nfreaim_skew"
SERVER_SET: Final = "nfreaim_srv"
PIN_SET: Final = "nfreaim_pin"
SERVER_SET_TIMEOUT: Final = 7200.0
"""Seconds; as long as the rules say that an entry of SERVER_SET stays."""

_NETFILTER: Final = 12  # netlink protocol; ipset is its subsystem 6
_SUBSYSTEM: Final = 6 << 8
_FLUSH, _LIST, _ADD, _DELETE, _TEST, _HEADER = 4, 7, 9, 10, 11, 12
_REQUEST: Final = 1
_REQUEST_AND_ACK: Final = 5
_REQUEST_AND_DUMP: Final = 0x301
_ERROR, _DONE = 2, 3  # netlink message types
_NESTED: Final = 0x8000
_NETWORK_ORDER: Final = 0x4000
_KIND: Final = 0x3FFF
_PROTOCOL, _SET_NAME, _DATA, _ENTRIES = 1, 2, 7, 8
_IP, _PORT, _TIMEOUT, _PROTO, _IP2, _CIDR2, _BYTES, _PACKETS, _COMMENT = 1, 4, 6, 7, 20, 21, 24, 25, 26
_IPV4: Final = 1
_COMMENTED: Final = "nfreaim "  # and the name of the protocol
_ABSENT: Final = 4103  # IPSET_ERR_EXIST


class FlowEntry(NamedTuple):
    """A flow as a set of type hash:ip,port,ip knows it: the server's port is not part of it."""

    client: Endpoint
    server: str


class FollowedEntry(NamedTuple):
    """A server whose flows with one client are queued; *protocol*: "" is the default one."""

    server: Endpoint
    client: str
    protocol: str = ""


class PinEntry(NamedTuple):
    """An entry of the pinhole set: who may connect to which outside endpoint, and what the rules do with it.

    length   of the prefix of *network*, 1 to 32: the kernel's sets know no /0
    seconds  until the kernel removes it; 0: never
    data     the byte counter: what the rules choose the destination by (see rules/nfreaim-rules)
    verify   the packet counter: the connection's first bytes are to be looked at
    comment  at most 255 bytes
    """

    outside: Endpoint
    network: str
    length: int
    seconds: int = 0
    data: int = 0
    verify: bool = False
    comment: str = ""


class _Set:
    """One set, through a netlink socket of its own."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER)
        self._socket.settimeout(1.0)
        self._socket.bind((0, 0))
        self._sequence = 0

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def flush(self) -> None:
        """Empty the set. Raises BackendError."""
        self._change(_FLUSH)

    def _change(self, command: int, data: bytes = b"") -> None:
        code = self._request(command, data)
        if code:
            raise self._refused(-code)

    def _refused(self, code: int) -> BackendError:
        # Codes above 4096 are ipset's own; 2 is a set that does not exist.
        text = os.strerror(code) if code < 4096 else f"ipset error {code}"
        remedy = "are you root?" if code == errno.EPERM else "are the rules installed?"
        return BackendError(f"set {self.name}: {text}; {remedy}")

    def _request(self, command: int, data: bytes) -> int:
        """The kernel's answer: 0 or a negative error number. Raises BackendError if there is none."""
        try:
            self._send(command, _REQUEST_AND_ACK, data)
            while True:
                answer = self._socket.recv(65536)
                sequence, code = struct.unpack_from("=8xI4xi", answer)
                if sequence == self._sequence:
                    return int(code)
        except OSError as error:
            raise BackendError(f"ipset {self.name}: {error}") from error

    def _send(self, command: int, flags: int, data: bytes = b"") -> None:
        self._sequence = self._sequence + 1 & 0xFFFF
        body = (
            struct.pack("=BBH", socket.AF_INET, 0, 0)
            + _attribute(_PROTOCOL, b"\x07")
            + _attribute(_SET_NAME, self.name.encode() + b"\0")
            + data
        )
        kind = _SUBSYSTEM | command
        self._socket.send(struct.pack("=IHHII", 16 + len(body), kind, flags, self._sequence, 0) + body)

    def _dump(self) -> Iterator[dict[int, bytes]]:
        """The attributes of each entry. Raises BackendError."""
        try:
            self._send(_LIST, _REQUEST_AND_DUMP)
            while True:
                for kind, sequence, body in _messages(self._socket.recv(65536)):
                    if sequence != self._sequence:
                        continue
                    if kind == _DONE:
                        return
                    if kind == _ERROR:
                        raise self._refused(-struct.unpack_from("=i", body)[0])
                    for what, entries in _attributes(body[4:]):
                        if what == _ENTRIES:
                            yield from (dict(_attributes(entry)) for _, entry in _attributes(entries))
        except OSError as error:
            raise BackendError(f"ipset {self.name}: {error}") from error


class FlowSet(_Set):
    """A set of flows: client address, client port, server address."""

    def add(self, flow: FlowId | FlowEntry) -> None:
        """Put the flow in until the set's time-out; again refreshes it. Raises BackendError."""
        self._change(_ADD, _flow(flow))

    def delete(self, flow: FlowId | FlowEntry) -> None:
        """Undo ``add``; an absent entry is no error. Raises BackendError."""
        self._change(_DELETE, _flow(flow))

    def entries(self) -> list[FlowEntry]:
        """Everything in the set. Raises BackendError."""
        return [FlowEntry(_endpoint_in(entry), _address_in(entry[_IP2])) for entry in self._dump()]


class EndpointSet(_Set):
    """A set of TCP endpoints: address, port."""

    def add(self, endpoint: Endpoint) -> None:
        """Put it in until the set's time-out; again refreshes it. Raises BackendError."""
        self._change(_ADD, _nest(_DATA, _endpoint(endpoint)))

    def entries(self) -> list[Endpoint]:
        """Everything in the set. Raises BackendError."""
        return [_endpoint_in(entry) for entry in self._dump()]


class FollowedSet(_Set):
    """A set of servers that clients were sent to: server, port, client; the comment names the protocol."""

    def add(self, entry: FollowedEntry) -> None:
        """Put it in until the set's time-out; again refreshes it, and the protocol. Raises BackendError."""
        comment = f"{_COMMENTED}{entry.protocol}" if entry.protocol else ""
        data = _endpoint(entry.server) + _address(_IP2, entry.client)
        self._change(_ADD, _nest(_DATA, data + _attribute(_COMMENT, comment.encode() + b"\0")))

    def entries(self) -> list[FollowedEntry]:
        """Everything in the set. Raises BackendError."""
        found = []
        for entry in self._dump():
            comment = entry.get(_COMMENT, b"").rstrip(b"\0").decode(errors="replace")
            protocol = comment.removeprefix(_COMMENTED) if comment.startswith(_COMMENTED) else ""
            found.append(FollowedEntry(_endpoint_in(entry), _address_in(entry[_IP2]), protocol))
        return found


class PinSet(_Set):
    """The set of pinholes: outside address, port, network of the peer; counters that carry data."""

    def add(self, entry: PinEntry) -> None:
        """Put it in; what is there of the same endpoint and network is replaced. Raises BackendError."""
        self._change(
            _ADD,
            _nest(
                _DATA,
                _pin(entry)
                + _attribute(_TIMEOUT | _NETWORK_ORDER, struct.pack("!I", entry.seconds))
                + _attribute(_BYTES | _NETWORK_ORDER, struct.pack("!Q", entry.data))
                + _attribute(_PACKETS | _NETWORK_ORDER, struct.pack("!Q", entry.verify))
                + _attribute(_COMMENT, entry.comment.encode() + b"\0"),
            ),
        )

    def delete(self, entry: PinEntry) -> None:
        """Undo ``add``; an absent entry is no error. Raises BackendError."""
        self._change(_DELETE, _nest(_DATA, _pin(entry)))

    def entries(self) -> list[PinEntry]:
        """Everything in the set. Raises BackendError."""
        return [
            PinEntry(
                Endpoint(_address_in(entry[_IP]), int.from_bytes(entry[_PORT][:2], "big")),
                _address_in(entry[_IP2]),
                entry[_CIDR2][0] if _CIDR2 in entry else 32,
                int.from_bytes(entry[_TIMEOUT][:4], "big"),
                int.from_bytes(entry[_BYTES][:8], "big"),
                entry[_PACKETS][7] == 1,
                entry.get(_COMMENT, b"").rstrip(b"\0").decode(errors="replace"),
            )
            for entry in self._dump()
        ]


class NetworkSet(_Set):
    """A set of networks."""

    def filled(self) -> bool:
        """Whether there is anything in it. Raises BackendError."""
        return len(list(self._dump())) > 0

    def covers(self, address: str) -> bool:
        """Whether *address* is in one of them. Raises BackendError."""
        data = _nest(_DATA, _address(_IP, address))
        code = self._request(_TEST, data)
        if code not in (0, -_ABSENT):
            raise self._refused(-code)
        return code == 0


class Presence(_Set):
    """Whether there is a set of some name."""

    def __init__(self) -> None:
        super().__init__("")

    def of(self, name: str) -> bool:
        """Whether the set *name* exists. Raises BackendError."""
        self.name = name
        try:
            self._send(_HEADER, _REQUEST)
            while True:
                for kind, sequence, body in _messages(self._socket.recv(65536)):
                    if sequence == self._sequence:
                        code = -struct.unpack_from("=i", body)[0] if kind == _ERROR else 0
                        if code not in (0, errno.ENOENT):
                            raise OSError(code, os.strerror(code))
                        return code == 0
        except OSError as error:
            raise BackendError(f"ipset {name}: {error}") from error


def _flow(flow: FlowId | FlowEntry) -> bytes:
    client, server = flow
    address = server if isinstance(server, str) else server.address
    return _nest(_DATA, _endpoint(client) + _address(_IP2, address))


def _endpoint(endpoint: Endpoint) -> bytes:
    return (
        _address(_IP, endpoint.address)
        + _attribute(_PORT | _NETWORK_ORDER, struct.pack("!H", endpoint.port))
        + _attribute(_PROTO, bytes([socket.IPPROTO_TCP]))
    )


def _pin(entry: PinEntry) -> bytes:
    prefix = _attribute(_CIDR2, bytes([entry.length]))
    return _endpoint(entry.outside) + _address(_IP2, entry.network) + prefix


def _address(kind: int, address: str) -> bytes:
    return _nest(kind, _attribute(_IPV4 | _NETWORK_ORDER, socket.inet_aton(address)))


def _address_in(nested: bytes) -> str:
    return socket.inet_ntoa(dict(_attributes(nested))[_IPV4])


def _endpoint_in(entry: dict[int, bytes]) -> Endpoint:
    return Endpoint(_address_in(entry[_IP]), int.from_bytes(entry[_PORT][:2], "big"))


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def _nest(kind: int, data: bytes) -> bytes:
    return _attribute(kind | _NESTED, data)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(kind, value) of each attribute in *data*."""
    at = 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        yield kind & _KIND, data[at + 4 : at + length]
        at += max(4, length + 3 & ~3)


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(type, sequence, body) of each netlink message in *data*."""
    at = 0
    while at + 16 <= len(data):
        length, kind, _, sequence = struct.unpack_from("=IHHI", data, at)
        yield kind, sequence, data[at + 16 : at + length]
        at += max(16, length + 3 & ~3)
