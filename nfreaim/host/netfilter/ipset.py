"""The kernel's sets, changed and read over netlink: they decide which packets are queued and what is open.

The rules make the sets; the daemon fills them. Message layout: linux/netfilter/ipset/ip_set.h, protocol
version 7. This module speaks netlink itself because sets change while a packet waits: a call takes 10 µs,
with pyroute2 400 µs, with the ipset program 5000 µs.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
from ipaddress import IPv4Network
from typing import Final, NamedTuple

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.backend import Followed
from nfreaim.errors import BackendError
from nfreaim.host.netfilter.kernel_sets import FlowEntry, is_edge_of
from nfreaim.host.netfilter.names import COMMENT
from nfreaim.host.netfilter.netlink import (
    ACKNOWLEDGE,
    DUMP,
    NETWORK_ORDER,
    REQUEST,
    KernelRefusedError,
    Netlink,
    attribute,
    attributes,
    error_of,
    message,
    nest,
)
from nfreaim.old_spellings import DEFAULT_PROTOCOL

_SUBSYSTEM: Final = 6 << 8
_FLUSH, _LIST, _ADD, _DELETE, _TEST, _HEADER = 4, 7, 9, 10, 11, 12
_PROTOCOL, _SET_NAME, _DATA, _ENTRIES = 1, 2, 7, 8
_IP, _CIDR, _PORT, _TIMEOUT, _PROTO, _IP2, _CIDR2 = 1, 3, 4, 6, 7, 20, 21
_BYTES, _PACKETS, _COMMENT = 24, 25, 26
_IPV4: Final = 1
_ABSENT: Final = 4103  # IPSET_ERR_EXIST

# At most as many entries are renewed by one call: if all are refused, the kernel's answers, of about 1 KiB
# each with what the kernel adds, have to fit into the socket's buffer of 208 KiB.
_RENEWED_AT_ONCE: Final = 64

_KEPT_RENEWALS: Final = 4096  # requests of entries that are the same each time; 1 KiB each


class PinEntry(NamedTuple):
    """An entry of the pinhole set: the peers of *network* may connect to *outside*.

    length   prefix length of *network*, 1 to 32, because a set of the kernel cannot hold a /0
    seconds  until the kernel removes the entry; 0: never
    data     the entry's byte counter, by which the rules choose the destination: see ``pin_data``
    verify   the entry's packet counter: the first bytes of the connection have to be verified
    comment  at most 255 bytes
    """

    outside: Endpoint
    network: str
    length: int
    seconds: int = 0
    data: int = 0
    verify: bool = False
    comment: str = ""


def pin_data(destination: Endpoint, bucket: int) -> int:
    """The byte counter of a pinhole's entry: bucket << 48 | inside address << 16 | inside port.

    The nat table's rules compare it, so that one rule serves every entry of a destination.
    """
    address = int.from_bytes(socket.inet_aton(destination.address), "big")
    return bucket << 48 | address << 16 | destination.port


def pin_destination(data: int) -> tuple[Endpoint, int]:
    """The reverse of ``pin_data``: destination and bucket."""
    address = socket.inet_ntoa((data >> 16 & 0xFFFFFFFF).to_bytes(4, "big"))
    return Endpoint(address, data & 0xFFFF), data >> 48


class _Set:
    """One set, through a netlink socket of its own."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._netlink = Netlink()

    def close(self) -> None:
        """Close the socket."""
        self._netlink.close()

    def flush(self) -> None:
        """Empty the set. Raises BackendError."""
        self._change(_FLUSH)

    def _change(self, command: int, data: bytes = b"") -> None:
        if code := self._request(command, data):
            raise self._refused(code)

    def _refused(self, code: int) -> BackendError:
        # Codes above 4096 are ipset's own; 2 is a set that does not exist.
        text = os.strerror(code) if code < 4096 else f"ipset error {code}"
        remedy = "are you root?" if code == errno.EPERM else "are the rules installed?"
        return BackendError(f"set {self.name}: {text}; {remedy}")

    def _request(self, command: int, data: bytes = b"", flags: int = REQUEST | ACKNOWLEDGE) -> int:
        """The kernel's answer: 0 or an error number. Raises BackendError if there is none."""
        try:
            return error_of(self._netlink.ask(self._message(command, flags, data))) or 0
        except OSError as error:
            raise BackendError(f"ipset {self.name}: {error}") from error

    def _request_all(self, requests: Sequence[tuple[int, bytes]]) -> list[int]:
        """The same for several commands with their data."""
        head = self._head()
        questions = [message(_SUBSYSTEM | command, REQUEST, head + data) for command, data in requests]
        try:
            return self._netlink.ask_all(questions)
        except OSError as error:
            raise BackendError(f"ipset {self.name}: {error}") from error

    def _message(self, command: int, flags: int, data: bytes = b"") -> bytearray:
        return message(_SUBSYSTEM | command, flags, self._head() + data)

    def _head(self) -> bytes:
        return attribute(_PROTOCOL, b"\x07") + attribute(_SET_NAME, self.name.encode() + b"\0")

    def _dump(self) -> Iterator[dict[int, bytes]]:
        """The attributes of each entry. Raises BackendError."""
        try:
            for found in self._netlink.dump(self._message(_LIST, REQUEST | DUMP)):
                for what, entries in attributes(found):
                    if what == _ENTRIES:
                        yield from (dict(attributes(entry)) for _, entry in attributes(entries))
        except KernelRefusedError as error:
            raise self._refused(error.errno or 0) from error
        except OSError as error:
            raise BackendError(f"ipset {self.name}: {error}") from error


class FlowSet(_Set):
    """See kernel_sets.FlowSet."""

    def add(self, flow: FlowId | FlowEntry) -> None:
        self._change(_ADD, _flow(flow))

    def delete(self, flow: FlowId | FlowEntry) -> None:
        self._change(_DELETE, _flow(flow))

    def has(self, flow: FlowId | FlowEntry) -> bool:
        code = self._request(_TEST, _flow(flow))
        if code not in (0, _ABSENT, errno.ENOENT):
            raise self._refused(code)
        return code == 0

    def entries(self) -> list[FlowEntry]:
        return [FlowEntry(_endpoint_in(entry), _address_in(entry[_IP2])) for entry in self._dump()]


class FollowedSet(_Set):
    """See kernel_sets.FollowedSet."""

    def add(self, followed: Followed, seconds: int) -> None:
        seconds_left = attribute(_TIMEOUT | NETWORK_ORDER, struct.pack("!I", seconds))
        comment = attribute(_COMMENT, f"{COMMENT} {followed.protocol}".encode() + b"\0")
        self._change(_ADD, nest(_DATA, _followed(followed) + seconds_left + comment))

    def delete(self, followed: Followed) -> None:
        self._change(_DELETE, nest(_DATA, _followed(followed)))

    def entries(self) -> list[tuple[Followed, float]]:
        return [
            (
                Followed(_endpoint_in(entry), _address_in(entry[_IP2]), _protocol_in(entry)),
                float(int.from_bytes(entry[_TIMEOUT][:4], "big")),
            )
            for entry in self._dump()
            if _IP2 in entry  # an earlier installation's set holds no client
        ]


class EndpointSet(_Set):
    """See kernel_sets.EndpointSet."""

    def add(self, endpoint: Endpoint) -> None:
        self._change(_ADD, nest(_DATA, _endpoint(endpoint)))

    def delete(self, endpoint: Endpoint) -> None:
        self._change(_DELETE, nest(_DATA, _endpoint(endpoint)))

    def entries(self) -> list[Endpoint]:
        return [_endpoint_in(entry) for entry in self._dump()]


class PinSet(_Set):
    """The set of pinholes: outside address, port, network of the peer, two counters that hold our data."""

    def add(self, entries: Sequence[PinEntry]) -> None:
        """Add *entries*, a few, by one system call, in place of those of the same endpoint and network.

        Raises BackendError; some of them may have been added then.
        """
        codes = self._request_all([(_ADD, _whole_pin(entry)) for entry in entries])
        if code := next(filter(None, codes), 0):
            raise self._refused(code)

    def renew(self, entries: Sequence[PinEntry]) -> list[PinEntry]:
        """Add *entries* again, many by one system call. Returns those that the set did not have.

        Raises BackendError; what is behind the entry that was refused may not have been added then.
        """
        absent: list[PinEntry] = []
        for start in range(0, len(entries), _RENEWED_AT_ONCE):
            some = entries[start : start + _RENEWED_AT_ONCE]
            data = [_renewal(entry) for entry in some]
            codes = self._request_all(
                [*((_TEST, key) for key, _ in data), *((_ADD, all_) for _, all_ in data)]
            )
            if code := next(filter(None, codes[len(some) :]), 0):
                raise self._refused(code)
            absent += [entry for entry, code in zip(some, codes, strict=False) if code == _ABSENT]
        return absent

    def delete(self, entry: PinEntry) -> None:
        """Undo ``add``; an absent entry is no error. Raises BackendError."""
        self._change(_DELETE, nest(_DATA, _pin(entry)))

    def entries(self) -> list[PinEntry]:
        """The entries of the set. Raises BackendError."""
        return [
            PinEntry(
                outside=Endpoint(_address_in(entry[_IP]), int.from_bytes(entry[_PORT][:2], "big")),
                network=_address_in(entry[_IP2]),
                length=entry[_CIDR2][0] if _CIDR2 in entry else 32,
                seconds=int.from_bytes(entry[_TIMEOUT][:4], "big"),
                data=int.from_bytes(entry[_BYTES][:8], "big"),
                verify=entry[_PACKETS][7] == 1,
                comment=entry.get(_COMMENT, b"").rstrip(b"\0").decode(errors="replace"),
            )
            for entry in self._dump()
        ]


class NetworkSet(_Set):
    """See kernel_sets.NetworkSet."""

    def filled(self) -> bool:
        return len(list(self._dump())) > 0

    def covers(self, address: str) -> bool:
        data = nest(_DATA, _address(_IP, address))
        code = self._request(_TEST, data)
        if code not in (0, _ABSENT):
            raise self._refused(code)
        return code == 0

    def networks(self) -> set[IPv4Network]:
        return set(map(IPv4Network, self._pairs()))

    def _pairs(self) -> Iterator[tuple[int, int]]:
        for entry in self._dump():
            address = dict(attributes(entry[_IP]))[_IPV4]
            yield int.from_bytes(address, "big"), entry[_CIDR][0] if _CIDR in entry else 32

    def add(self, network: IPv4Network) -> None:
        self._put(_ADD, network)

    def remove(self, network: IPv4Network) -> None:
        self._put(_DELETE, network)

    def _put(self, command: int, network: IPv4Network) -> None:
        address = _address(_IP, str(network.network_address))
        code = self._request(command, nest(_DATA, address + attribute(_CIDR, bytes([network.prefixlen]))))
        if code not in (0, _ABSENT):
            raise self._refused(code)

    def is_edge(self, address: str) -> bool:
        return is_edge_of(self._pairs(), address)


class SetPresence(_Set):
    """See kernel_sets.SetPresence."""

    def __init__(self) -> None:
        super().__init__("")

    def of(self, name: str) -> bool:
        self.name = name
        code = self._request(_HEADER, flags=REQUEST)
        if code not in (0, errno.ENOENT):
            raise self._refused(code)
        return code == 0


def _flow(flow: FlowId | FlowEntry) -> bytes:
    client, server = flow
    address = server if isinstance(server, str) else server.address
    return nest(_DATA, _endpoint(client) + _address(_IP2, address))


def _endpoint(endpoint: Endpoint) -> bytes:
    return (
        _address(_IP, endpoint.address)
        + attribute(_PORT | NETWORK_ORDER, struct.pack("!H", endpoint.port))
        + attribute(_PROTO, bytes([socket.IPPROTO_TCP]))
    )


def _followed(followed: Followed) -> bytes:
    return _endpoint(followed.server) + _address(_IP2, followed.client)


def _protocol_in(entry: dict[int, bytes]) -> str:
    words = entry.get(_COMMENT, b"").rstrip(b"\0").decode(errors="replace").split()
    return words[1] if len(words) == 2 and words[0] == COMMENT else DEFAULT_PROTOCOL


def _pin(entry: PinEntry) -> bytes:
    prefix = attribute(_CIDR2, bytes([entry.length]))
    return _endpoint(entry.outside) + _address(_IP2, entry.network) + prefix


def _whole_pin(entry: PinEntry) -> bytes:
    return nest(
        _DATA,
        _pin(entry)
        + attribute(_TIMEOUT | NETWORK_ORDER, struct.pack("!I", entry.seconds))
        + attribute(_BYTES | NETWORK_ORDER, struct.pack("!Q", entry.data))
        + attribute(_PACKETS | NETWORK_ORDER, struct.pack("!Q", entry.verify))
        + attribute(_COMMENT, entry.comment.encode() + b"\0"),
    )


@lru_cache(_KEPT_RENEWALS)
def _renewal(entry: PinEntry) -> tuple[bytes, bytes]:
    """The data of two requests: whether the set has *entry*, and to add it."""
    return nest(_DATA, _pin(entry)), _whole_pin(entry)


def _address(kind: int, address: str) -> bytes:
    return nest(kind, attribute(_IPV4 | NETWORK_ORDER, socket.inet_aton(address)))


def _address_in(nested: bytes) -> str:
    return socket.inet_ntoa(dict(attributes(nested))[_IPV4])


def _endpoint_in(entry: dict[int, bytes]) -> Endpoint:
    return Endpoint(_address_in(entry[_IP]), int.from_bytes(entry[_PORT][:2], "big"))
