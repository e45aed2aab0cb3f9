"""Addresses of flows: endpoints, the two ends of a flow, and the keys of its packets.

Nothing here knows TCP or a protocol; everything else in core may import it.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from functools import lru_cache
from ipaddress import IPv4Address
from typing import Final, NamedTuple

_KEY: Final = struct.Struct("!4s4sHH")


class Direction(IntEnum):
    """Of a packet within its flow: ORIGINAL from the client to the server, REPLY back."""

    ORIGINAL = 0
    REPLY = 1


class End(IntEnum):
    """One end of a flow: the CLIENT that opened it, or the SERVER. Each sends the direction of its number."""

    CLIENT = 0
    SERVER = 1


class Endpoint(NamedTuple):
    """An IPv4 address in dotted form and a TCP port."""

    address: str
    port: int

    def __str__(self) -> str:
        return f"{self.address}:{self.port}"


class FlowId(NamedTuple):
    """A flow by its two ends, as the inside sees them (behind destination NAT, before source NAT)."""

    client: Endpoint
    server: Endpoint

    def __str__(self) -> str:
        return f"{self.client} > {self.server}"


@lru_cache(64)  # a message, and a connection at the peer gate, ask several times for one flow
def flow_id(key: bytes) -> FlowId:
    """The flow whose packets in the original direction have this key (see Segment)."""
    client, server, sport, dport = _KEY.unpack(key)
    return FlowId(Endpoint(_dotted(client), sport), Endpoint(_dotted(server), dport))


def destination(key: bytes) -> Endpoint:
    """Where the packets of this key go to."""
    return _endpoint(key[4:8], key[10:12])


def source(key: bytes) -> Endpoint:
    """Where they come from."""
    return _endpoint(key[:4], key[8:10])


@lru_cache(1024)  # many connections come to one inside endpoint
def _endpoint(address: bytes, port: bytes) -> Endpoint:
    return Endpoint(_dotted(address), int.from_bytes(port, "big"))


def key_of(flow: FlowId) -> bytes:
    """The inverse of ``flow_id``."""
    client, server = flow
    return _KEY.pack(_packed(client.address), _packed(server.address), client.port, server.port)


@lru_cache(4096)
def _dotted(address: bytes) -> str:
    return ".".join(map(str, address))


def _packed(address: str) -> bytes:
    return bytes(map(int, address.split(".")))


def reverse(key: bytes) -> bytes:
    """The key of the packets that go the other way."""
    return key[4:8] + key[:4] + key[10:12] + key[8:10]


def is_address(text: str) -> bool:
    """Whether *text* is an IPv4 address in dotted form, and not the name of a host."""
    try:
        IPv4Address(text)
    except ValueError:
        return False
    return True
