"""Sides: which addresses are behind the router, and which one is its own outside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from nfreaim.core.reach import is_private
from nfreaim.explain.connections import Connection, Pair, same, translated

UNKNOWN: Final = "192.0.0.8"
"""The outside address where the capture does not show it: IPv4's dummy address, of no host (RFC 7600)."""


@dataclass(frozen=True, slots=True)
class Sides:
    """The networks behind the router, and its outside address; UNKNOWN if it is not known."""

    inside: tuple[IPv4Network, ...]
    outside: str = UNKNOWN

    def __contains__(self, address: object) -> bool:
        """Whether *address*, an IPv4Address, is behind the router."""
        return isinstance(address, IPv4Address) and any(address in network for network in self.inside)

    def is_inside(self, address: str) -> bool:
        """Whether *address* is behind the router."""
        return IPv4Address(address) in self

    def of_lan(self, connection: Connection) -> bool:
        """Whether it was captured on the LAN side: one end has an inside address, the other has none."""
        client, server = connection.flow
        return self.is_inside(client.address) is not self.is_inside(server.address)

    def of_wan(self, connection: Connection) -> bool:
        """Whether it was captured on the WAN side."""
        return self.outside in (connection.flow.client.address, connection.flow.server.address)


def guessed(
    connections: Sequence[Connection],
    servers: frozenset[int],
    inside: tuple[IPv4Network, ...] = (),
    outside: str | None = None,
) -> Sides:
    """The sides of a capture. What *inside* and *outside* say is believed.

    Where both sides of a connection are in the capture, the end that differs tells both addresses. Else hosts
    with private addresses that send count as inside; their networks are taken to be of 256 addresses.

    servers  ports of servers of the protocols that are read
    """
    by_isn: dict[int | None, list[Connection]] = {}
    for one in connections:
        by_isn.setdefault(one.isn, []).append(one)
    seen: Counter[tuple[str, str]] = Counter()
    for group in by_isn.values():
        for one in group:
            for other in group:
                ends = translated(one, other) if same(one, other) else None
                if ends is None:
                    continue
                here, there = ends
                if is_private(here) and (not is_private(there) or one.time <= other.time):
                    seen[here, there] += 1
    if outside is None and seen:
        outside = Counter(there for (_, there), _ in seen.items()).most_common(1)[0][0]
    hosts = {here for here, there in seen if there == outside}
    if not inside and not hosts:
        senders = {one.flow.client.address for one in connections}
        senders |= {one.flow.server.address for one in connections if one.answered or one.isn is None}
        hosts = {host for host in senders if is_private(host) and host != outside}
    if not inside and not hosts and outside is None:  # the WAN side alone
        clients = Counter(
            one.flow.client.address for one in connections if one.flow.server.port in servers and one.answered
        )
        outside = clients.most_common(1)[0][0] if clients else None
    found = inside or tuple(sorted({IPv4Network(f"{host}/24", strict=False) for host in hosts}))
    return Sides(found, outside or UNKNOWN)


def paired(connections: Sequence[Connection], sides: Sides) -> list[Pair]:
    """The connections that cross the router, each once, and those of the LAN; in order of their beginning."""
    wan: dict[int | None, list[Connection]] = {}
    pairs: list[Pair] = []
    for one in connections:
        if sides.of_wan(one) and not sides.of_lan(one):
            wan.setdefault(one.isn, []).append(one)
    for one in connections:
        if sides.of_lan(one):
            others = wan.get(one.isn, [])
            twin = next((other for other in others if same(one, other)), None)
            if twin is not None:
                others.remove(twin)
            pairs.append(Pair(one, twin))
        elif not sides.of_wan(one):  # within the LAN, or on a link that is neither
            inside = sides.is_inside(one.flow.client.address)
            pairs.append(Pair(one, None) if inside else Pair(None, one))
    pairs += [Pair(None, one) for others in wan.values() for one in others]
    return sorted(pairs, key=lambda pair: (pair.first.time, pair.first.frame))
