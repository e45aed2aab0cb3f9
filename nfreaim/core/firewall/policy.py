"""The limits on what may be opened: PinholePolicy, what an operator may set, and RateLimit.

Services are names that helpers give. The clock is an argument.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from nfreaim.core.address import Endpoint
from nfreaim.core.helper import Refused

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


@dataclass(frozen=True, slots=True)
class PinholePolicy:
    """The limits an operator may set. Times in seconds.

    lifetime      of an unclaimed pinhole; users think before they click Accept
    claim_grace   what is left after the peer connected: some clients open two connections at once
    accept_grace  what is left after the peer agreed: some clients agree before they connect
    ports         outside ports to choose from where the announced one is taken
    rate_per_host, rate_total  openings in a minute; as many may come at once
    off           services that are off by default, and that nobody switched on
    only_for      services that only these inside hosts may have
    caps          services whose standing pinholes count for a limit of each host: the limit's name in the
                  configuration, which services may share, and its value
    forwards      ports that belong to one host for good: nobody else gets a pinhole there
    verify_peers  look at the first bytes of peer connections, where it is known what they have to be
    announce      the address to write into messages instead of the flow's own outside address
    """

    lifetime: float = 600.0
    claim_grace: float = 10.0
    accept_grace: float = 60.0
    ports: range = range(40000, 41000)
    per_flow: int = 8
    per_host: int = 32
    total: int = 1024
    rate_per_host: int = 60
    rate_total: int = 1200
    deny_ports: frozenset[int] = DENIED_PORTS
    allow_services: frozenset[str] | None = None
    deny_services: frozenset[str] = frozenset()
    off: frozenset[str] = frozenset()
    only_for: Mapping[str, frozenset[str]] = field(default_factory=dict)
    caps: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    forwards: tuple[Forward, ...] = ()
    verify_peers: bool = True
    announce: str | None = None

    def serves(self, service: str) -> bool:
        """Whether *service* may have pinholes at all."""
        if service in self.deny_services:
            return False
        return service not in self.off if self.allow_services is None else service in self.allow_services

    def refuses(self, service: str, host: str) -> str | None:
        """Why *service* may have no pinhole to the inside *host*, or None if it may."""
        if not self.serves(service) or self.only_for.get(service) == frozenset():
            return f"service {service} is switched off in the configuration"
        if service in self.only_for and host not in self.only_for[service]:
            return f"service {service} is not switched on for {host} in the configuration"
        return None

    def leaves_free(self, port: int, inside: Endpoint) -> bool:
        """Whether outside *port* is free for a pinhole to *inside*, as far as the forwards are concerned."""
        reserved = next((forward for forward in self.forwards if port in forward.ports), None)
        return reserved is None or inside == Endpoint(reserved.host, port)


class OpeningRates:
    """How many pinholes may be opened in a minute, for one inside host and in all."""

    def __init__(self, policy: PinholePolicy) -> None:
        self._host, self._total = RateLimit(policy.rate_per_host), RateLimit(policy.rate_total)

    def take(self, host: str, now: float) -> None:
        """One more opening for *host*; one that the firewall refuses afterwards counts. Raises Refused."""
        if not self._host.allows(host, now):
            raise Refused(f"{self._host.size} pinholes a minute to one host (rate_per_host)")
        if not self._total.allows("", now):
            raise Refused(f"{self._total.size} pinholes a minute in all (rate_total)")
        self._host.take(host, now)
        self._total.take("", now)


class RateLimit:
    """A token bucket for each key: *size* openings at once, and as many again in each PERIOD_S."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._buckets: dict[str, tuple[float, float]] = {}

    def allows(self, key: str, now: float) -> bool:
        """Whether one may be taken for *key*."""
        return self._level(key, now) >= 1.0

    def take(self, key: str, now: float) -> None:
        """Take one for *key*; ask ``allows`` first."""
        if key not in self._buckets and len(self._buckets) >= _BUCKETS:
            for other in [other for other in self._buckets if self._level(other, now) >= self.size]:
                del self._buckets[other]
        self._buckets[key] = (self._level(key, now) - 1.0, now)

    def _level(self, key: str, now: float) -> float:
        level, since = self._buckets.get(key, (float(self.size), now))
        return min(float(self.size), level + (now - since) * self.size / PERIOD_S)
