"""Custodian: takes held bytes into custody, so that a sender that waits for their acknowledgement goes on.

A packet that is held for ``patience`` without the rest of its message belongs to a sender that waits, most
likely. Its bytes are kept here then, and the packet leaves without them, which makes the receiver acknowledge
what it has. That acknowledgement becomes one of the kept bytes as well (Stream.relieved), after a record of
them is on disk: from there on the flow fails closed, until the receiver has them. The sender goes on, and
what it sends next carries them along, with the edits. So nothing has to be repeated by us, but for the bytes
whose message has not gone on for ``hold``: these leave as they came, in packets of our own, until they are
acknowledged.
"""

from __future__ import annotations

from collections import Counter
from math import inf
from typing import Final

from nfreaim.core import records
from nfreaim.core.backend import Backend
from nfreaim.core.counters import Counters
from nfreaim.core.firewall.policy import RateLimit
from nfreaim.core.flow import Flow
from nfreaim.core.flow_table import FlowTable
from nfreaim.core.output import Holding, Output
from nfreaim.core.resume import KeptFlows
from nfreaim.core.settings import EngineSettings
from nfreaim.core.tcp.custody import MOST, Custody
from nfreaim.core.tcp.segment import FIN, Segment
from nfreaim.core.tcp.stream import FAR, Held, Stream
from nfreaim.core.verdict import DROP, Verdicts
from nfreaim.errors import BackendError

_STREAMS: Final = 64
_PER_CLIENT: Final = 8
_PERIOD_S: Final = 1.0  # in which a client gets as many
_AGAIN_S: Final = 0.1  # between two looks whether held bytes can be taken by now
_FIRST_S: Final = 0.5
_LAST_S: Final = 30.0
_TRIES: Final = 12  # own packets for one stream, over some three minutes


class _Care:
    """When something is to be done about a stream in custody. *pause*: until the own packet after that."""

    __slots__ = ("due", "pause", "stream", "tries")

    def __init__(self, stream: Stream[Flow], due: float) -> None:
        self.stream = stream
        self.due = due
        self.pause = _FIRST_S
        self.tries = 0


class Custodian:
    """Of one engine. At most 64 streams are in custody, 8 of one client, which gets 8 in a second.

    holding  the packets that are held
    output   makes the edits
    """

    def __init__(
        self,
        settings: EngineSettings,
        counters: Counters,
        flows: FlowTable,
        kept: KeptFlows,
        backend: Backend,
    ) -> None:
        self.holding = Holding(settings, counters)
        self.output = Output(backend.store, flows, counters)
        self._settings, self._counters = settings, counters
        self._flows, self._kept = flows, kept
        self._store, self._send = backend.store, backend.send
        self._cares: dict[int, _Care] = {}
        self._clients: Counter[bytes] = Counter()
        self._rate = RateLimit(_PER_CLIENT, _PERIOD_S)
        self._wakeup = inf

    # --- held packets ---

    def release(self, stream: Stream[Flow], below: int | None = None) -> Verdicts:
        """Verdicts for what *stream* holds (up to offset *below*), in order, with the edits made so far."""
        freed = self.holding.release(stream, below)
        return [(held.token, self.output.rendered(stream, held.segment, held.at)) for held in freed]

    def let_go(self, flow: Flow) -> Verdicts:
        """The same for all that *flow* holds; and nothing of it is withheld any more."""
        for stream in flow.streams:
            self._lift(stream)
        return [verdict for stream in flow.streams for verdict in self.release(stream)]

    def shutdown(self) -> Verdicts:
        """The same for all flows."""
        for care in list(self._cares.values()):
            self._lift(care.stream)
        return [verdict for stream in self.holding.streams() for verdict in self.release(stream)]

    def scanned(self, stream: Stream[Flow], hold: int | None, now: float) -> None:
        """The helper has read on, and wants to see more before bytes from *hold* on leave (None: no)."""
        custody = stream.custody
        if custody is None or custody.withheld is None or hold == custody.withheld:
            return
        custody.withheld = hold
        custody.since = now  # if there is another message that is held
        self._plan(stream, custody)

    def tick(self, now: float) -> Verdicts:
        """Verdicts for what was held long enough. Call it at ``wakeup``."""
        verdicts: Verdicts = []
        for stream in self.holding.due(now):
            if now < stream.held[0].since + self._settings.hold:
                verdicts += self._take(stream, now)
            else:
                self.closes(stream)
                dropped = [(one.token, DROP) for one in self.holding.overdue(stream)]
                verdicts += dropped or self.release(stream)
        if now >= self._wakeup:
            for care in [care for care in self._cares.values() if care.due <= now]:
                verdicts += self._tend(care, now)
            self._reckon()
        return verdicts

    def wakeup(self) -> float | None:
        """When ``tick`` has to be called at the latest; None: no hurry."""
        held = self.holding.wakeup()
        if held is None:
            return self._wakeup if self._cares else None
        return min(held, self._wakeup)

    # --- bytes in custody ---

    def _take(self, stream: Stream[Flow], now: float) -> Verdicts:
        """Take what *stream* holds into custody, if that is possible; if not, it stays held."""
        held = self.holding.held_from(stream)
        custody = stream.custody
        if not self._may_take(stream, held, now):
            self.holding.look_again(stream, now + _AGAIN_S)
            return []
        first, *others = self.holding.release(stream)
        if custody is None:
            custody = stream.custody = Custody(held, first.segment, first.since)
            self._cares[id(stream)] = _Care(stream, inf)
            self._clients[_client(stream)] += 1
            self._rate.take(_client(stream).hex(), now)
            self._counters.custodies += 1
            stream.flow.attend()
        if custody.withheld is None:
            custody.withheld, custody.since = held, first.since
        for one in (first, *others):
            custody.add(one.at, one.segment.raw[one.segment.start :])
            custody.head = one.segment
        self._plan(stream, custody)
        # One packet leaves: the receiver's answer to it is what the sender waits for.
        left = self.output.rendered(stream, first.segment, first.at)
        return [(first.token, left), *((one.token, DROP) for one in others)]

    def _may_take(self, stream: Stream[Flow], held: int, now: float) -> bool:
        flow, custody, packets = stream.flow, stream.custody, stream.held
        begin = held if custody is None else custody.start
        if stream.scale is None or flow.midstream or not flow.reading.reads:
            return False
        if packets[-1].end - begin > MOST or any(one.segment.flags & FIN for one in packets):
            return False
        if not _joined(packets, held if custody is None else custody.end):
            return False
        if custody is not None:
            return True
        client = _client(stream)
        room = len(self._cares) < _STREAMS and self._clients[client] < _PER_CLIENT
        return room and self._rate.allows(client.hex(), now) and self._flows.may_fail_closed(flow)

    def saw(self, stream: Stream[Flow], segment: Segment) -> None:
        """*segment* of *stream* passes by, and acknowledges what its sender has of the other stream."""
        mine = stream.custody
        if mine is not None and segment.seq == stream.expected and stream.acknowledges(segment):
            mine.head = segment
        other = stream.other
        custody = other.custody
        if custody is None:
            return
        acked = other.map.back(other.edited_offset(segment.ack))
        if acked > other.next or abs(stream.offset(segment.seq) - stream.next) > FAR:
            return
        limit = custody.end if custody.withheld is None else custody.withheld
        custody.arrived(min(acked, limit))
        if not custody.data:
            self._end(other)
        elif custody.withheld is not None and acked >= limit and custody.told < custody.end:
            room = (segment.window << (other.scale or 0)) - len(custody.data)
            if room > 0:
                self._tell(other, custody)

    def _tell(self, stream: Stream[Flow], custody: Custody) -> None:
        """Let the sender of *stream* believe that all in *custody* has arrived, once it is on disk."""
        flow, before = stream.flow, custody.told
        if not self._flows.may_fail_closed(flow):
            return
        custody.told = custody.end
        try:
            self._store.protect(flow.key, records.record(flow))
            self._kept.save_now(flow)  # else it is read again late after a crash
        except BackendError:  # the guard has logged the cause
            custody.told = before
            return
        self._flows.skew(flow)

    def closes(self, stream: Stream[Flow]) -> None:
        """The sender is done: no more bytes come that could complete a message."""
        if stream.custody is not None:
            stream.custody.withheld = None

    def was_reset(self, stream: Stream[Flow], segment: Segment) -> None:
        """*segment*, a reset, came in *stream*. Where it may be true, no own packets are sent any more.

        What its sender says next would still carry the bytes along: a reset alone proves nothing.
        """
        at = stream.offset(segment.seq)
        for each in stream.flow.streams:
            if each.custody is None or id(each) not in self._cares:
                continue
            answered = stream.offset(each.custody.head.ack)
            if at == stream.next or (each is not stream and at == answered):
                self._cares[id(each)].tries = _TRIES

    def forget(self, flow: Flow) -> Verdicts:
        """*flow* is over: verdicts for all that it holds."""
        verdicts = self.let_go(flow)
        for stream in flow.streams:
            if stream.custody is not None:
                self._drop(stream)
        return verdicts

    def adopt(self, flow: Flow, now: float) -> None:
        """What an earlier daemon had in custody of *flow*, and told its sender of, is sent at once."""
        for stream in flow.streams:
            if stream.custody is not None:
                self._cares[id(stream)] = _Care(stream, now)
                self._clients[_client(stream)] += 1
        flow.attend()
        self._reckon()

    def _plan(self, stream: Stream[Flow], custody: Custody) -> None:
        """While something is withheld it has its time. Later the sender's packets carry it."""
        care = self._cares.get(id(stream))
        if care is not None:
            care.due = inf if custody.withheld is None else custody.since + self._settings.hold
            self._reckon()

    def _tend(self, care: _Care, now: float) -> Verdicts:
        """Its time is up: what is in custody leaves, in a packet of ours if there is no other."""
        stream, verdicts = care.stream, Verdicts()
        custody = stream.custody
        care.due = inf
        if custody is None:
            return verdicts
        if custody.withheld is not None:
            self._counters.late_edit += 1
            custody.withheld = None
            verdicts = self.release(stream)
        if care.tries < _TRIES:
            care.tries += 1
            if not verdicts:
                self._send_own(stream, custody)
            if custody.owed:
                care.due = now + care.pause
                care.pause = min(2 * care.pause, _LAST_S)
        return verdicts

    def _lift(self, stream: Stream[Flow]) -> None:
        """Nothing of *stream* is withheld any more: it leaves at once."""
        custody = stream.custody
        if custody is not None and custody.withheld is not None:
            custody.withheld = None
            self._send_own(stream, custody)
            care = self._cares.get(id(stream))
            if care is not None and not custody.owed:
                care.due = inf

    def _send_own(self, stream: Stream[Flow], custody: Custody) -> None:
        segment = custody.own_packet(stream.base)
        verdict = self.output.rendered(stream, segment, custody.start)
        if verdict.accept:
            self._send(verdict.payload or segment.raw)

    def _end(self, stream: Stream[Flow]) -> None:
        """The receiver has everything."""
        flow = stream.flow
        told = stream.custody is not None and stream.custody.told > 0
        self._drop(stream)
        flow.attend()
        if not told or any(each.custody is not None and each.custody.told for each in flow.streams):
            return
        if any(each.map.skewed for each in flow.streams):
            self._kept.changed(flow)
        elif flow.skewed:
            self._flows.straighten(flow)
            self._store.unprotect(flow.key)
            self._kept.changed(flow)

    def _drop(self, stream: Stream[Flow]) -> None:
        stream.custody = None
        if self._cares.pop(id(stream), None) is not None:
            client = _client(stream)
            self._clients[client] -= 1
            if not self._clients[client]:
                del self._clients[client]
        self._reckon()

    def _reckon(self) -> None:
        self._wakeup = min((care.due for care in self._cares.values()), default=inf)


def owing(flows: FlowTable) -> bool:
    """Whether the sender of any flow relies on us for bytes that its receiver has not acknowledged."""
    streams = [stream for flow in flows.skewed.values() for stream in flow.streams]
    return any(stream.custody is not None and stream.custody.owed for stream in streams)


def _client(stream: Stream[Flow]) -> bytes:
    """The address of the client of its flow."""
    return stream.flow.key[:4]


def _joined(packets: list[Held], at: int) -> bool:
    """Whether *packets* have every byte from offset *at* on."""
    for one in packets:
        if one.at > at:
            return False
        at = max(at, one.end)
    return True
