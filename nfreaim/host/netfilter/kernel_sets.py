"""What the sets in the kernel have to do, whether ipset or nftables holds them.

They decide which packets are queued and what is open. The rules make the sets; the daemon fills them. Every
method raises BackendError, also if the set does not exist, unless it says otherwise.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from ipaddress import IPv4Network
from typing import NamedTuple, Protocol

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.backend import Followed


class FlowEntry(NamedTuple):
    """A flow as a set holds it: without the server's port."""

    client: Endpoint
    server: str


class FlowSet(Protocol):
    """A set of flows: client address, client port, server address."""

    def close(self) -> None:
        """Close the socket. Raises nothing."""

    def flush(self) -> None:
        """Empty the set."""

    def add(self, flow: FlowId | FlowEntry) -> None:
        """Add the flow until the set's time-out; a second call begins that anew."""

    def delete(self, flow: FlowId | FlowEntry) -> None:
        """Undo ``add``; an absent entry is no error."""

    def has(self, flow: FlowId | FlowEntry) -> bool:
        """Whether the set has the flow; a set that does not exist has none."""

    def entries(self) -> list[FlowEntry]:
        """The entries of the set."""


class FollowedSet(Protocol):
    """The set of followed servers: server, port, client; the comment names the protocol."""

    def close(self) -> None:
        """Close the socket. Raises nothing."""

    def add(self, followed: Followed, seconds: int) -> None:
        """Add the server for so many seconds; a second call begins that anew."""

    def delete(self, followed: Followed) -> None:
        """Undo ``add``; an absent entry is no error."""

    def entries(self) -> list[tuple[Followed, float]]:
        """The followed servers in the set, and how many seconds each is left."""


class EndpointSet(Protocol):
    """A set of endpoints."""

    def close(self) -> None:
        """Close the socket. Raises nothing."""

    def add(self, endpoint: Endpoint) -> None:
        """Add the endpoint until the set's time-out; a second call begins that anew."""

    def delete(self, endpoint: Endpoint) -> None:
        """Undo ``add``; an absent entry is no error."""

    def entries(self) -> list[Endpoint]:
        """The entries of the set."""


class NetworkSet(Protocol):
    """A set of networks, which may contain one another."""

    @property
    def name(self) -> str:
        """The set's name in the kernel."""

    def close(self) -> None:
        """Close the socket. Raises nothing."""

    def filled(self) -> bool:
        """Whether the set has an entry."""

    def covers(self, address: str) -> bool:
        """Whether *address* is in one of the networks."""

    def networks(self) -> set[IPv4Network]:
        """The networks in the set."""

    def add(self, network: IPv4Network) -> None:
        """Put *network* into the set; one that is there already is no error."""

    def remove(self, network: IPv4Network) -> None:
        """Take *network* out of the set; an absent one is no error."""

    def is_edge(self, address: str) -> bool:
        """Whether *address* is the own address of one of the networks, or its broadcast address."""


class SetPresence(Protocol):
    """Looks whether sets exist."""

    def close(self) -> None:
        """Close the socket. Raises nothing."""

    def of(self, name: str) -> bool:
        """Whether the set *name* exists."""


def is_edge_of(networks: Iterable[tuple[int, int]], address: str) -> bool:
    """Whether *address* is the own address of one of the *networks*, or its broadcast address.

    networks  addresses and prefix lengths: numbers, because each proposal asks
    """
    host = int.from_bytes(socket.inet_aton(address), "big")
    return any(length < 31 and host ^ network in (0, 0xFFFFFFFF >> length) for network, length in networks)
