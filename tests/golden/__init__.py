"""Golden packets as data: packets.toml (OSCAR) and the other files beside it say where each comes from."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Golden:
    """One frame as it stands on the wire; `expected` holds it after the ALG, by case ("same-port", ...)."""

    name: str
    description: str
    protocol: str  # flap, ars, oft2, odc2, ymsg
    direction: str  # C>S, S>C, peer, either
    provenance: str  # recorded, published, constructed
    data: bytes
    expected: dict[str, bytes]


@cache
def load(file: str = "packets") -> dict[str, Golden]:
    """All golden packets of a file by name, in its order."""
    text = Path(__file__).with_name(f"{file}.toml").read_text(encoding="ascii")
    return {name: _golden(name, entry) for name, entry in tomllib.loads(text).items()}


@cache
def packets() -> dict[str, bytes]:
    """The bytes of all golden packets by name."""
    return {name: golden.data for name, golden in load().items()}


def _golden(name: str, entry: dict[str, object]) -> Golden:
    expected = entry.get("expected", {})
    assert isinstance(expected, dict)
    return Golden(
        name=name,
        description=str(entry["description"]),
        protocol=str(entry["protocol"]),
        direction=str(entry["direction"]),
        provenance=str(entry["provenance"]),
        data=bytes.fromhex(str(entry["hex"])),
        expected={case: bytes.fromhex(text) for case, text in expected.items()},
    )
