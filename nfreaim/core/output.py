"""Output makes edits and renders segments with them; Holding keeps packets back until an edit is possible."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from heapq import heappop, heappush
from math import inf
from typing import Final

from nfreaim.core import records
from nfreaim.core.backend import FlowStore
from nfreaim.core.counters import Counters
from nfreaim.core.flow import Flow
from nfreaim.core.flow_table import FlowTable
from nfreaim.core.settings import EngineSettings
from nfreaim.core.tcp.offsets import Edit
from nfreaim.core.tcp.segment import Segment
from nfreaim.core.tcp.stream import Held, Stream
from nfreaim.core.verdict import ACCEPT, DROP, Verdict
from nfreaim.errors import BackendError

log = logging.getLogger(__name__)


class Output:
    """Makes edits; those that change a length only on flows that may be skewed and are protected first."""

    def __init__(self, store: FlowStore, flows: FlowTable, counters: Counters) -> None:
        self._store = store
        self._flows = flows
        self._counters = counters

    def apply(self, stream: Stream[Flow], edits: Sequence[Edit], new_from: int, now: float) -> bool:
        """Make a helper's *edits*, all or none, if nothing of them has left and the flow can carry them.

        new_from  where the bytes that were scanned begin

        Raises ValueError if the helper made a mistake.
        """
        flow = stream.flow
        start, end = edits[0].start, edits[-1].end
        if start < stream.first_editable(new_from) or end > stream.next:
            # Behind what has come it would let the sender be told that bytes arrived which it never sent.
            raise ValueError(f"edits of [{start}, {end}) over bytes that have left or have not come")
        resizes = any(edit.resizes for edit in edits)
        if resizes and not (self._flows.may_skew(flow) and flow.reading.certain(stream, now)):
            self._counters.refused_edits += 1
            return False
        stream.edit(edits)
        self._counters.evicted_edits += self._flows.edited(flow)
        if not flow.skewed and not stream.map.skewed:
            return True
        try:
            self._store.protect(flow.key, records.record(flow))
        except BackendError as error:
            log.debug("%s: an edit is not made: %s", flow.id, error)  # the guard has logged the cause, once
            stream.map.undo(len(edits))
            return False
        self._flows.skew(flow)
        return True

    def rendered(self, stream: Stream[Flow], segment: Segment, at: int) -> Verdict:
        """What becomes of *segment*, whose payload stands at offset *at*: as it came, or with its edits."""
        if stream.dropped_from is not None:
            stream.forwarded(at + segment.size)
        attended = stream.flow.attended
        if not stream.map.edits and not attended:
            return ACCEPT
        try:
            sent = segment
            if attended and stream.custody is not None:
                sent, at = stream.custody.carried(segment, at, stream.base)
            rendered = stream.rendered(sent, at)
            if attended:
                rendered = stream.other.relieved(rendered)
        except Exception as error:  # packets that were held before this one need their verdicts all the same
            if not self._counters.failed_packets:
                log.error("%s: a packet cannot be edited", stream.flow.id, exc_info=error)
            self._counters.failed_packets += 1
            return DROP if stream.flow.skewed else ACCEPT
        if rendered.raw == segment.raw:
            return ACCEPT
        self._counters.changed_packets += 1
        return Verdict(True, rendered.raw)


_SHARES: Final = 4
_FEW: Final = 64  # packets of one client are never too many


class _Waiting:
    """A stream that holds packets. *due*: when to look at it; *hold*: from which offset on it is held."""

    __slots__ = ("due", "hold", "stream")

    def __init__(self, stream: Stream[Flow]) -> None:
        self.stream = stream
        self.due = inf
        self.hold = 0


class Holding:
    """Every stream that holds packets: how many there may be, and when each is to be looked at.

    A client (an address) has at most a quarter of the room, so that it leaves some to the others. The cost of
    a question at a packet does not grow with the number of streams.
    """

    def __init__(self, settings: EngineSettings, counters: Counters) -> None:
        self._counters = counters
        self._settings = settings
        self._streams: dict[int, _Waiting] = {}
        self._packets = 0
        self._clients: Counter[bytes] = Counter()
        self._share = max(_FEW, settings.hold_packets // _SHARES)
        self._patience = min(settings.patience, settings.hold)
        self._order: list[tuple[float, int, _Waiting]] = []  # a heap: by due, also of times that do not count
        self._number = 0

    def streams(self) -> list[Stream[Flow]]:
        """The streams that hold packets."""
        return [waiting.stream for waiting in self._streams.values()]

    def may(self, stream: Stream[Flow], hold: int, new_from: int, size: int) -> bool:
        """Whether holding a packet of *size* bytes can still serve an edit, and there is room for it.

        hold, new_from  the first byte that an edit may concern, and the first that no earlier packet carried
        """
        if hold < stream.first_editable(new_from):
            return False  # those bytes have left already
        small = stream.held_bytes + size <= self._settings.hold_bytes
        fair = self._clients[stream.flow.key[:4]] < self._share
        if small and fair and self._packets < self._settings.hold_packets:
            return True
        self._counters.late_edit += 1
        return False

    def keep(self, stream: Stream[Flow], packet: Held, hold: int) -> None:
        """Hold *packet* of *stream*, for the sake of the bytes from offset *hold* on."""
        stream.hold(packet)
        self._packets += 1
        self._clients[stream.flow.key[:4]] += 1
        waiting = self._streams.get(id(stream))
        if waiting is None:
            waiting = self._streams[id(stream)] = _Waiting(stream)
            self._plan(waiting, packet.since + self._patience)
        waiting.hold = hold

    def held_from(self, stream: Stream[Flow]) -> int:
        """The offset from which on *stream*, which holds something, is held."""
        return self._streams[id(stream)].hold

    def release(self, stream: Stream[Flow], below: int | None = None) -> list[Held]:
        """The packets of *stream* that end at or before offset *below* (None: all), no longer held."""
        freed = stream.release(below)
        if freed:
            client = stream.flow.key[:4]
            self._packets -= len(freed)
            self._clients[client] -= len(freed)
            if not self._clients[client]:
                del self._clients[client]
        if not stream.held:
            self._streams.pop(id(stream), None)
        return freed

    def due(self, now: float) -> list[Stream[Flow]]:
        """The streams to look at: they have held something for a while, or for as long as they may."""
        found = []
        while self._order and self._order[0][0] <= now:
            due, _, waiting = heappop(self._order)
            if not self._counts(due, waiting):
                continue
            since = waiting.stream.held[0].since
            if since + self._patience > now:
                self._plan(waiting, since + self._patience)
                continue
            found.append(waiting.stream)
            if since + self._settings.hold > now:
                self._plan(waiting, since + self._settings.hold)
        return found

    def look_again(self, stream: Stream[Flow], at: float) -> None:
        """Let *stream*, which holds something, be ``due`` at the time *at* already."""
        waiting = self._streams[id(stream)]
        if at < waiting.due:
            self._plan(waiting, at)

    def _plan(self, waiting: _Waiting, due: float) -> None:
        waiting.due = due
        self._number += 1
        heappush(self._order, (due, self._number, waiting))

    def _counts(self, due: float, waiting: _Waiting) -> bool:
        """Whether *waiting* is still to be looked at at the time *due*."""
        return waiting.due == due and self._streams.get(id(waiting.stream)) is waiting

    def overdue(self, stream: Stream[Flow]) -> list[Held]:
        """Held packets of *stream* to drop when their time is up; empty if they are to be sent instead.

        They are dropped only if a gap precedes them: the sender retransmits the gap and, with it, these
        bytes. At most once per position (``dropped_from``), so the stream always makes progress.
        """
        if stream.gap is None or stream.dropped_from is not None:
            self._counters.late_edit += 1
            return []
        stream.dropped_from = stream.held[0].new_from
        freed = self.release(stream)
        self._counters.gap_drops += len(freed)
        return freed

    def wakeup(self) -> float | None:
        """When to ask for the ones that are ``due``, at the latest; None: nothing is held."""
        return self._order[0][0] if self._streams and self._order else None
