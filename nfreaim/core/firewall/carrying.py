"""Carrying: which agreements are over, because their peers have come and their connections carry no more.

An agreement that is over keeps its pinhole for its grace, as some clients open a second connection. But it
must not keep a new one from being opened: at a limit it gives way. What is over connection tracking tells,
and it is asked at a limit only.
"""

from __future__ import annotations

import math
from typing import Final, Protocol

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.firewall.index import AgreementKey, Entry, PinholeIndex

OVER: Final = "over: its peer has come and gone"
"""The reason why an agreement that gave way was ended."""


class Connections(Protocol):
    """What is asked about connections through pinholes. Raises nothing."""

    def look(self) -> None:
        """Tell the table of all that were completed up to now (PinholeTable.claimed)."""

    def carries(self, connection: FlowId) -> bool:
        """Whether *connection* from a peer (client) to an inside host (server) is open still."""


class NoConnections:
    """Nothing is known of any connection, as where no kernel is asked."""

    def look(self) -> None:
        pass

    def carries(self, connection: FlowId) -> bool:
        return False


_ASKED_AGAIN_S: Final = 0.2  # proposals that are refused without end ask no more often for one connection
_MOST: Final = 64  # connections of one pinhole that are remembered


def came(entry: Entry, peer: Endpoint) -> None:
    """*peer* has completed a connection through the pinhole of *entry*."""
    entry.came.setdefault(peer, -math.inf)
    if len(entry.came) > _MOST:
        del entry.came[next(iter(entry.came))]


class Carrying:
    """Answers from *index*, and from connection tracking."""

    def __init__(self, index: PinholeIndex, connections: Connections) -> None:
        self._index, self._connections = index, connections

    def over_in_flow(self, flow: FlowId, now: float) -> AgreementKey | None:
        """An agreement of *flow* that is over, or None.

        Of those that share a pinhole nothing tells which of them a connection was for. So the one that would
        end first is taken: it was accepted, or has had its peer.
        """
        self._connections.look()
        ends = self._deadlines(flow)
        for key in sorted(ends, key=lambda each: ends[each]):
            if not math.isinf(ends[key]) and self._over(self._index.by_agreement[key], now):
                return key
        return None

    def over_at_host(self, host: str, now: float) -> Entry | None:
        """A pinhole to the inside *host* all of whose agreements are over, or None."""
        self._connections.look()
        entries = sorted(self._index.of_host.get(host, ()), key=lambda each: each.deadline())
        return next((each for each in entries if self._over(each, now) == len(each.agreements)), None)

    def _deadlines(self, flow: FlowId) -> dict[AgreementKey, float]:
        keys = [(flow, name) for name in self._index.flows.get(flow, ())]
        return {key: self._index.by_agreement[key].agreements[key] for key in keys}

    def _over(self, entry: Entry, now: float) -> int:
        """How many agreements of *entry* are over."""
        if entry.pinhole.standing:
            return 0
        for peer, asked in entry.came.items():
            if asked + _ASKED_AGAIN_S <= now:
                carries = self._connections.carries(FlowId(peer, entry.pinhole.inside))
                entry.came[peer] = now if carries else math.inf
        ended = sum(math.isinf(asked) for asked in entry.came.values())
        count = len(entry.agreements)
        return min(ended, max(0, count - (len(entry.came) - ended)))
