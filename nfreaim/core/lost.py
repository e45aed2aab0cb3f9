"""LostFlows: finds control connections that ended without a packet that proves it, by asking conntrack.

An RST that was seen proves nothing. Conntrack may be flushed (by an operator, a change of address, a firewall
that is loaded again), and a living connection is back there with its next packet. So a flow that conntrack
does not have is looked up again before it counts as lost.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

from nfreaim.core.address import FlowId
from nfreaim.core.backend import Conntrack
from nfreaim.errors import BackendError

log = logging.getLogger(__name__)

# At most as many flows are looked up in one poll, because a look-up costs up to a millisecond.
_BATCH: Final = 32


class LostFlows:
    """*grace*: for how long a flow may be unknown to connection tracking, in seconds."""

    def __init__(self, conntrack: Conntrack, grace: float) -> None:
        self._conntrack = conntrack
        self._grace = grace
        self._waiting: list[FlowId] = []
        self._unknown: dict[FlowId, float] = {}

    def lost(self, flows: Iterable[FlowId], now: float) -> list[tuple[FlowId, bool]]:
        """Those of the next few of *flows* that are lost, and whether it is certain that they ended.

        Each of them has its turn before any has a second one.
        """
        if not self._waiting:
            self._waiting = sorted(flows)
            known = set(self._waiting)
            self._unknown = {flow: since for flow, since in self._unknown.items() if flow in known}
        batch, self._waiting = self._waiting[:_BATCH], self._waiting[_BATCH:]
        lost: list[tuple[FlowId, bool]] = []
        for flow in batch:
            try:
                if self._conntrack.alive(flow):
                    self._unknown.pop(flow, None)
                elif self._conntrack.ended(flow):
                    lost.append((flow, True))
                elif now - self._unknown.setdefault(flow, now) >= self._grace:
                    lost.append((flow, False))
            except BackendError as error:
                log.warning("cannot look up %s: %s", flow, error)
                break
        return lost
