"""EngineSettings: the bounds of the engine."""

from __future__ import annotations

from dataclasses import dataclass, field

from nfreaim.core.flow_table import FlowLimits


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """The bounds of the engine. Times are in seconds.

    hold               a packet is held at most this long
    hold_bytes         at most as many payload bytes are held in one stream
    hold_packets       at most as many packets are held in all streams together
    gap                a flow with a gap that is older is read no further
    poll               interval between two looks at the control connections of pinholes
    grace              time that a control connection may be unknown to connection tracking before it counts
                       as lost; operators flush connection tracking now and then
    midstream          read also flows whose beginning was not seen
    home_names         host names (lower case) of servers behind this router
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
