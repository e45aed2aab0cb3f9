"""Golden packets of MSN Messenger: msn.json beside this file, with before, after and provenance of each.

Recorded ones are from libpurple's MSN plug-in and MSNP-Sharp with the Escargot server, across a NAT router;
published ones are from public documents, with addresses of the laboratory; derived ones are put together
after a client's source. Addresses: alice 10.0.0.5 and amy 10.0.0.6 behind 203.0.113.1, bob 203.0.113.20, the
server 203.0.113.9, or 10.0.0.9 where it is inside.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet before and after the router. *direction*: "out", "in", "peer", "server-inside out"."""

    name: str
    direction: str
    provenance: str
    before: bytes
    after: bytes


@cache
def packets() -> dict[str, Packet]:
    """All of them, by name."""
    text = Path(__file__).with_name("msn.json").read_text(encoding="utf-8")
    return {
        one["id"]: Packet(
            one["id"],
            one["direction"],
            one["provenance"],
            bytes.fromhex(one["before"]),
            bytes.fromhex(one["after"]),
        )
        for one in json.loads(text)
    }


MOVED = {
    "F5": (6891, 6892),
    "F6": (6891, 40001),
    "P2": (44397, 40000),
    "P4": (6891, 40000),
    "W2": (3312, 40003),
    "N1": (2000, 40000),
}
"""Those whose port is taken outside, and becomes another."""

UNNUMBERED = ("W1", "W2", "W3", "W4", "W5")
"""Frames of P2P version 2: what is given as their result would have other lengths, and is not made."""
