"""Engine: packets in, verdicts out. ``process`` and ``tick`` are the whole of it.

No socket, no clock, no protocol: time comes as an argument, the kernel as a Kernel, the protocol as a
Helper. Nothing raised below leaves ``process``; every token handed in comes back with exactly one verdict,
at once or at the latest when its hold time is up. What a helper did not understand leaves as it came.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from nfreaim.core.counters import Counters
from nfreaim.core.flow import Direction, Flow, FlowLimits, FlowTable, Owner, owner_of, reverse
from nfreaim.core.helper import HelperFactory
from nfreaim.core.nat import FlowNat, Kernel, Watcher
from nfreaim.core.packet import ACK, FIN, RST, SYN, Segment
from nfreaim.core.pinhole import PinholeTable
from nfreaim.core.stream import Held, Stream
from nfreaim.core.verdict import ACCEPT, DROP, Verdict, Verdicts
from nfreaim.errors import BackendError, Foreign, Malformed

log = logging.getLogger(__name__)

# A sequence number farther from the stream than any window is no packet of it: it is none of our business.
_FAR: Final = 1 << 22
# So many control connections are looked up in one poll: a look-up costs up to a millisecond.
_POLL_BATCH: Final = 32
_REPLY: Final = Direction.REPLY


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """The engine's bounds. Times in seconds.

    hold, hold_bytes   how long a packet is kept back, and how many payload bytes in one stream
    hold_packets       how many packets in all streams together
    gap, gap_packets   a hole in a stream that is read: given up after this time, or so many packets behind it
    poll               how often the control connections of pinholes are looked up
    midstream          read flows whose beginning was not seen, too
    """

    hold: float = 0.030
    hold_bytes: int = 8192
    hold_packets: int = 4096
    gap: float = 10.0
    gap_packets: int = 256
    poll: float = 2.0
    midstream: bool = False
    limits: FlowLimits = field(default_factory=FlowLimits)


class Engine:
    """Reads the flows, edits their streams, opens and closes pinholes on behalf of the helpers.

    helpers  by server port: only flows to these ports are read
    """

    def __init__(
        self,
        helpers: Mapping[int, HelperFactory],
        pinholes: PinholeTable,
        kernel: Kernel,
        watcher: Watcher,
        settings: EngineSettings | None = None,
    ) -> None:
        self.helpers = helpers
        self.pinholes = pinholes
        self.kernel = kernel
        self.watcher = watcher
        self.settings = settings or EngineSettings()
        self.counters = Counters()
        self.flows = FlowTable(self.settings.limits)
        self._holding: dict[int, Stream] = {}
        self._offloaded: dict[bytes, None] = {}
        self._warned = False
        self._next_poll = 0.0
        self._to_poll: list[Owner] = []

    def process(self, raw: bytes, token: Any, from_inside: bool, now: float) -> Verdicts:
        """Verdicts for the packet *raw*, known as *token*, and for those it sets free.

        from_inside  the packet comes from an inside host (else it is on its way to one)
        now          seconds of a clock that never goes back

        The packet's own verdict, if it has one yet, is the last of the list; without one its token must be
        kept until ``process``, ``tick`` or ``shutdown`` returns it.
        """
        counters = self.counters
        counters.packets += 1
        segment = Segment.parse(raw)
        if segment is None:
            counters.unparsed_packets += 1
            return [(token, ACCEPT)]
        stream = self.flows.streams.get(segment.key)
        if stream is None or segment.flags & SYN:
            return self._unknown(segment, token, from_inside, now)
        if (stream.direction is _REPLY) is from_inside:  # it comes from the wrong side
            return [(token, ACCEPT)]
        flow = stream.flow
        flow.seen = now
        if segment.start == len(raw) or segment.flags & RST:
            # What carries no data passes, also ahead of held bytes: its receiver may wait for nothing else.
            if segment.flags & FIN:
                self._finish(stream, segment, now)
            return [(token, ACCEPT)]
        if flow.helper is None:
            return [(token, self._unread(stream, segment, now))]
        if segment.seq == stream.expected:
            at = stream.next
        else:
            at = stream.offset(segment.seq)
            if at > stream.next:
                return self._gap(stream, segment, token, at, now)
            if at + len(raw) - segment.start <= stream.next:
                return [(token, self._again(stream, segment, at))]
        verdicts = self._read(stream, segment, token, at, now)
        if segment.flags & FIN:
            self._finish(stream, segment, now)
        return verdicts

    def tick(self, now: float) -> Verdicts:
        """Verdicts for packets whose hold time is up; also expires what is due.

        Call it at ``wakeup`` and at least every second.
        """
        verdicts: Verdicts = []
        for stream in list(self._holding.values()):
            if stream.held[0].since + self.settings.hold <= now:
                self.counters.late_edit += 1
                verdicts += self._release(stream)
        if now >= self._next_poll:
            self._next_poll = now + self.settings.poll
            for flow in self.flows.expire(now):
                verdicts += self._forget(flow, "control connection idle")
            self._poll_owners()
        self.pinholes.expire(now)
        return verdicts

    def wakeup(self) -> float | None:
        """When ``tick`` has to be called at the latest for the sake of a held packet; None: no hurry."""
        if not self._holding:
            return None
        return min(stream.held[0].since for stream in self._holding.values()) + self.settings.hold

    def shutdown(self, reason: str) -> Verdicts:
        """Verdicts for everything still held; closes all pinholes for *reason*."""
        verdicts = [verdict for stream in list(self._holding.values()) for verdict in self._release(stream)]
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
                    if not nat.editable(stream.direction, scan.edits[0].start):
                        raise ValueError(f"edit at {scan.edits[0].start} over bytes that have left")
                    stream.map.add(scan.edits)
                hold = scan.hold
        except Exception as error:
            nat.undo_scan("edit refused")
            verdicts = self._fail(flow, error)
        if hold is not None and hold < end and self._may_hold(stream, hold, fresh, end - at):
            verdicts += self._release(stream, below=hold)
            stream.hold(Held(token, segment, at, fresh, now))
            self._holding[id(stream)] = stream
            self.counters.held_packets += 1
            return verdicts
        if stream.held:
            verdicts += self._release(stream)
        verdicts.append((token, self._rendered(stream, segment, at)))
        return verdicts

    def _may_hold(self, stream: Stream, hold: int, fresh: int, size: int) -> bool:
        """Whether keeping the packet back can still serve an edit, and there is room for it."""
        if hold < (stream.held[0].fresh if stream.held else fresh):
            return False  # those bytes have left already
        settings = self.settings
        room = stream.held_bytes + size <= settings.hold_bytes
        if room and sum(len(other.held) for other in self._holding.values()) < settings.hold_packets:
            return True
        self.counters.late_edit += 1
        return False

    def _release(self, stream: Stream, below: int | None = None) -> Verdicts:
        """Verdicts for what *stream* holds (up to offset *below*), in order, with the edits made so far."""
        verdicts: Verdicts = [
            (held.token, self._rendered(stream, held.segment, held.at)) for held in stream.let_go(below)
        ]
        if not stream.held:
            self._holding.pop(id(stream), None)
        return verdicts

    def _rendered(self, stream: Stream, segment: Segment, at: int) -> Verdict:
        if not stream.map.edits:
            return ACCEPT
        rendered = stream.map.render(segment, at)
        if rendered is segment:
            return ACCEPT
        self.counters.changed_packets += 1
        return Verdict(True, rendered.raw)

    def _unread(self, stream: Stream, segment: Segment, now: float) -> Verdict:
        """A segment of a bypassed flow: only edits that were made before are repeated."""
        # Progress still counts: offsets are relative to it, and 4 GiB on new bytes would pass for edited.
        at = stream.offset(segment.seq)
        end = at + len(segment.raw) - segment.start
        if 0 < end - stream.next <= _FAR:
            stream.advance(end)
        if segment.flags & FIN:
            self._finish(stream, segment, now)
        return self._rendered(stream, segment, at)

    def _again(self, stream: Stream, segment: Segment, at: int) -> Verdict:
        """A segment that carries nothing new: the same bytes as the first time, and never a second scan."""
        if stream.held and at + len(segment.raw) - segment.start > stream.held[0].fresh:
            return DROP  # its twin is being held and will leave soon
        return self._rendered(stream, segment, at)

    def _gap(self, stream: Stream, segment: Segment, token: Any, at: int, now: float) -> Verdicts:
        """A segment behind a hole: dropped, so that TCP brings the bytes in order; but not for long."""
        if stream.flow.midstream and not stream.next:
            # Nobody saw where this direction stood: what is missing has passed and will not come again.
            stream.rebase(segment.seq)
            return self._read(stream, segment, token, 0, now)
        if at - stream.next > _FAR:
            return [(token, ACCEPT)]
        if stream.gap is None:
            stream.gap = now
        stream.gaps += 1
        if stream.gaps > self.settings.gap_packets or now - stream.gap > self.settings.gap:
            self.counters.gapped_flows += 1
            return [*self._bypass(stream.flow), (token, self._rendered(stream, segment, at))]
        self.counters.gap_drops += 1
        return [(token, DROP)]

    def _unknown(self, segment: Segment, token: Any, from_inside: bool, now: float) -> Verdicts:
        """A segment of no known flow, or one with SYN. Flows begin when a server answers a client's SYN."""
        key, payload = segment.key, segment.start < len(segment.raw)
        passed: Verdicts = [(token, ACCEPT)]
        forward = key if from_inside else reverse(key)
        if int.from_bytes(forward[10:12], "big") not in self.helpers:
            return passed
        if not segment.flags & SYN:
            if not payload or segment.flags & RST:
                return passed
            if not self.settings.midstream:
                self._offload(forward)
                return passed
            ends = (segment.seq, segment.ack) if from_inside else (segment.ack, segment.seq)
            verdicts = self._begin(forward, *ends, now, midstream=True)
            return verdicts + self._read(self.flows.streams[key], segment, token, 0, now)
        if not segment.flags & ACK:
            if from_inside and not payload:
                self._reclaim(forward)
                self.flows.announce(forward, segment.seq)
            return passed
        if not from_inside and not payload and self.flows.answered(forward, segment.ack):
            return self._begin(forward, segment.ack, segment.seq + 1, now, midstream=False) + passed
        return passed

    def _begin(self, key: bytes, client: int, server: int, now: float, midstream: bool) -> Verdicts:
        """Start the flow of *key*, whose streams begin at these sequence numbers; an old one ends."""
        verdicts: Verdicts = []
        old = self.flows.streams.get(key)
        if old is not None:
            bases = tuple(stream.base for stream in old.flow.streams)
            if bases == (client, server & 0xFFFFFFFF) and not old.flow.finished:
                return verdicts  # the same handshake, repeated
            self.flows.remove(old.flow)
            verdicts += self._forget(old.flow, "control connection replaced")
        helper = self.helpers[int.from_bytes(key[10:12], "big")](midstream)
        flow = Flow(key, client, server, helper, now)
        flow.midstream = midstream
        flow.nat = FlowNat(flow, self.pinholes, self.kernel, self.watcher, self.counters)
        self.counters.flows += 1
        for evicted in self.flows.add(flow):
            self.counters.evicted_flows += 1
            verdicts += self._forget(evicted, "too many control connections")
        return verdicts

    def _finish(self, stream: Stream, segment: Segment, now: float) -> None:
        """A FIN where the stream ends: the client or the server is done with this flow."""
        flow = stream.flow
        if stream.offset(segment.seq) + len(segment.raw) - segment.start != stream.next:
            return
        flow.finished |= 1 << stream.direction
        self.pinholes.close_owner(flow.owner, "control connection closed")
        if flow.finished == 3:
            flow.closed = now

    def _forget(self, flow: Flow, reason: str) -> Verdicts:
        """The end of a flow that is no longer in the table."""
        self.pinholes.close_owner(flow.owner, reason)
        return [verdict for stream in flow.streams for verdict in self._release(stream)]

    def _bypass(self, flow: Flow) -> Verdicts:
        """Read *flow* no more. Its edits stay, its pinholes too: the peers have been told of them."""
        flow.helper = None
        return [verdict for stream in flow.streams for verdict in self._release(stream)]

    def _fail(self, flow: Flow, error: Exception) -> Verdicts:
        """A helper gave up: one flow is concerned, and it goes on untouched."""
        if isinstance(error, Foreign):
            self.counters.foreign_flows += 1
            log.debug("%s: not read: %s", flow.owner, error)
            if not any(stream.map.edits for stream in flow.streams):
                self._offload(flow.key)
        elif isinstance(error, Malformed):
            self.counters.malformed_flows += 1
            log.info("%s: no longer read: %s", flow.owner, error)
        else:
            self.counters.failed_flows += 1
            log.error("%s: no longer read: %r", flow.owner, error, exc_info=error)
        return self._bypass(flow)

    def _offload(self, key: bytes) -> None:
        """Let the flow skip the queue from now on. A refusal costs speed, nothing else."""
        self._offloaded[key] = None
        if len(self._offloaded) > self.settings.limits.flows:
            del self._offloaded[next(iter(self._offloaded))]
        try:
            self.kernel.offload(owner_of(key))
        except BackendError as error:
            # Once: the next packet of this flow, and of every other such flow, will fail just the same.
            log.log(logging.DEBUG if self._warned else logging.WARNING, "stays in the queue: %s", error)
            self._warned = True

    def _reclaim(self, key: bytes) -> None:
        """A new connection has the endpoints of one that was let out of the queue: have it back."""
        if key in self._offloaded:
            del self._offloaded[key]
            try:
                self.kernel.reclaim(owner_of(key))
            except BackendError as error:
                log.warning("%s does not come back to the queue: %s", owner_of(key), error)

    def _poll_owners(self) -> None:
        """End the pinholes whose control connection is gone without a word (RST, time-out, NAT flush)."""
        if not self._to_poll:
            self._to_poll = sorted(self.pinholes.owners())
        batch, self._to_poll = self._to_poll[:_POLL_BATCH], self._to_poll[_POLL_BATCH:]
        for owner in batch:
            try:
                if not self.kernel.alive(owner):
                    self.pinholes.close_owner(owner, "control connection lost")
            except BackendError as error:
                log.warning("cannot look up %s: %s", owner, error)
                return
