"""Decisions of a random case as a list of numbers, so that a case that fails can be made smaller by itself.

A decision of 0 is the tame one (nothing is lost, nothing comes twice), and behind the end of a list all are
0: whatever is taken out of the list leaves a case that can be run, only simpler.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence


class Choices:
    """Random decisions of a seed, or those of a list. *taken* is what was decided."""

    def __init__(self, seed: int | None = None, script: Sequence[int] = ()) -> None:
        self._random = None if seed is None else random.Random(seed).random
        self._script = iter(script)
        self.taken: list[int] = []

    def below(self, limit: int) -> int:
        """One of 0 to limit - 1."""
        choice = int(self._random() * limit) if self._random else next(self._script, 0) % limit
        self.taken.append(choice)
        return choice

    def between(self, low: int, high: int) -> int:
        return low + self.below(high - low + 1)

    def one_in(self, count: int) -> bool:
        return self.below(count) == count - 1


def shrunk(script: Sequence[int], fails: Callable[[Sequence[int]], bool], budget: int = 3000) -> list[int]:
    """A shorter and tamer list that still fails."""
    best = list(script)
    size = len(best)
    while size:
        at = 0
        while at < len(best) and budget:
            budget -= 1
            without = best[:at] + best[at + size :]
            if fails(without):
                best = without
            else:
                at += size
        size //= 2
    for at in range(len(best)):
        for smaller in (0, 1, best[at] // 2, best[at] - 1):
            if budget and 0 <= smaller < best[at]:
                budget -= 1
                tamer = [*best[:at], smaller, *best[at + 1 :]]
                if fails(tamer):
                    best = tamer
                    break
    return best
