"""The limits on what may be opened: PinholePolicy, what an operator may set, and RateLimit.

Services are names that helpers give. The clock is an argument.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from nfreaim.core.address import Endpoint

# Ports that a client has no business to listen on for a peer, whatever it announces: databases, remote
# desktops and file services that answer without a password in many homes.
DENIED_PORTS: Final = frozenset(
    {1433, 1521, 1900, 2049, 2375, 3128, 3306, 3389, 5000, 5432, 5900, 5985, 6379, 8080, 8443, 9100, 27017}
)

PERIOD_S: Final = 60.0
"""An empty bucket fills in this time."""

# At this number of buckets the full ones are removed: a full bucket is the same as none.
_BUCKETS: Final = 1024


@dataclass(frozen=True, slots=True)
class Forward:
    """Outside ports that always lead to the same ports of one inside *host*, whatever is announced."""

    host: str
    ports: range

    def __str__(self) -> str:
        low, high = self.ports[0], self.ports[-1]
        return f"{low}-{high} -> {self.host}" if low < high else f"{low} -> {self.host}"


class LowPort(NamedTuple):
    """The inside *hosts* that may have a service at a port below 1024, and the *key* that lists them."""

    hosts: frozenset[str]
    key: str


@dataclass(frozen=True, slots=True)
class PinholePolicy:
    """The limits an operator may set. Times in seconds.

    lifetime      of an unclaimed pinhole; users think before they click Accept
    claim_grace   what is left after the peer connected: some clients open two connections at once
    accept_grace  what is left after the peer agreed: some clients agree before they connect
    ports         outside ports to choose from where the announced one is taken
    strict        no other outside port than these is used: no other one reaches this router
    rate_per_host, rate_total  openings in a minute; as many may come at once
    also_services services that are allowed beside all others
    known         all services that somebody knows; others are refused. None: every service is known
    off           services that are off by default, and that nobody switched on
    only_for      services that only these inside hosts may have
    caps          services whose standing pinholes count for a limit of each host: the limit's name in the
                  configuration, which services may share, and its value
    low_ports     services that are at a port below 1024 of some inside hosts, by service and port
    forwards      ports that belong to one host for good: nobody else gets a pinhole there
    verify_peers  look at the first bytes of peer connections, where it is known what they have to be
    announce      the address to write into messages instead of the flow's own outside address, or the name
                  of a host that has it (see core.reach)
    upstream      how the router in front is asked for mappings where peers cannot reach the flow's own
                  outside address: "off", "auto", "upnp" or "pcp"
    """

    lifetime: float = 600.0
    claim_grace: float = 10.0
    accept_grace: float = 60.0
    ports: Sequence[int] = range(40000, 41000)
    strict: bool = False
    per_flow: int = 8
    per_host: int = 32
    total: int = 1024
    rate_per_host: int = 60
    rate_total: int = 1200
    deny_ports: frozenset[int] = DENIED_PORTS
    allow_services: frozenset[str] | None = None
    deny_services: frozenset[str] = frozenset()
    also_services: frozenset[str] = frozenset()
    known: frozenset[str] | None = None
    off: frozenset[str] = frozenset()
    only_for: Mapping[str, frozenset[str]] = field(default_factory=dict)
    caps: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    low_ports: Mapping[tuple[str, int], LowPort] = field(default_factory=dict)
    forwards: tuple[Forward, ...] = ()
    verify_peers: bool = True
    announce: str | None = None
    upstream: str = "off"

    def serves(self, service: str) -> bool:
        """Whether *service* may have pinholes at all."""
        if service in self.deny_services:
            return False
        if service in self.also_services:
            return True
        if self._is_unknown(service):
            return False
        return service not in self.off if self.allow_services is None else service in self.allow_services

    def refuses(self, service: str, host: str) -> str | None:
        """Why *service* may have no pinhole to the inside *host*, or None if it may."""
        if self._is_unknown(service) and service not in self.also_services | self.deny_services:
            return f'service {service} is not known; to allow it, write also = ["{service}"] in [services]'
        if not self.serves(service) or self.only_for.get(service) == frozenset():
            return f"service {service} is switched off in the configuration"
        if service in self.only_for and host not in self.only_for[service]:
            return f"service {service} is not switched on for {host} in the configuration"
        return None

    def refuses_port(self, service: str, inside: Endpoint, verifies: bool = True) -> str | None:
        """Why *service* may have no pinhole to *inside* because of its port, or None if it may.

        verifies  first bytes can be looked at
        """
        listed = self.low_ports.get((service, inside.port))
        if listed is not None and inside.address not in listed.hosts:
            return f"port {inside.port} is not one to open unless {listed.key} lists {inside.address}"
        if listed is not None and not self.verify_peers:
            return f"port {inside.port} is not one to open while verify_peers in [pinholes] is false"
        if listed is not None and not verifies:
            return f"port {inside.port} is not one to open while a flowtable takes connections from nfreaim"
        low = listed is None and inside.port < 1024
        if low or inside.port > 0xFFFF or inside.port in self.deny_ports:
            return f"port {inside.port} is not one to open"
        return None

    def _is_unknown(self, service: str) -> bool:
        return self.allow_services is None and self.known is not None and service not in self.known

    def deadline(self, standing: bool, now: float) -> float:
        """Until when a pinhole that is agreed on at *now* stays open."""
        return math.inf if standing else now + self.lifetime

    def arrives(self, port: int) -> bool:
        """Whether connections to outside *port* reach this router, as far as the operator says."""
        return not self.strict or port in self.ports

    def leaves_free(self, port: int, inside: Endpoint) -> bool:
        """Whether outside *port* is free for a pinhole to *inside*, as far as the forwards are concerned."""
        reserved = next((forward for forward in self.forwards if port in forward.ports), None)
        return reserved is None or inside == Endpoint(reserved.host, port)


class RateLimit:
    """A token bucket for each key: *size* openings at once, and as many again in each *period* (seconds)."""

    def __init__(self, size: int, period: float = PERIOD_S) -> None:
        self.size = size
        self._period = period
        self._buckets: dict[str, tuple[float, float]] = {}

    def allows(self, key: str, now: float) -> bool:
        """Whether one may be taken for *key*."""
        return self.level(key, now) >= 1.0

    def take(self, key: str, now: float) -> None:
        """Take one for *key*; ask ``allows`` first."""
        if key not in self._buckets and len(self._buckets) >= _BUCKETS:
            for other in [other for other in self._buckets if self.level(other, now) >= self.size]:
                del self._buckets[other]
        self._buckets[key] = (self.level(key, now) - 1.0, now)

    def level(self, key: str, now: float) -> float:
        """How many may be taken for *key* at once."""
        level, since = self._buckets.get(key, (float(self.size), now))
        return min(float(self.size), level + (now - since) * self.size / self._period)
