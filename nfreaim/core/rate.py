"""RateLimit: how many things may be begun in a time, by whom. No clock: the time is an argument."""

from __future__ import annotations

from typing import Final

PERIOD: Final = 60.0
"""Seconds in which an empty bucket fills."""

# So many buckets are kept before the full ones are cleared away: a full bucket says nothing.
_BUCKETS: Final = 1024


class RateLimit:
    """A token bucket for each key: *size* at once, and as many again in each PERIOD."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._buckets: dict[str, tuple[float, float]] = {}

    def allows(self, key: str, now: float) -> bool:
        """Whether one may be taken for *key*."""
        return self._level(key, now) >= 1.0

    def take(self, key: str, now: float) -> None:
        """Take one for *key*; ask ``allows`` first."""
        if key not in self._buckets and len(self._buckets) >= _BUCKETS:
            for other in [other for other in self._buckets if self._level(other, now) >= self.size]:
                del self._buckets[other]
        self._buckets[key] = (self._level(key, now) - 1.0, now)

    def _level(self, key: str, now: float) -> float:
        level, since = self._buckets.get(key, (float(self.size), now))
        return min(float(self.size), level + (now - since) * self.size / PERIOD)
