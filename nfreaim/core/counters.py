"""Counters: what the engine did, in numbers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import NamedTuple

from nfreaim.core.address import FlowId
from nfreaim.core.helper import MESSAGE_COUNTERS, HelperSpec


@dataclass(slots=True)
class Counters:
    """What happened since the start; each counts packets, flows or messages as its name says.

    helpers  those that the helpers count, by name (see HelperSpec)
    """

    packets: int = 0
    changed_packets: int = 0
    unparsed_packets: int = 0
    flows: int = 0
    foreign_flows: int = 0
    malformed_flows: int = 0
    failed_flows: int = 0
    failed_packets: int = 0
    gapped_flows: int = 0
    evicted_flows: int = 0
    evicted_half_open: int = 0
    evicted_half_read: int = 0
    evicted_edits: int = 0
    gap_drops: int = 0
    held_packets: int = 0
    late_edit: int = 0
    refused_edits: int = 0
    resets: int = 0
    peers_verified: int = 0
    peers_refused: int = 0
    peers_passed: int = 0
    peer_drops: int = 0
    helpers: dict[str, int] = field(default_factory=lambda: dict.fromkeys(MESSAGE_COUNTERS, 0))

    @classmethod
    def of(cls, specs: Iterable[HelperSpec]) -> Counters:
        """Zeroes, with the counters of these protocols."""
        counters = cls()
        for spec in specs:
            counters.helpers |= dict.fromkeys(spec.counters, 0)
        return counters

    def as_dict(self) -> dict[str, int]:
        """Every counter by name."""
        own = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "helpers"}
        return own | self.helpers


class EngineStats(NamedTuple):
    """What an engine tells of itself.

    flows     how many it knows
    edited    those whose length was changed
    counters  by name
    """

    flows: int
    edited: tuple[FlowId, ...]
    counters: dict[str, int]
