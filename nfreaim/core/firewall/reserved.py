"""Reserved: outside ports that messages on their way may name, each for the host that announced it.

A message that announces a port takes its time to its receiver, also one that leaves as it came: the server
may have written the router's address into it. If another host got that outside port meanwhile, the receiver
would come to the wrong one. So the port stays the announcing host's for a minute, with a pinhole or without.
"""

from __future__ import annotations

from typing import Final

from nfreaim.core.address import Endpoint
from nfreaim.core.firewall.policy import PinholePolicy
from nfreaim.core.helper import ANY_PORT

RESERVED_S: Final = 60.0
_HOSTS: Final = 1024
_ANYWHERE: Final = ""


class Reserved:
    """The latest ``per_host`` ports of each inside host, and of so many hosts."""

    def __init__(self, policy: PinholePolicy) -> None:
        self.policy = policy
        self._of: dict[str, dict[Endpoint, float]] = {}
        self._holders: dict[Endpoint, dict[str, float]] = {}  # the same by port

    def announced(self, host: str, outside: Endpoint, now: float) -> None:
        """The inside *host* has announced *outside*, or an endpoint of its own, whose port a server may put
        behind the router's address."""
        if outside.port == ANY_PORT:
            return
        if outside.address == host or self.policy.announce is not None:
            outside = Endpoint(_ANYWHERE, outside.port)
        ports = self._of.pop(host, {})
        self._of[host] = ports
        ports.pop(outside, None)
        ports[outside] = self._holders.setdefault(outside, {})[host] = now + RESERVED_S
        if len(ports) > self.policy.per_host:
            self._drop(host, next(iter(ports)))
        if len(self._of) > _HOSTS:
            oldest = next(iter(self._of))
            for each in list(self._of[oldest]):
                self._drop(oldest, each)

    def free_for(self, outside: Endpoint, host: str, now: float) -> bool:
        """Whether *outside* is reserved for no other host than *host*."""
        held = [self._holders.get(one, {}) for one in (outside, Endpoint(_ANYWHERE, outside.port))]
        return not any(holder != host and until > now for each in held for holder, until in each.items())

    def expire(self, now: float) -> None:
        """Forget those whose time is over."""
        for host, ports in list(self._of.items()):
            for port in [port for port, until in ports.items() if until <= now]:
                self._drop(host, port)

    def _drop(self, host: str, port: Endpoint) -> None:
        del self._of[host][port]
        del self._holders[port][host]
        if not self._of[host]:
            del self._of[host]
        if not self._holders[port]:
            del self._holders[port]
