"""Editing: a helper's edits enter their stream here, or are refused; and every segment leaves with them."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from nfreaim.core import records
from nfreaim.core.counters import Counters
from nfreaim.core.flow import FlowTable
from nfreaim.core.nat import Kernel
from nfreaim.core.offsets import Edit
from nfreaim.core.packet import Segment
from nfreaim.core.stream import Stream
from nfreaim.core.verdict import ACCEPT, DROP, Verdict
from nfreaim.errors import BackendError

log = logging.getLogger(__name__)


class Editing:
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
