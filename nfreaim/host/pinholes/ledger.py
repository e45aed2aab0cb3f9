"""Ledger: which peers came through each pinhole and what their connections carried, for status and history.

A connection goes on when its pinhole is closed, so its end may come hours later. Connection tracking counts;
the ledger remembers whose connection it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from nfreaim.core.address import FlowId
from nfreaim.errors import BackendError
from nfreaim.host.events import CLAIMED, CLOSED, OPENED, Event, wall_time
from nfreaim.host.netfilter.accounting import Traffic
from nfreaim.host.netfilter.conntrack_events import Ends

_MOST_OPEN: Final = 4096  # connections that are remembered until they end
_MOST_PEERS: Final = 64  # of one pinhole that are told apart
_MOST_ASKED: Final = 256  # open connections whose counters are asked for in one answer
OTHERS: Final = "others"
"""Stands for all further peers of a pinhole."""

TrafficOf = Callable[[FlowId], Traffic | None]
"""What an open connection has carried so far; None: not known. Raises BackendError."""


@dataclass(slots=True)
class _Carried:
    """By the connections of one peer that have ended; *unknown*: by so many of them it is not known what."""

    connections: int = 0
    unknown: int = 0
    packets: int = 0
    size: int = 0

    def add(self, traffic: Traffic | None) -> None:
        self.connections += 1
        if traffic is None:
            self.unknown += 1
        else:
            self.packets += traffic.packets
            self.size += traffic.size

    def document(self) -> dict[str, Any]:
        known = not self.unknown
        return {
            "connections": self.connections,
            "packets": self.packets if known else None,
            "bytes": self.size if known else None,
        }


@dataclass(slots=True)
class _Page:
    """Of one pinhole: its name in the history, its peers, and what they carried that is not written yet."""

    name: str
    peers: set[str] = field(default_factory=set)
    carried: _Carried = field(default_factory=_Carried)
    unwritten: dict[str, _Carried] = field(default_factory=dict)


class Ledger:
    """Hears of pinholes and of connections through them. *write* appends a line to the history."""

    def __init__(self, write: Callable[[dict[str, Any]], None]) -> None:
        self._write = write
        self._run, self._number = f"{int(wall_time() * 1000):x}", 0
        self._pages: dict[str, _Page] = {}  # by outside endpoint
        self._open: dict[Ends, tuple[_Page, str]] = {}
        self._unwritten: dict[str, _Page] = {}
        self._total = Traffic(0, 0)
        self._connections = 0

    def hear(self, event: Event) -> None:
        """Something happened, perhaps to a pinhole."""
        if event.kind is OPENED:
            self._number += 1
            page = self._pages[event.values["outside"]] = _Page(f"{self._run}-{self._number}")
            self._write({"id": page.name, **event.document()})
        elif event.kind in (CLAIMED, CLOSED):
            found = self._pages.get(event.values["outside"])
            if found is None:
                return
            told = {"id": found.name, "time": round(event.at, 3), "event": event.kind.name}
            which = "peer" if event.kind is CLAIMED else "reason"
            self._write(told | {which: event.values[which]})
            if event.kind is CLOSED:
                del self._pages[event.values["outside"]]

    def began(self, ends: Ends) -> None:
        """A connection is established."""
        page = self._pages.get(str(ends.outside))
        if page is None or ends in self._open:
            return
        if len(self._open) >= _MOST_OPEN:  # the longest known one may have ended unnoticed
            self.ended(next(iter(self._open)), None)
        peer = ends.peer.address
        if len(page.peers) >= _MOST_PEERS and peer not in page.peers:
            peer = OTHERS
        page.peers.add(peer)
        self._open[ends] = page, peer

    def ended(self, ends: Ends, traffic: Traffic | None) -> None:
        """A connection is over. Others than those that ``began`` are no error."""
        found = self._open.pop(ends, None)
        if found is not None:
            page, peer = found
            self._connections += 1
            packets, size = traffic or (0, 0)
            self._total = Traffic(self._total.packets + packets, self._total.size + size)
            page.carried.add(traffic)
            page.unwritten.setdefault(peer, _Carried()).add(traffic)
            self._unwritten[page.name] = page

    def flush(self) -> None:
        """Write what connections carried that have ended since the last call."""
        now = round(wall_time(), 3)
        for page in self._unwritten.values():
            for peer, carried in page.unwritten.items():
                self._write(
                    {"id": page.name, "time": now, "event": "carried", "peer": peer, **carried.document()}
                )
            page.unwritten.clear()
        self._unwritten.clear()

    def close(self, traffic_of: TrafficOf) -> None:
        """The daemon ends: write what open connections have carried so far, as that of unfinished ones."""
        self.flush()
        now = round(wall_time(), 3)
        for ends, (page, peer) in islice(self._open.items(), _MOST_ASKED):
            carried = _Carried()
            carried.add(_asked(ends, traffic_of))
            line = {"id": page.name, "time": now, "event": "carried", "peer": peer, "unfinished": True}
            self._write(line | carried.document())

    def told(self, traffic_of: TrafficOf) -> dict[str, dict[str, Any]]:
        """For the status, by outside endpoint: peers, connections, and what they have carried, in all."""
        sums = {outside: (page, _Carried()) for outside, page in self._pages.items()}
        active: Counter[str] = Counter()
        for number, (ends, (page, _)) in enumerate(self._open.items()):
            outside = str(ends.outside)
            if self._pages.get(outside) is page:
                active[outside] += 1
                sums[outside][1].add(_asked(ends, traffic_of) if number < _MOST_ASKED else None)
        return {outside: self._status(page, now, active[outside]) for outside, (page, now) in sums.items()}

    def total(self) -> dict[str, int]:
        """The connections that have ended since the start, and what they carried as far as it is known."""
        return {
            "connections": self._connections,
            "packets": self._total.packets,
            "bytes": self._total.size,
        }

    @staticmethod
    def _status(page: _Page, now: _Carried, active: int) -> dict[str, Any]:
        ended = page.carried
        known = not (ended.unknown or now.unknown)
        return {
            "connected": sorted(page.peers),
            "connections": ended.connections + now.connections,
            "active": active,
            "packets": ended.packets + now.packets if known else None,
            "bytes": ended.size + now.size if known else None,
        }


def _asked(ends: Ends, traffic_of: TrafficOf) -> Traffic | None:
    try:
        return traffic_of(FlowId(ends.peer, ends.outside))
    except BackendError:
        return None
