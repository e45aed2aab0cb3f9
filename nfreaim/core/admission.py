"""Admission: decides which packets begin a flow, and makes the flow."""

from __future__ import annotations

from nfreaim.core.address import flow_id, reverse
from nfreaim.core.flow import Flow, Reading, State
from nfreaim.core.flow_table import FlowTable
from nfreaim.core.nat import FlowNat, Router
from nfreaim.core.queue_sets import QueueSets
from nfreaim.core.resume import KeptFlows
from nfreaim.core.settings import EngineSettings
from nfreaim.core.tcp.half_open import HalfOpen
from nfreaim.core.tcp.segment import ACK, RST, Segment, wrap
from nfreaim.core.tcp.stream import Stream

Ended = tuple[Flow, str]
"""A flow that is no longer in the table, and why."""


class Admission:
    """Adds flows to *flows*. A flow begins when a server answers a client's SYN."""

    def __init__(
        self,
        sets: QueueSets,
        kept: KeptFlows,
        flows: FlowTable,
        router: Router,
        settings: EngineSettings,
    ) -> None:
        self._sets = sets
        self._kept = kept
        self._flows = flows
        self._router = router
        self._settings = settings

    def handshake(self, segment: Segment, from_inside: bool, now: float, skewed: bool) -> list[Ended]:
        """A segment with SYN: the beginning of a flow, if it carries no data. Returns the flows that ended.

        skewed  the kernel still has an earlier connection of these ends in its set
        """
        answer = segment.flags & ACK
        forward = reverse(segment.key) if answer else segment.key
        read = skewed or self._sets.protocol_of(forward)
        if segment.start < len(segment.raw) or not read or forward == reverse(forward):
            return []
        if answer:
            return self._answered(segment, forward, from_inside, now, skewed)
        if not self._router.pinholes.leads_to(flow_id(forward).server):
            self._sets.undo_offload(forward)
            syn = HalfOpen(segment.seq, from_inside, segment.scale)
            self._router.counters.evicted_half_open += self._flows.half_open.announce(forward, syn, now)
        return []

    def _answered(
        self, segment: Segment, forward: bytes, from_inside: bool, now: float, skewed: bool
    ) -> list[Ended]:
        """A SYN/ACK: if it answers a SYN that was seen, the flow of *forward* begins."""
        syn = self._flows.half_open.answered(forward, segment.ack, from_inside)
        if syn is None:
            return []
        ended = self._begin(forward, (segment.ack, wrap(segment.seq + 1)), now, syn, midstream=False)
        flow = self._flows.streams[forward].flow
        flow.scaled(syn.scale, segment.scale)
        if skewed and not flow.skewed:
            self._router.store.unprotect(forward)
        return ended

    def midstream(
        self, segment: Segment, from_inside: bool, now: float
    ) -> tuple[Stream[Flow] | None, list[Ended]]:
        """A segment without SYN of no known flow: the stream that it begins, and the flows that ended.

        Only the settings can allow that. Otherwise the flow leaves the queue: nothing of it will be read.
        """
        sets, key = self._sets, segment.key
        forward = key if sets.protocol_of(key) is not None else reverse(key)
        if not segment.size or segment.flags & RST or sets.protocol_of(forward) is None:
            return None, []
        if not self._settings.midstream or self._router.pinholes.leads_to(flow_id(forward).server):
            # If it is ahead of the SYN/ACK it will come again.
            if not self._flows.half_open.begins(forward, now):
                self._kept.unknown()
                sets.offload(forward, self._flows)
            return None, []
        bases = (segment.seq, segment.ack) if forward == key else (segment.ack, segment.seq)
        syn = HalfOpen(0, from_inside is (forward == key))
        ended = self._begin(forward, bases, now, syn, midstream=True)
        return self._flows.streams[key], ended

    def _begin(
        self, key: bytes, bases: tuple[int, int], now: float, syn: HalfOpen, midstream: bool
    ) -> list[Ended]:
        """Start the flow of *key*, whose streams begin at these sequence numbers; an old one ends."""
        ended: list[Ended] = []
        old = self._flows.streams.get(key)
        if old is not None:
            if tuple(stream.base for stream in old.flow.streams) == bases and not old.flow.life:
                return ended  # the same handshake, repeated
            self._flows.remove(old.flow)
            ended.append((old.flow, "control connection replaced"))
        flow = Flow(key, bases, syn.inside, now)
        flow.midstream = midstream
        flow.nat = FlowNat(flow, self._router)
        protocol = self._sets.protocol_of(key)
        if protocol is not None:
            protocol.given_to(flow)
            helper = protocol.make(midstream)
            flow.reading = Reading(helper, State.ESTABLISHED if helper.established else State.NEW)
        self._sets.used(flow, now)
        self._router.counters.flows += 1
        for evicted in self._flows.add(flow, self._router.pinholes.flows):
            self._router.counters.evicted_flows += 1
            ended.append((evicted, "too many control connections"))
        return ended
