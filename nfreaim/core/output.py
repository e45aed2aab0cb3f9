"""What leaves, and when: Output makes edits and renders segments with them, Holding keeps packets back."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from math import inf

from nfreaim.core import records
from nfreaim.core.backend import Kernel
from nfreaim.core.counters import Counters
from nfreaim.core.flow_table import FlowTable
from nfreaim.core.settings import EngineSettings
from nfreaim.core.tcp.offsets import Edit
from nfreaim.core.tcp.segment import Segment
from nfreaim.core.tcp.stream import Held, Stream
from nfreaim.core.verdict import ACCEPT, DROP, Verdict
from nfreaim.errors import BackendError

log = logging.getLogger(__name__)


class Output:
    """Makes edits; those that change a length only on flows whose state the kernel keeps for us."""

    def __init__(self, kernel: Kernel, flows: FlowTable, counters: Counters) -> None:
        self._kernel = kernel
        self._flows = flows
        self._counters = counters

    def make(self, stream: Stream, edits: Sequence[Edit]) -> None:
        """Add a helper's *edits*. Those that cannot be protected, or skew a client's flow, are not made.

        Raises ValueError if the helper made a mistake.
        """
        flow, nat = stream.flow, stream.flow.nat
        assert nat is not None
        start, end = edits[0].start, edits[-1].end
        if not nat.editable(stream.direction, start) or end > stream.next:
            # Behind what has come it would let the sender be told that bytes arrived which it never sent.
            raise ValueError(f"edits of [{start}, {end}) over bytes that have left or have not come")
        fixed = not self._flows.may_skew(flow) or (flow.resuming is not None and not flow.skewed)
        if fixed and any(edit.resizes for edit in edits):
            # A flow that cannot be skewed need never fail closed.
            self._counters.refused_edits += 1
            nat.undo_scan("edit refused")
            return
        stream.edit(edits)
        self._counters.evicted_edits += self._flows.edited(flow)
        if not flow.skewed and not stream.map.skewed:
            return
        try:
            self._kernel.protect(flow.key, records.record(flow))
            flow.skewed = True
            self._flows.skewed[flow.owner] = flow
        except BackendError as error:
            log.debug("%s: an edit is not made: %s", flow.owner, error)  # the seam has said why, once
            stream.map.undo(len(edits))
            nat.undo_scan("edit refused")

    def rendered(self, stream: Stream, segment: Segment, at: int) -> Verdict:
        """What becomes of *segment*, whose payload stands at offset *at*: as it came, or with its edits."""
        if stream.unsent is not None:
            stream.left(at + len(segment.raw) - segment.start)
        if not stream.map.edits and not stream.flow.skewed:
            return ACCEPT
        try:
            rendered = stream.rendered(segment, at)
        except Exception as error:  # those that were held before this one need their verdicts all the same
            if not self._counters.failed_packets:
                log.error("%s: a packet cannot be edited", stream.flow.owner, exc_info=error)
            self._counters.failed_packets += 1
            return DROP if stream.flow.skewed else ACCEPT
        if rendered.raw == segment.raw:
            return ACCEPT
        self._counters.changed_packets += 1
        return Verdict(True, rendered.raw)


class Holding:
    """Every stream that holds something. What is asked at each packet does not take longer for many."""

    def __init__(self, settings: EngineSettings, counters: Counters) -> None:
        self._counters = counters
        self._settings = settings
        self._streams: dict[int, Stream] = {}
        self._packets = 0
        self._wakeup = inf  # at or before the time when the first one is due

    def streams(self) -> list[Stream]:
        return list(self._streams.values())

    def may(self, stream: Stream, hold: int, fresh: int, size: int) -> bool:
        """Whether keeping back a packet of *size* bytes can still serve an edit, and there is room for it.

        hold, fresh  the first byte that an edit may concern, and the first that no earlier packet carried
        """
        if hold < stream.untouched(fresh):
            return False  # those bytes have left already
        small = stream.held_bytes + size <= self._settings.hold_bytes
        if small and self._packets < self._settings.hold_packets:
            return True
        self._counters.late_edit += 1
        return False

    def keep(self, stream: Stream, packet: Held) -> None:
        """Hold *packet* of *stream*."""
        stream.hold(packet)
        self._packets += 1
        self._streams[id(stream)] = stream
        self._wakeup = min(self._wakeup, packet.since + self._settings.hold)

    def let_go(self, stream: Stream, below: int | None = None) -> list[Held]:
        """What *stream* holds up to offset *below* (None: everything), no longer held."""
        freed = stream.let_go(below)
        self._packets -= len(freed)
        if not stream.held:
            self._streams.pop(id(stream), None)
        return freed

    def due(self, now: float) -> list[Stream]:
        """The streams that have held something for as long as they may."""
        if now < self._wakeup:
            return []
        until = {id(stream): stream.held[0].since + self._settings.hold for stream in self._streams.values()}
        self._wakeup = min((time for time in until.values() if time > now), default=inf)
        return [stream for stream in self.streams() if until[id(stream)] <= now]

    def overdue(self, stream: Stream) -> list[Held]:
        """What *stream* has held in vain and has to be dropped, no longer held; if nothing, all has to leave.

        It is dropped where a hole is known to follow: what fills that can only be sent again, and what is
        dropped comes again with it, or just ahead of it. But only once: then something has to leave first.
        """
        if stream.gap is None or stream.unsent is not None:
            self._counters.late_edit += 1
            return []
        stream.unsent = stream.held[0].fresh
        freed = self.let_go(stream)
        self._counters.gap_drops += len(freed)
        return freed

    def wakeup(self) -> float | None:
        """When to ask for the ones that are ``due``, at the latest; None: there is nothing to wait for."""
        return self._wakeup if self._streams else None
