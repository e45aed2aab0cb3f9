"""PinholeReaper: what an engine does for pinholes where engines and pinholes are in one process."""

from __future__ import annotations

from nfreaim.core.backend import Conntrack
from nfreaim.core.firewall.table import PinholeTable
from nfreaim.core.guarded import GuardedConntrack
from nfreaim.core.lost import LostFlows
from nfreaim.core.settings import EngineSettings
from nfreaim.host.loop import clock


class PinholeReaper:
    """Closes pinholes in time if the engines are in other processes: Engine.tick cannot do it there."""

    def __init__(self, pinholes: PinholeTable, conntrack: Conntrack, settings: EngineSettings) -> None:
        self._pinholes = pinholes
        self._lost_flows = LostFlows(GuardedConntrack(conntrack), settings.grace)
        self._poll_s = settings.poll
        self._next = 0.0

    def tick(self) -> None:
        """Close the pinholes that are past their deadline, and those of control connections that are lost."""
        now = clock()
        if now >= self._next:
            self._next = now + self._poll_s
            for flow, _ in self._lost_flows.lost(self._pinholes.tended(), now):
                self._pinholes.close_flow(flow, "control connection lost", now)
        self._pinholes.expire(now)
