"""EngineSettings: the bounds of the engine. HomeServer: a server on the inside, as the operator names it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from typing import NamedTuple, Self

from nfreaim.core.address import Endpoint
from nfreaim.core.flow_table import FlowLimits


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """The bounds of the engine. Times are in seconds.

    hold               the bytes of a message are held at most this long
    patience           a packet is held at most this long before its bytes are taken into custody
    hold_bytes         at most as many payload bytes are held in one stream
    hold_packets       at most as many packets are held in all streams together
    gap                a flow with a gap that is older, and whose sender repeats what comes behind it, is read
                       no further
    poll               interval between two looks at the control connections of pinholes
    grace              time that a control connection may be unknown to connection tracking before it counts
                       as lost; operators flush connection tracking now and then
    midstream          read also flows whose beginning was not seen
    home_names         host names (lower case) of servers behind this router
    """

    hold: float = 1.0
    patience: float = 0.010
    hold_bytes: int = 8192
    hold_packets: int = 4096
    gap: float = 10.0
    poll: float = 2.0
    grace: float = 10.0
    midstream: bool = False
    home_names: frozenset[str] = frozenset()
    limits: FlowLimits = field(default_factory=FlowLimits)

    def share(self, engines: int) -> EngineSettings:
        """The bounds for one of so many engines: together they remember no more than one with these."""
        packets = max(1, self.hold_packets // engines)
        return replace(self, hold_packets=packets, limits=self.limits.share(engines))


class HomeServer(NamedTuple):
    """A server on the inside that the operator names. *port* None: any port of this host."""

    address: str
    port: int | None = None

    @classmethod
    def parse(cls, text: object) -> Self:
        """From "10.0.0.9" or "10.0.0.9:443". Raises ValueError."""
        found = re.fullmatch(r"([0-9.]+)(?::([0-9]{1,5}))?", text) if isinstance(text, str) else None
        if found is None or (found[2] and not 1 <= int(found[2]) <= 65535):
            raise ValueError(f"not an address with a port or without: {text!r}")
        return cls(str(IPv4Address(found[1])), int(found[2]) if found[2] else None)

    def covers(self, server: Endpoint) -> bool:
        """Whether *server* is meant."""
        return self.address == server.address and self.port in (None, server.port)
