"""Ladder: a ladder diagram as plain data, which is drawn as text and as a picture.

Its columns are hosts, the router in their midst. Its rows follow the time from top to bottom.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Look = Literal["said", "would", "works", "fails"]
"""Of an arrow: a message; one that nfreaim would have sent; a connection that came about; one that failed."""


@dataclass(frozen=True, slots=True)
class Column:
    """A host: its *name*, an address, and what stands below it."""

    name: str
    role: str = ""


@dataclass(frozen=True, slots=True)
class Arrow:
    """From one column to another, by their indices. *when*: seconds since the capture began, or None."""

    source: int
    target: int
    text: str
    look: Look = "said"
    when: float | None = None


@dataclass(frozen=True, slots=True)
class Note:
    """What a host does or what is known there, without a message."""

    column: int
    text: str
    when: float | None = None


@dataclass(slots=True)
class Ladder:
    """One diagram: its title, and what came of it all, in sentences; *good*: the peers have met."""

    title: str
    columns: list[Column] = field(default_factory=list)
    rows: list[Arrow | Note] = field(default_factory=list)
    verdict: list[str] = field(default_factory=list)
    good: bool = False
