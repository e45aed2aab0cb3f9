"""Metrics: what readers have to tell of themselves, in one process or in several. Counts nothing itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from nfreaim.core.address import FlowId
from nfreaim.core.engine import Engine


class Metrics(NamedTuple):
    """What there is to tell of readers: flows that are known, those of changed length, counters by name."""

    flows: int
    edited: tuple[FlowId, ...]
    counters: dict[str, int]

    @classmethod
    def of(cls, engine: Engine) -> Metrics:
        """Those of one engine."""
        return cls(len(engine.flows), tuple(engine.flows.skewed), engine.counters.as_dict())

    @classmethod
    def total(cls, each: Iterable[Metrics]) -> Metrics:
        """Those of several together."""
        found = list(each)
        counters: Counter[str] = Counter()
        for one in found:
            counters.update(one.counters)
        edited = tuple(owner for one in found for owner in one.edited)
        return cls(sum(one.flows for one in found), edited, dict(counters))

    def counted(self) -> str:
        """The counters for a log line."""
        return " ".join(f"{name}={value}" for name, value in self.counters.items() if value)
