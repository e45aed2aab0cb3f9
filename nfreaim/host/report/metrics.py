"""Metrics: the statistics of several engines and of the peer gate, added up and as a log line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from nfreaim.core.counters import EngineStats

NOTHING: Final = EngineStats(0, (), {})


class Readers(NamedTuple):
    """Statistics of the processes that read packets: the sum, and of several workers a document each."""

    stats: EngineStats
    workers: Sequence[dict[str, Any]] = ()


def total(each: Iterable[EngineStats]) -> EngineStats:
    """The sum of several statistics."""
    found = list(each)
    counters: Counter[str] = Counter()
    for stats in found:
        counters.update(stats.counters)
    edited = tuple(flow for stats in found for flow in stats.edited)
    newest = tuple(flow for stats in found for flow in stats.newest)
    return EngineStats(sum(stats.flows for stats in found), edited, dict(counters), newest)


def log_line(stats: EngineStats) -> str:
    """The counters that are not zero, as name=value."""
    return " ".join(f"{name}={value}" for name, value in stats.counters.items() if value)
