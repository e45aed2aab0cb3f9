"""Engine: packets in, verdicts out.

Its entries: ``process`` for a packet (or ``passes`` and then ``process_slow``; for newcomers ``newcomer``,
and ``gather``), ``tick`` at ``wakeup`` and each second, ``shutdown``; ``restore`` and ``follow`` at the
start, ``save`` while ``unsaved``; ``stats``.

No socket, no clock, no protocol: time comes as an argument, the machine as a Backend, the protocol as a
Helper. Nothing raised below leaves ``process``. Every token handed in comes back with exactly one verdict, at
once or at the latest when its hold time is up. What a helper did not understand leaves as it came.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from nfreaim.core import records
from nfreaim.core.admission import Admission, Ended
from nfreaim.core.backend import Backend, Followed, Pinholes, Record, Watcher
from nfreaim.core.counters import Counters, EngineStats
from nfreaim.core.custodian import Custodian
from nfreaim.core.fastpath import FastPath
from nfreaim.core.flow import Event, Flow, State
from nfreaim.core.flow_table import FlowTable
from nfreaim.core.followed import Following, adopt_all
from nfreaim.core.giving_up import given_up
from nfreaim.core.guarded import GuardedWatcher, guarded
from nfreaim.core.helper import HelperSpec
from nfreaim.core.lost import LostFlows
from nfreaim.core.nat import Router
from nfreaim.core.queue_sets import QueueSets
from nfreaim.core.resume import KeptFlows, acknowledges_unseen
from nfreaim.core.settings import EngineSettings
from nfreaim.core.tcp.segment import ACK, FIN, RST, SYN, Segment
from nfreaim.core.tcp.stream import FAR, Held, Stream
from nfreaim.core.verdict import ACCEPT, DROP, Verdict, Verdicts
from nfreaim.errors import BackendError


class Engine:
    """Reads the flows, edits their streams, opens and closes pinholes on behalf of the helpers.

    helpers  by server port: flows to these ports are read, and those to servers that redirects name
    followed the servers that clients were redirected to; None: a table of its own
    """

    def __init__(
        self,
        helpers: Mapping[int, HelperSpec],
        pinholes: Pinholes,
        backend: Backend,
        watcher: Watcher,
        settings: EngineSettings | None = None,
        followed: Following | None = None,
    ) -> None:
        self.pinholes = pinholes
        self.settings = settings or EngineSettings()
        self.counters = Counters.of(helpers.values())
        self.flows = FlowTable(self.settings.limits)
        self._backend = backend = guarded(backend)
        self._sets = QueueSets(helpers, backend.queue, self.settings.limits.flows, followed)
        self._lost = LostFlows(backend.conntrack, self.settings.grace)
        self._router = router = Router(
            pinholes=pinholes,
            backend=backend,
            watcher=GuardedWatcher(watcher),
            counters=self.counters,
            half_read=self.flows.half_read,
            home_names=self.settings.home_names,
        )
        router.follow = self._sets.follow
        self._kept = KeptFlows(backend.store, self.flows, self._sets, router)
        self._custodian = held = Custodian(self.settings, self.counters, self.flows, self._kept, backend)
        self._holding, self._output = held.holding, held.output
        self._admission = Admission(self._sets, self._kept, self.flows, router, self.settings)
        self._next_poll = 0.0
        # An attribute and no method that delegates: that would take 4 % longer for each packet that passes.
        self.gather, self.demote = self._sets.gather, self._sets.demote
        self.passes = FastPath(self.flows.streams, self._kept.moved, self.counters).passes

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
        return self.process_slow(raw, token, from_inside, now, skewed)

    def process_slow(self, raw: bytes, token: Any, from_inside: bool, now: float, skewed: bool) -> Verdicts:
        """``process``, for a packet that does not pass at once (``passes``)."""
        self.counters.packets += 1
        segment = Segment.parse(raw)
        if segment is None:
            self.counters.unparsed_packets += 1
            return [(token, ACCEPT)]
        if segment.flags & SYN:
            self._admission.handshake(segment, from_inside, now, skewed, token)
            return [(token, ACCEPT)]
        stream = self.flows.streams.get(segment.key)
        if stream is not None and not self._admission.rivals:
            return self._live(stream, segment, token, from_inside, now)
        passes, ended = self._admission.awaited(segment, from_inside, now, token)
        verdicts = self._forget_all(ended, now)
        if passes:
            return [*verdicts, (token, ACCEPT)]
        if stream := self.flows.streams.get(segment.key):
            return verdicts + self._live(stream, segment, token, from_inside, now)
        return verdicts + self._unknown(segment, token, from_inside, now, skewed)

    def _live(self, stream: Stream[Flow], segment: Segment, token: Any, inside: bool, now: float) -> Verdicts:
        """A segment of a flow in the table; *inside*: it comes from there."""
        flow = stream.flow
        if stream.from_inside is not inside:  # it comes from the wrong side
            return [(token, ACCEPT)]
        flow.seen = now
        if flow.tracked:
            flow.reading.saw(stream, segment)
            if segment.flags & (ACK | RST) == ACK:
                stream.other.on_ack(segment)
                if flow.attended:
                    self._custodian.saw(stream, segment)
        if segment.start == len(segment.raw) or segment.flags & RST:
            # What carries no data passes, also ahead of held bytes: its receiver may wait for nothing else.
            if flow.attended or segment.flags & FIN or segment.seq != stream.expected:
                return self._bare(stream, segment, token, now)
            return [(token, ACCEPT)]
        if not flow.reading.reads and not flow.reading.ready(stream, segment, token, now):
            return [(token, self._unread(stream, segment, now))]
        return self._data(stream, segment, token, now)

    def newcomer(self, raw: bytes, token: Any, from_inside: bool, now: float, skewed: bool) -> Verdicts:
        """``process_slow``, for a packet that the kernel did not know as one of a flow in the table."""
        stream = self.flows.streams.get(raw[12:24])
        if stream is not None and len(raw) >= 40 and not raw[33] & SYN:
            self._sets.stray(stream.flow.key)
        return self.process_slow(raw, token, from_inside, now, skewed)

    def _data(self, stream: Stream[Flow], segment: Segment, token: Any, now: float) -> Verdicts:
        """A segment with data, of a flow that is read."""
        self._kept.doubt()
        # Nobody saw where the other end of a flow stood that was met midstream.
        if not stream.flow.midstream and not stream.acknowledges(segment):  # its receiver will refuse it, too
            if acknowledges_unseen(stream, segment) and self._kept.missed(stream, token, True, now):
                return self._missed(stream, segment, token, now)
            return [(token, self._output.rendered(stream, segment, stream.offset(segment.seq)))]
        if segment.seq == stream.expected:
            at = stream.next
        else:
            at = stream.offset(segment.seq)
            if at > stream.next:
                return self._gap(stream, segment, token, at, now)
            if at + segment.size <= stream.next:
                return self._again(stream, segment, token, at, now)
        pace = self._router.pace
        if pace.paused and pace.drops(stream.flow.key, stream.direction, now):
            self.counters.paced_drops += 1
            return [(token, DROP)]
        verdicts = self._read(stream, segment, token, at, now)
        if segment.flags & FIN:
            self._finish(stream, segment, now)
        return verdicts

    def tick(self, now: float) -> Verdicts:
        """Verdicts for packets held long enough; expires the rest. Call it at ``wakeup`` and each second."""
        verdicts = self._custodian.tick(now)
        for flow in self.flows.half_read.surplus():
            self.counters.evicted_half_read += 1
            verdicts += self._bypass(flow)
        if now >= self._next_poll:
            self._next_poll = now + self.settings.poll
            for flow in self.flows.expire(now):
                verdicts += self._forget(flow, "control connection idle", now)
            self._admission.expire(now)
            verdicts += self._poll_lost(now)
        self.pinholes.expire(now)
        return verdicts

    def wakeup(self) -> float | None:
        """When ``tick`` has to be called at the latest for the sake of held bytes; None: no hurry."""
        return self._custodian.wakeup()

    def shutdown(self, reason: str) -> Verdicts:
        """Verdicts for everything still held; closes all pinholes for *reason*."""
        verdicts = self._custodian.shutdown()
        self.pinholes.close_all(reason)
        return verdicts

    def restore(self, record: Record, now: float) -> None:
        """Go on with a flow of an earlier daemon. Raises ValueError, KeyError, TypeError if it is damaged."""
        self._custodian.adopt(self._kept.restore(record, now), now)

    def follow(self, found: Iterable[tuple[Followed, float]], now: float) -> None:
        """Go on with the servers that an earlier daemon followed, each for so many seconds more at most."""
        adopt_all(self._sets.followed, found, now)

    @property
    def unsaved(self) -> bool:
        """Whether the position of any flow is to be written by ``save``."""
        return bool(self._kept.moved)

    def save(self, effort: int = sys.maxsize) -> None:
        """Write where the flows stand that have advanced; see KeptFlows.save."""
        self._kept.save(effort)

    def stats(self) -> EngineStats:
        """Flows, those that were edited, what is told of the newest, and counters."""
        return self.flows.stats(self.counters.as_dict())

    def _read(self, stream: Stream[Flow], segment: Segment, token: Any, at: int, now: float) -> Verdicts:
        """Hand the new bytes of *segment*, which begins at offset *at*, to the helper; do as it answers."""
        flow, new_from, end = stream.flow, stream.next, at + segment.size
        stream.advance(end)
        if self._router.senders.reads(stream, token):
            self._kept.changed(flow)
        verdicts: Verdicts = []
        hold = None
        try:
            hold = self._scan(stream, segment.raw[segment.start + new_from - at :], new_from, now)
        except Exception as error:
            self._router.undo_scan(flow, "edit refused")
            verdicts = self._fail(flow, error)
        if hold is not None and hold < end and self._holding.may(stream, hold, new_from, end - at):
            first = new_from if stream.held else stream.first_editable(new_from)
            self._custodian.scanned(stream, hold, now)
            verdicts += self._custodian.release(stream, below=hold)
            self._holding.keep(stream, Held(token, segment, at, first, now), hold)
            self.counters.held_packets += 1
            return verdicts
        self._custodian.scanned(stream, None, now)
        if stream.held:
            verdicts += self._custodian.release(stream)
        verdicts.append((token, self._output.rendered(stream, segment, at)))
        return verdicts

    def _scan(self, stream: Stream[Flow], data: bytes, new_from: int, now: float) -> int | None:
        """Let the helper read *data*, and make its edits. Returns from which offset on to hold, or None."""
        flow, router = stream.flow, self._router
        reading = flow.reading
        scan = router.scan(stream, data, new_from, now)
        if scan is not None and scan.edits and not self._output.apply(stream, scan.edits, new_from, now):
            router.undo_scan(flow, "edit refused")
        if reading.helper.established:
            if reading.state is State.NEW:
                reading.on(Event.RECOGNISED)
            self._kept.moved[flow.key] = flow
        return None if scan is None else scan.hold

    def _bare(self, stream: Stream[Flow], segment: Segment, token: Any, now: float) -> Verdicts:
        """A segment without data, or a reset, but for what is in its place in a flow that is not skewed."""
        flow, at = stream.flow, stream.offset(segment.seq)
        ended = flow.life >> stream.direction & 1  # a FIN takes one position
        ahead = 0 < at - stream.next - ended <= FAR and flow.reading.reads
        if ahead and flow.resizable and not segment.flags & RST:
            # The missing bytes may still be edited, so this segment's translated position is unknown. A FIN
            # there would end the stream early: hold it back as a gap. A bare ACK is moved to the next
            # expected byte: dropped, two streams with gaps would dead-lock; left there, the receiver would
            # ignore later window updates (RFC 9293, SND.WL1).
            if segment.flags & FIN:
                return self._gap(stream, segment, token, at, now)
            moved = stream.moved_to(segment, stream.next + ended).raw
            return [(token, ACCEPT if moved == segment.raw else Verdict(True, moved))]
        if segment.flags & RST and stream.map.removes(at):
            return [(token, DROP)]  # no sender stands there, and it would be taken for one behind the edit
        if segment.flags & RST:
            self._admission.reset(stream, segment, token, now)
            self._custodian.was_reset(stream, segment)
        if segment.flags & FIN:
            self._custodian.closes(stream)
            self._finish(stream, segment, now)
            if not flow.reading.reads:
                flow.reading.passed(stream, segment, at)
        return [(token, self._output.rendered(stream, segment, at))]

    def _unread(self, stream: Stream[Flow], segment: Segment, now: float) -> Verdict:
        """A segment of a flow that is not read: only edits that were made before are repeated."""
        at = stream.offset(segment.seq)
        stream.flow.reading.passed(stream, segment, at + segment.size)
        if segment.flags & FIN:
            self._finish(stream, segment, now)
        return self._output.rendered(stream, segment, at)

    def _again(self, stream: Stream[Flow], segment: Segment, token: Any, at: int, now: float) -> Verdicts:
        """A segment that carries nothing new: the same bytes as the first time, and never a second scan."""
        end = at + segment.size
        first = stream.first_editable(end)
        if end > first:  # not all of it has left
            if stream.custody is not None and end <= stream.custody.end:
                return [(token, self._output.rendered(stream, segment, at))]  # asks its receiver once more
            if stream.held and end <= stream.held[-1].end:
                return [(token, DROP)]  # its twin is held and will leave soon
            if not self._holding.may(stream, first, end, end - at):
                return [*self._custodian.release(stream), (token, self._output.rendered(stream, segment, at))]
            first = stream.held[-1].end if stream.held else first
            hold = self._holding.held_from(stream) if stream.held else first
            self._holding.keep(stream, Held(token, segment, at, first, now), hold)
            return []
        if segment.flags & FIN:  # the data are old, but the FIN may be new
            self._finish(stream, segment, now)
        return [(token, self._output.rendered(stream, segment, at))]

    def _gap(self, stream: Stream[Flow], segment: Segment, token: Any, at: int, now: float) -> Verdicts:
        """A segment behind a gap: dropped, so that TCP brings the bytes in order; but not for long."""
        flow = stream.flow
        if flow.midstream and not stream.next:
            # Where this direction stood was not seen: what is missing has passed and will not come again.
            stream.rebase(segment.seq)
            return self._read(stream, segment, token, 0, now)
        if at - stream.next > FAR:
            return [(token, self._output.rendered(stream, segment, at))]
        gap = stream.met_gap(at, now)
        if self._kept.missed(stream, token, gap.arrived, now) or gap.in_vain(now, self.settings.gap):
            return self._missed(stream, segment, token, now)
        self.counters.gap_drops += 1
        return [(token, DROP)]

    def _missed(self, stream: Stream[Flow], segment: Segment, token: Any, now: float) -> Verdicts:
        """A segment that shows that bytes passed unseen: the flow is read from a boundary on, or no more."""
        flow, freed = stream.flow, self._custodian.let_go(stream.flow)
        if flow.reading.state is not State.RESYNCING:
            self.counters.gapped_flows += 1
            freed += self._bypass(flow)
        return [*freed, (token, self._unread(stream, segment, now))]

    def _unknown(self, segment: Segment, token: Any, from_inside: bool, now: float, skewed: bool) -> Verdicts:
        """A segment without SYN of no known flow."""
        if skewed:
            # Its edits are lost with the state. Better a dead session than a corrupt one, or one that hangs.
            if not segment.flags & RST:
                self.counters.resets += 1
                self._backend.reset(segment)
            return [(token, DROP)]
        stream, ended = self._admission.midstream(segment, from_inside, now)
        verdicts = self._forget_all(ended, now)
        if stream is None:
            return [*verdicts, (token, ACCEPT)]
        return verdicts + self._read(stream, segment, token, 0, now)

    def _forget_all(self, ended: list[Ended], now: float) -> Verdicts:
        return [verdict for flow, reason in ended for verdict in self._forget(flow, reason, now)]

    def _finish(self, stream: Stream[Flow], segment: Segment, now: float) -> None:
        """A FIN where the stream ends: the client or the server is done with this flow."""
        flow = stream.flow
        there = stream.offset(segment.seq) + segment.size == stream.next
        believed = flow.midstream or not flow.reading.reads or stream.acknowledges(segment)
        if not there or not believed:
            return
        new = flow.end(stream.direction, now)
        self.pinholes.close_flow(flow.id, "control connection closed", now)
        if flow.skewed and new:
            with suppress(BackendError):  # then the next daemon waits until connection tracking tells
                self._backend.store.protect(flow.key, records.record(flow))

    def _forget(self, flow: Flow, reason: str, now: float) -> Verdicts:
        """The end of a flow that is no longer in the table."""
        self.pinholes.close_flow(flow.id, reason, now)
        self._kept.over(flow)
        if flow.key not in self.flows.streams:  # else another flow of the same ends has replaced it
            self._sets.forget(flow.key)
        if flow.skewed:
            self._backend.store.unprotect(flow.key)
        return self._custodian.forget(flow)

    def _bypass(self, flow: Flow, event: Event = Event.GIVEN_UP) -> Verdicts:
        """Read *flow* no more. Its edits stay, its pinholes too: the peers have been told of them."""
        flow.stop_reading(event)
        self._kept.over(flow)
        return self._custodian.let_go(flow)

    def _fail(self, flow: Flow, error: Exception) -> Verdicts:
        """A helper gave up: one flow is concerned, and it goes on untouched."""
        event = given_up(flow, error, self.counters)
        if event is Event.NOT_OURS and not any(each.map.edits or each.custody for each in flow.streams):
            self._sets.offload(flow.key, self.flows)
        return self._bypass(flow, event)

    def _poll_lost(self, now: float) -> Verdicts:
        """End what belongs to control connections that are gone without a word (RST, time-out, NAT flush)."""
        verdicts: Verdicts = []
        candidates = self.pinholes.tended() | self.flows.skewed.keys()
        for lost, ended in self._lost.lost(candidates, now):
            self.pinholes.close_flow(lost, "control connection lost", now)
            flow = self.flows.skewed.get(lost)
            if flow is None or flow.closed is not None:
                continue
            # Conntrack may have been flushed, and a flow whose end was not seen must never pass untranslated.
            if ended or flow.reset or flow.life or now - flow.seen >= self.settings.limits.idle:
                self.flows.remove(flow)
                verdicts += self._forget(flow, "control connection lost", now)
        return verdicts
