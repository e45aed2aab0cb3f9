"""Counters: what the engine did, in numbers. Nothing else lives here."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(slots=True)
class Counters:
    """What happened since the start; each counts packets, flows or messages as its name says."""

    packets: int = 0
    changed_packets: int = 0
    unparsed_packets: int = 0
    flows: int = 0
    foreign_flows: int = 0
    malformed_flows: int = 0
    unsequenced_flows: int = 0
    failed_flows: int = 0
    failed_packets: int = 0
    gapped_flows: int = 0
    evicted_flows: int = 0
    evicted_half_open: int = 0
    evicted_half_read: int = 0
    evicted_edits: int = 0
    gap_drops: int = 0
    held_packets: int = 0
    proposals: int = 0
    rewritten: int = 0
    mapped_back: int = 0
    left: int = 0
    redirects: int = 0
    redirects_left: int = 0
    late_edit: int = 0
    refused_edits: int = 0
    resets: int = 0
    unfaithful: int = 0
    malformed_messages: int = 0
    peers_verified: int = 0
    peers_refused: int = 0
    peers_passed: int = 0
    peer_drops: int = 0

    def as_dict(self) -> dict[str, int]:
        """Every counter by name."""
        return {item.name: getattr(self, item.name) for item in fields(self)}
