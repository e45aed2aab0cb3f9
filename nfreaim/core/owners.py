"""LostOwners: which control connections are gone without a word (RST, time-out, NAT flush). Only looks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Set
from typing import Final

from nfreaim.core.flow import Owner
from nfreaim.core.nat import Kernel
from nfreaim.errors import BackendError

log = logging.getLogger(__name__)

# So many control connections are looked up in one poll: a look-up costs up to a millisecond.
_BATCH: Final = 32


class LostOwners:
    """Asks the kernel about *watched* flows in turns of a batch."""

    def __init__(self, kernel: Kernel, watched: Callable[[], Set[Owner]]) -> None:
        self._kernel = kernel
        self._watched = watched
        self._waiting: list[Owner] = []

    def poll(self) -> list[Owner]:
        """Those of the next batch that connection tracking does not hold any more."""
        if not self._waiting:
            self._waiting = sorted(self._watched())
        batch, self._waiting = self._waiting[:_BATCH], self._waiting[_BATCH:]
        lost: list[Owner] = []
        for owner in batch:
            try:
                if not self._kernel.alive(owner):
                    lost.append(owner)
            except BackendError as error:
                log.warning("cannot look up %s: %s", owner, error)
                break
        return lost
