"""Engine: packets in, verdicts out. ``process`` and ``tick`` are the whole of it.

No socket, no clock, no protocol: time comes as an argument, the kernel as a Kernel, the protocol as a
Helper. Nothing raised below leaves ``process``; every token handed in comes back with exactly one verdict,
at once or at the latest when its hold time is up. What a helper did not understand leaves as it came.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from nfreaim.core import records
from nfreaim.core.address import flow_id, reverse
from nfreaim.core.backend import Kernel, Pinholes, Watcher
from nfreaim.core.counters import Counters
from nfreaim.core.fastpath import FastPath
from nfreaim.core.flow import Flow
from nfreaim.core.flow_table import FlowTable
from nfreaim.core.guarded import GuardedKernel, GuardedWatcher
from nfreaim.core.helper import HelperFactory
from nfreaim.core.lost import LostFlows
from nfreaim.core.nat import FlowNat
from nfreaim.core.output import Holding, Output
from nfreaim.core.queue_sets import News, QueueSets
from nfreaim.core.resume import KeptFlows
from nfreaim.core.settings import EngineSettings
from nfreaim.core.tcp.half_open import HalfOpen
from nfreaim.core.tcp.segment import ACK, FIN, RST, SYN, Segment
from nfreaim.core.tcp.stream import FAR, Held, Stream
from nfreaim.core.verdict import ACCEPT, DROP, Verdict, Verdicts
from nfreaim.errors import BackendError, Foreign, Malformed

log = logging.getLogger(__name__)


class Engine:
    """Reads the flows, edits their streams, opens and closes pinholes on behalf of the helpers.

    helpers  by server port: only flows to these ports are read
    news     tells which servers others follow, see QueueSets
    """

    def __init__(
        self,
        helpers: Mapping[int, HelperFactory],
        pinholes: Pinholes,
        kernel: Kernel,
        watcher: Watcher,
        settings: EngineSettings | None = None,
        news: News | None = None,
    ) -> None:
        self.pinholes = pinholes
        self.kernel = GuardedKernel(kernel)
        self.watcher = GuardedWatcher(watcher)
        self.settings = settings or EngineSettings()
        self.counters = Counters()
        self.flows = FlowTable(self.settings.limits)
        self._holding = Holding(self.settings, self.counters)
        self._editing = Output(self.kernel, self.flows, self.counters)
        self._rendered = self._editing.rendered
        self._sets = QueueSets(helpers, self.kernel, self.settings.limits.flows, news)
        self.sessions = KeptFlows(self.kernel, self.flows, self._sets, self._nat_for)
        self._liveness = LostFlows(self.kernel, self.settings.grace)
        self._next_poll = 0.0
        self.passes = FastPath(self.flows.streams, self.sessions.moved, self.counters).passes

    def process(
        self, raw: bytes, token: Any, from_inside: bool, now: float, skewed: bool = False
    ) -> Verdicts:
        """Verdicts for the packet *raw*, known as *token*, and for those it sets free.

        from_inside  the packet comes from an inside host (else it is on its way to one)
        now          seconds of a clock that never goes back
        skewed       the kernel's set says that the packet's flow is skewed: it must not pass untranslated

        The packet's own verdict, if it has one yet, is the last of the list; without one its token must be
        kept until ``process``, ``tick`` or ``shutdown`` returns it.
        """
        if self.passes(raw, from_inside, now):
            return [(token, ACCEPT)]
        return self.consider(raw, token, from_inside, now, skewed)

    def consider(self, raw: bytes, token: Any, from_inside: bool, now: float, skewed: bool) -> Verdicts:
        """``process``, for a packet that does not pass at once (``passes``)."""
        counters = self.counters
        counters.packets += 1
        segment = Segment.parse(raw)
        if segment is None:
            counters.unparsed_packets += 1
            return [(token, ACCEPT)]
        stream = self.flows.streams.get(segment.key)
        if stream is None or segment.flags & SYN:
            return self._unknown(segment, token, from_inside, now, skewed)
        flow = stream.flow
        if stream.from_inside is not from_inside:  # it comes from the wrong side
            return [(token, ACCEPT)]
        flow.seen = now
        if flow.server_inside and segment.flags & (ACK | RST) == ACK:
            flow.streams[1 - stream.direction].answered(segment)
        if segment.start == len(raw) or segment.flags & RST:
            # What carries no data passes, also ahead of held bytes: its receiver may wait for nothing else.
            if flow.skewed or segment.flags & FIN or segment.seq != stream.expected:
                return self._bare(stream, segment, token, now)
            return [(token, ACCEPT)]
        if flow.helper is None and not (flow.resuming and flow.resuming.ready(stream, segment, now)):
            return [(token, self._unread(stream, segment, now))]
        if not stream.acknowledges(segment):  # its receiver will refuse it, too
            return [(token, self._rendered(stream, segment, stream.offset(segment.seq)))]
        if segment.seq == stream.expected:
            at = stream.next
        else:
            at = stream.offset(segment.seq)
            if at > stream.next:
                return self._gap(stream, segment, token, at, now)
            if at + len(raw) - segment.start <= stream.next:
                return self._again(stream, segment, token, at, now)
        verdicts = self._read(stream, segment, token, at, now)
        if segment.flags & FIN:
            self._finish(stream, segment, now)
        return verdicts

    def tick(self, now: float) -> Verdicts:
        """Verdicts for packets held long enough; expires the rest. Call it at ``wakeup`` and each second."""
        verdicts: Verdicts = []
        for stream in self._holding.due(now):
            verdicts += [(one.token, DROP) for one in self._holding.overdue(stream)] or self._release(stream)
        for flow in self.flows.half_read.surplus():
            self.counters.evicted_half_read += 1
            verdicts += self._bypass(flow)
        if now >= self._next_poll:
            self._next_poll = now + self.settings.poll
            for flow in self.flows.expire(now):
                verdicts += self._forget(flow, "control connection idle")
            self._sets.expire(now, self.flows)
            verdicts += self._poll_owners(now)
        self.pinholes.expire(now)
        return verdicts

    def wakeup(self) -> float | None:
        """When ``tick`` has to be called at the latest for the sake of a held packet; None: no hurry."""
        return self._holding.wakeup()

    def shutdown(self, reason: str) -> Verdicts:
        """Verdicts for everything still held; closes all pinholes for *reason*."""
        verdicts = [verdict for stream in self._holding.streams() for verdict in self._release(stream)]
        self.pinholes.close_all(reason)
        return verdicts

    def _read(self, stream: Stream, segment: Segment, token: Any, at: int, now: float) -> Verdicts:
        """Hand the new bytes of *segment*, which begins at offset *at*, to the helper; do as it answers."""
        flow, raw, fresh = stream.flow, segment.raw, stream.next
        end = at + len(raw) - segment.start
        stream.advance(end)
        helper, nat = flow.helper, flow.nat
        assert helper is not None
        assert nat is not None
        nat.begin_scan(fresh, now)
        hold = None
        verdicts: Verdicts = []
        try:
            scan = helper.scan(stream.direction, raw[segment.start + fresh - at :], fresh, nat)
            if scan is not None:
                if scan.edits:
                    self._editing.make(stream, scan.edits)
                hold = scan.hold
            if helper.established:
                self.sessions.moved[flow.key] = flow
            for server in nat.followed:
                self._sets.follow(server, flow.key, now)
        except Exception as error:
            nat.undo_scan("edit refused")
            verdicts = self._fail(flow, error)
        if hold is not None and hold < end and self._holding.may(stream, hold, fresh, end - at):
            verdicts += self._release(stream, below=hold)
            first = fresh if stream.held else stream.untouched(fresh)
            self._holding.keep(stream, Held(token, segment, at, first, now))
            self.counters.held_packets += 1
            return verdicts
        if stream.held:
            verdicts += self._release(stream)
        verdicts.append((token, self._rendered(stream, segment, at)))
        return verdicts

    def _release(self, stream: Stream, below: int | None = None) -> Verdicts:
        """Verdicts for what *stream* holds (up to offset *below*), in order, with the edits made so far."""
        freed = self._holding.let_go(stream, below)
        return [(held.token, self._rendered(stream, held.segment, held.at)) for held in freed]

    def _bare(self, stream: Stream, segment: Segment, token: Any, now: float) -> Verdicts:
        """A segment without data, or a reset, but for what is in its place in a flow that is not skewed."""
        flow, at = stream.flow, stream.offset(segment.seq)
        ended = flow.finished >> stream.direction & 1  # a FIN takes one position
        ahead = 0 < at - stream.next - ended <= FAR and flow.helper is not None
        if ahead and flow.server_inside and not segment.flags & RST:
            # What is missing may yet be edited, and this would stand at a wrong place: a FIN would end the
            # stream there, an ACK outdate later ones (RFC 9293, SND.WL1). Without ACKs two holes could block.
            if segment.flags & FIN:
                return self._gap(stream, segment, token, at, now)
            placed = stream.placed(segment, stream.next + ended).raw
            return [(token, ACCEPT if placed == segment.raw else Verdict(True, placed))]
        if segment.flags & RST and stream.map.removes(at):
            return [(token, DROP)]  # no sender stands there, and it would be taken for one behind the edit
        flow.reset |= bool(segment.flags & RST)
        if segment.flags & FIN:
            self._finish(stream, segment, now)
        return [(token, self._rendered(stream, segment, at))]

    def _unread(self, stream: Stream, segment: Segment, now: float) -> Verdict:
        """A segment of a bypassed flow: only edits that were made before are repeated."""
        # Progress still counts: offsets are relative to it, and 4 GiB on new bytes would pass for edited.
        at = stream.offset(segment.seq)
        end = at + len(segment.raw) - segment.start
        resuming = stream.flow.resuming
        if 0 < end - stream.next <= FAR and not (resuming and resuming.strange(stream, segment)):
            stream.advance(end)
        if segment.flags & FIN:
            self._finish(stream, segment, now)
        return self._rendered(stream, segment, at)

    def _again(self, stream: Stream, segment: Segment, token: Any, at: int, now: float) -> Verdicts:
        """A segment that carries nothing new: the same bytes as the first time, and never a second scan."""
        end = at + len(segment.raw) - segment.start
        first = stream.untouched(end)
        if end > first:  # not all of it has left
            if stream.held and end <= stream.held[-1].end:
                return [(token, DROP)]  # its twin is being held and will leave soon
            if not self._holding.may(stream, first, end, end - at):
                return [*self._release(stream), (token, self._rendered(stream, segment, at))]
            first = stream.held[-1].end if stream.held else first
            self._holding.keep(stream, Held(token, segment, at, first, now))
            return []
        if segment.flags & FIN:  # the data are old, but the FIN may be new
            self._finish(stream, segment, now)
        return [(token, self._rendered(stream, segment, at))]

    def _gap(self, stream: Stream, segment: Segment, token: Any, at: int, now: float) -> Verdicts:
        """A segment behind a hole: dropped, so that TCP brings the bytes in order; but not for long."""
        if stream.flow.midstream and not stream.next:
            # Nobody saw where this direction stood: what is missing has passed and will not come again.
            stream.rebase(segment.seq)
            return self._read(stream, segment, token, 0, now)
        if at - stream.next > FAR:
            return [(token, self._rendered(stream, segment, at))]
        flow = stream.flow
        if flow.resuming and flow.resuming.gives_way(flow, now):
            return [*self._let_go(flow), (token, self._unread(stream, segment, now))]
        if stream.gap is None:
            stream.gap = now
        if now - stream.gap > self.settings.gap:
            self.counters.gapped_flows += 1
            return [*self._bypass(stream.flow), (token, self._rendered(stream, segment, at))]
        self.counters.gap_drops += 1
        return [(token, DROP)]

    def _unknown(self, segment: Segment, token: Any, from_inside: bool, now: float, skewed: bool) -> Verdicts:
        """A segment of no known flow, or one with SYN. Flows begin when a server answers a client's SYN."""
        if segment.flags & SYN:
            return self._handshake(segment, token, from_inside, now, skewed)
        if skewed:
            # Its edits are lost with the state. Better a dead session than a corrupt one, or one that hangs.
            if not segment.flags & RST:
                self.counters.resets += 1
                self.kernel.reset(segment)
            return [(token, DROP)]
        key, sets, passed = segment.key, self._sets, [(token, ACCEPT)]
        forward = key if sets.helper_for(key) is not None else reverse(key)
        if segment.start == len(segment.raw) or segment.flags & RST or sets.helper_for(forward) is None:
            return passed
        if not self.settings.midstream or self.pinholes.leads_to(flow_id(forward).server):
            # If it is ahead of the SYN/ACK it will come again.
            if not self.flows.half_open.begins(forward, now):
                self.sessions.unknown()
                sets.offload(forward, self.flows)
            return passed
        ends = (segment.seq, segment.ack) if forward == key else (segment.ack, segment.seq)
        syn = HalfOpen(0, from_inside is (forward == key))
        verdicts = self._begin(forward, *ends, now, syn, midstream=True)
        return verdicts + self._read(self.flows.streams[key], segment, token, 0, now)

    def _handshake(
        self, segment: Segment, token: Any, from_inside: bool, now: float, skewed: bool
    ) -> Verdicts:
        """A segment with SYN: the beginning of a flow, if it carries no data.

        skewed  the kernel still has an earlier connection of these ends in its set
        """
        passed: Verdicts = [(token, ACCEPT)]
        answer = segment.flags & ACK
        forward = reverse(segment.key) if answer else segment.key
        read = skewed or self._sets.helper_for(forward)
        if segment.start < len(segment.raw) or not read or forward == reverse(forward):
            return passed
        if answer:
            syn = self.flows.half_open.answered(forward, segment.ack, from_inside)
            if syn is None:
                return passed
            verdicts = self._begin(forward, segment.ack, segment.seq + 1, now, syn, midstream=False)
            self.flows.streams[forward].flow.scaled(syn.scale, segment.scale)
            if skewed and not self.flows.streams[forward].flow.skewed:
                self.kernel.unprotect(forward)
            return verdicts + passed
        if self.pinholes.leads_to(flow_id(forward).server):
            return passed
        self._sets.reclaim(forward)
        known = (segment.seq, from_inside, segment.scale, now)
        self.counters.evicted_half_open += self.flows.half_open.announce(forward, *known)
        return passed

    def _begin(
        self, key: bytes, client: int, server: int, now: float, syn: HalfOpen, midstream: bool
    ) -> Verdicts:
        """Start the flow of *key*, whose streams begin at these sequence numbers; an old one ends."""
        verdicts: Verdicts = []
        old = self.flows.streams.get(key)
        if old is not None:
            bases = tuple(stream.base for stream in old.flow.streams)
            if bases == (client, server & 0xFFFFFFFF) and not old.flow.finished:
                return verdicts  # the same handshake, repeated
            self.flows.remove(old.flow)
            verdicts += self._forget(old.flow, "control connection replaced")
        factory = self._sets.helper_for(key)
        flow = Flow(key, client, server, factory(midstream) if factory else None, now)
        flow.midstream = midstream
        flow.seen_from(syn.from_inside)
        flow.nat = self._nat_for(flow)
        self._sets.used(key, now)
        self.counters.flows += 1
        for evicted in self.flows.add(flow, self.pinholes.owners):
            self.counters.evicted_flows += 1
            verdicts += self._forget(evicted, "too many control connections")
        return verdicts

    def _nat_for(self, flow: Flow) -> FlowNat:
        seams = (self.kernel, self.watcher, self.counters, self.flows.half_read)
        return FlowNat(flow, self.pinholes, *seams, self.settings.home_names)

    def _finish(self, stream: Stream, segment: Segment, now: float) -> None:
        """A FIN where the stream ends: the client or the server is done with this flow."""
        flow = stream.flow
        there = stream.offset(segment.seq) + len(segment.raw) - segment.start == stream.next
        if not there or (flow.helper is not None and not stream.acknowledges(segment)):
            return
        news = not flow.finished >> stream.direction & 1
        flow.finished |= 1 << stream.direction
        self.pinholes.close_owner(flow.owner, "control connection closed")
        if flow.finished == 3:
            flow.closed = now
        if flow.skewed and news:
            with suppress(BackendError):  # then the next daemon waits until connection tracking tells
                self.kernel.protect(flow.key, records.record(flow))

    def _forget(self, flow: Flow, reason: str) -> Verdicts:
        """The end of a flow that is no longer in the table."""
        self.pinholes.close_owner(flow.owner, reason)
        self.sessions.over(flow)
        if flow.skewed:
            self.kernel.unprotect(flow.key)
        return self._let_go(flow)

    def _bypass(self, flow: Flow) -> Verdicts:
        """Read *flow* no more. Its edits stay, its pinholes too: the peers have been told of them."""
        flow.helper = None
        self.sessions.over(flow)
        return self._let_go(flow)

    def _let_go(self, flow: Flow) -> Verdicts:
        return [verdict for stream in flow.streams for verdict in self._release(stream)]

    def _fail(self, flow: Flow, error: Exception) -> Verdicts:
        """A helper gave up: one flow is concerned, and it goes on untouched."""
        if isinstance(error, Foreign):
            self.counters.foreign_flows += 1
            log.debug("%s: not read: %s", flow.owner, error)
            if not any(stream.map.edits for stream in flow.streams):
                self._sets.offload(flow.key, self.flows)
        elif isinstance(error, Malformed):
            self.counters.malformed_flows += 1
            log.info("%s: no longer read: %s", flow.owner, error)
        else:
            self.counters.failed_flows += 1
            log.error("%s: no longer read: %s", flow.owner, type(error).__name__, exc_info=error)
        return self._bypass(flow)

    def _poll_owners(self, now: float) -> Verdicts:
        """End what belongs to control connections that are gone without a word (RST, time-out, NAT flush)."""
        verdicts: Verdicts = []
        owners = self.pinholes.tended() | self.flows.skewed.keys()
        for owner, ended in self._liveness.lost(owners, now):
            self.pinholes.close_owner(owner, "control connection lost")
            flow = self.flows.skewed.get(owner)
            if flow is None or flow.closed is not None:
                continue
            # Conntrack may have been flushed, and what nobody saw end must never be read untranslated.
            if ended or flow.reset or flow.finished or now - flow.seen >= self.settings.limits.idle:
                self.flows.remove(flow)
                verdicts += self._forget(flow, "control connection lost")
        return verdicts
