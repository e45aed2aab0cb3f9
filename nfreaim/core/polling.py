"""OwnerPoll: which control connections ended without a word (RST, time-out, NAT flush). Closes nothing."""

from __future__ import annotations

import logging
from collections.abc import Set
from typing import Final

from nfreaim.core.flow import Owner
from nfreaim.core.nat import Kernel
from nfreaim.errors import BackendError

log = logging.getLogger(__name__)

# So many control connections are looked up in one poll: a look-up costs up to a millisecond.
_BATCH: Final = 32


class OwnerPoll:
    """Looks all of them up in turn, some at a time."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._waiting: list[Owner] = []

    def lost(self, owners: Set[Owner]) -> list[Owner]:
        """Those of the next few *owners* that connection tracking does not hold as open connections."""
        if not self._waiting:
            self._waiting = sorted(owners)
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
