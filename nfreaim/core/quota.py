"""Quota: shares of something that is bounded in all, such as memory. Whoever's share is oldest gives way."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

H = TypeVar("H", bound=Hashable)


class Quota(Generic[H]):
    """How much each holder has of *bound* in all; the unit is the caller's."""

    def __init__(self, bound: int) -> None:
        self.bound = bound
        self.total = 0
        self._shares: OrderedDict[H, int] = OrderedDict()

    def set(self, holder: H, share: int) -> None:
        """*holder* has *share* from now on; the time at which that changed counts."""
        before = self._shares.pop(holder, 0)
        self.total += share - before
        if share:
            self._shares[holder] = share

    def surplus(self) -> list[H]:
        """Those who have to give theirs up, longest unchanged first; they are not in the ledger any more.

        The latest is never among them.
        """
        found: list[H] = []
        while self.total > self.bound and len(self._shares) > 1:
            holder, share = self._shares.popitem(last=False)
            self.total -= share
            found.append(holder)
        return found
