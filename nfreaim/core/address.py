"""Addresses of flows: endpoints, the two ends of a flow, and the keys of its packets.

Nothing here knows TCP or a protocol; everything else in core may import it.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from ipaddress import IPv4Address, IPv4Network
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


def flow_id(key: bytes) -> FlowId:
    """The flow whose packets in the original direction have this key (see Segment)."""
    client, server, sport, dport = _KEY.unpack(key)
    return FlowId(
        Endpoint(".".join(map(str, client)), sport),
        Endpoint(".".join(map(str, server)), dport),
    )


def key_of(flow: FlowId) -> bytes:
    """The inverse of ``flow_id``."""
    client, server = flow
    return _KEY.pack(_packed(client.address), _packed(server.address), client.port, server.port)


def _packed(address: str) -> bytes:
    return bytes(map(int, address.split(".")))


def reverse(key: bytes) -> bytes:
    """The key of the packets that go the other way."""
    return key[4:8] + key[:4] + key[10:12] + key[8:10]


# RFC 1918, RFC 6598 (carrier-grade NAT), RFC 3927, RFC 1122: nobody on the Internet can connect there.
# Not ipaddress.is_private, which has more, such as the documentation ranges.
UNREACHABLE: Final = {
    IPv4Network("10.0.0.0/8"): "private",
    IPv4Network("172.16.0.0/12"): "private",
    IPv4Network("192.168.0.0/16"): "private",
    IPv4Network("100.64.0.0/10"): "carrier-grade NAT",
    IPv4Network("169.254.0.0/16"): "link-local",
    IPv4Network("127.0.0.0/8"): "loopback",
}


def is_reachable(address: str) -> bool:
    """Whether peers on the Internet can reach IPv4 *address*, as far as its range tells."""
    return not any(IPv4Address(address) in network for network in UNREACHABLE)
