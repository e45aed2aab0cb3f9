"""LostFlows: which control connections have ended without a word, as connection tracking tells.

An RST that was seen proves nothing, so connection tracking is asked. It is flushed now and then (by an
operator, a change of address, a firewall that is loaded again), and a living connection is back with its next
packet: what it does not know at all is looked at again before it counts as lost. Asks; ends nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

from nfreaim.core.address import FlowId
from nfreaim.core.backend import Kernel
from nfreaim.errors import BackendError

log = logging.getLogger(__name__)

# So many are looked up in one poll: a look-up costs up to a millisecond.
_BATCH: Final = 32


class LostFlows:
    """*grace*: for how long a connection may be unknown, in seconds."""

    def __init__(self, kernel: Kernel, grace: float) -> None:
        self._kernel = kernel
        self._grace = grace
        self._waiting: list[FlowId] = []
        self._unknown: dict[FlowId, float] = {}

    def lost(self, owners: Iterable[FlowId], now: float) -> list[tuple[FlowId, bool]]:
        """Those of the next few of *owners* that are lost, and whether it is certain that they ended.

        Each of them has its turn before any has a second one.
        """
        if not self._waiting:
            self._waiting = sorted(owners)
            known = set(self._waiting)
            self._unknown = {owner: since for owner, since in self._unknown.items() if owner in known}
        batch, self._waiting = self._waiting[:_BATCH], self._waiting[_BATCH:]
        lost: list[tuple[FlowId, bool]] = []
        for owner in batch:
            try:
                if self._kernel.alive(owner):
                    self._unknown.pop(owner, None)
                elif self._kernel.ended(owner):
                    lost.append((owner, True))
                elif now - self._unknown.setdefault(owner, now) >= self._grace:
                    lost.append((owner, False))
            except BackendError as error:
                log.warning("cannot look up %s: %s", owner, error)
                break
        return lost
