"""EngineSettings: the engine's bounds. Nothing else lives here."""

from __future__ import annotations

from dataclasses import dataclass, field

from nfreaim.core.flow_table import FlowLimits


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """The engine's bounds. Times in seconds.

    hold, hold_bytes   how long a packet is kept back, and how many payload bytes in one stream
    hold_packets       how many packets in all streams together
    gap                a hole in a stream that is read: given up after this time
    poll               how often the control connections of pinholes are looked up
    grace              how long one may be unknown to connection tracking, which is flushed now and then
    midstream          read flows whose beginning was not seen, too
    home_names         host names (lower case) that stand for servers behind this router
    """

    hold: float = 0.030
    hold_bytes: int = 8192
    hold_packets: int = 4096
    gap: float = 10.0
    poll: float = 2.0
    grace: float = 10.0
    midstream: bool = False
    home_names: frozenset[str] = frozenset()
    limits: FlowLimits = field(default_factory=FlowLimits)
