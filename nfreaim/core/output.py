"""Output makes edits and renders segments with them; Holding keeps packets back until an edit is possible."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from math import inf

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

    def apply(self, stream: Stream[Flow], edits: Sequence[Edit], new_from: int) -> bool:
        """Make a helper's *edits*, all or none, if nothing of them has left and the flow can carry them.

        new_from  where the bytes that were scanned begin

        Raises ValueError if the helper made a mistake.
        """
        flow = stream.flow
        start, end = edits[0].start, edits[-1].end
        if start < stream.first_editable(new_from) or end > stream.next:
            # Behind what has come it would let the sender be told that bytes arrived which it never sent.
            raise ValueError(f"edits of [{start}, {end}) over bytes that have left or have not come")
        if any(edit.resizes for edit in edits) and not (self._flows.may_skew(flow) and flow.reading.certain):
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
        if not stream.map.edits and not stream.flow.skewed:
            return ACCEPT
        try:
            rendered = stream.rendered(segment, at)
        except Exception as error:  # packets that were held before this one need their verdicts all the same
            if not self._counters.failed_packets:
                log.error("%s: a packet cannot be edited", stream.flow.id, exc_info=error)
            self._counters.failed_packets += 1
            return DROP if stream.flow.skewed else ACCEPT
        if rendered.raw == segment.raw:
            return ACCEPT
        self._counters.changed_packets += 1
        return Verdict(True, rendered.raw)


class Holding:
    """Every stream that holds packets: how many there may be, and when each has to end.

    The cost of a question at a packet does not grow with the number of streams.
    """

    def __init__(self, settings: EngineSettings, counters: Counters) -> None:
        self._counters = counters
        self._settings = settings
        self._streams: dict[int, Stream[Flow]] = {}
        self._packets = 0
        self._wakeup = inf  # at or before the time when the first one is due

    def streams(self) -> list[Stream[Flow]]:
        """The streams that hold packets."""
        return list(self._streams.values())

    def may(self, stream: Stream[Flow], hold: int, new_from: int, size: int) -> bool:
        """Whether holding a packet of *size* bytes can still serve an edit, and there is room for it.

        hold, new_from  the first byte that an edit may concern, and the first that no earlier packet carried
        """
        if hold < stream.first_editable(new_from):
            return False  # those bytes have left already
        small = stream.held_bytes + size <= self._settings.hold_bytes
        if small and self._packets < self._settings.hold_packets:
            return True
        self._counters.late_edit += 1
        return False

    def keep(self, stream: Stream[Flow], packet: Held) -> None:
        """Hold *packet* of *stream*."""
        stream.hold(packet)
        self._packets += 1
        self._streams[id(stream)] = stream
        self._wakeup = min(self._wakeup, packet.since + self._settings.hold)

    def release(self, stream: Stream[Flow], below: int | None = None) -> list[Held]:
        """The packets of *stream* that end at or before offset *below* (None: all), no longer held."""
        freed = stream.release(below)
        self._packets -= len(freed)
        if not stream.held:
            self._streams.pop(id(stream), None)
        return freed

    def due(self, now: float) -> list[Stream[Flow]]:
        """The streams that have held something for as long as they may."""
        if now < self._wakeup:
            return []
        until = {id(stream): stream.held[0].since + self._settings.hold for stream in self._streams.values()}
        self._wakeup = min((time for time in until.values() if time > now), default=inf)
        return [stream for stream in self.streams() if until[id(stream)] <= now]

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
        return self._wakeup if self._streams else None
