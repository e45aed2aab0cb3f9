"""Admission: decides which packets begin a flow, and makes the flow.

A flow begins with the client's ACK: its SYN and the server's answer may both be a forger's and its
accomplice's. Where a flow lives under the same key, a new connection has to prove more before it takes its
place: its ACK comes from the client's own hardware address, and connection tracking saw the new handshake to
its end. Until then the old flow goes on, and what belongs to the new connection passes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from nfreaim.core.address import End, flow_id, reverse
from nfreaim.core.backend import Sender
from nfreaim.core.flow import Flow, Life, Reading, State
from nfreaim.core.flow_table import FlowTable
from nfreaim.core.nat import FlowNat, Router
from nfreaim.core.queue_sets import QueueSets
from nfreaim.core.resume import KeptFlows
from nfreaim.core.settings import EngineSettings
from nfreaim.core.tcp.half_open import HalfOpen
from nfreaim.core.tcp.handshakes import Answered, AnsweredTable
from nfreaim.core.tcp.segment import ACK, RST, Segment, wrap
from nfreaim.core.tcp.stream import Stream
from nfreaim.core.unread import Unread
from nfreaim.errors import BackendError

Ended = tuple[Flow, str]
"""A flow that is no longer in the table, and why."""

_MOST_RIVALS: Final = 1024
_EXPECTED_WITHIN_S: Final = 60.0  # as long as connection tracking waits for an ACK


class _Arrival(NamedTuple):
    """A packet that may belong to a handshake: its ends in the client's order, and who sent it."""

    segment: Segment
    forward: bytes
    by_client: bool
    from_inside: bool
    token: Any
    now: float


class Admission:
    """Adds flows to *flows*.

    rivals  new connections under the keys of flows in the table
    """

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
        self._senders = router.senders
        self._settings = settings
        self._answered = AnsweredTable(settings.limits.half_open // 4)  # one is four times as large
        self.rivals = AnsweredTable(_MOST_RIVALS)
        self._unread = Unread(router.conntrack)
        self._turned = 0.0

    def __len__(self) -> int:
        return len(self._answered) + len(self.rivals)

    def handshake(self, segment: Segment, from_inside: bool, now: float, skewed: bool, token: Any) -> None:
        """A segment with SYN. It counts if it carries no data.

        skewed  the kernel still has an earlier connection of these ends in its set
        """
        answer = segment.flags & ACK
        forward = reverse(segment.key) if answer else segment.key
        read = skewed or self._sets.protocol_of(forward)
        if segment.start < len(segment.raw) or not read or forward == reverse(forward):
            return
        hardware = self._senders.hardware(token) if from_inside else None
        if answer:
            if one := self._answers(segment, forward, from_inside, hardware, skewed, now):
                self._await(forward, one, now)
        elif not self._router.pinholes.leads_to(flow_id(forward).server):
            half_open = self._flows.half_open
            other = half_open.hardware(forward) if from_inside else None
            if other is not None and other != hardware and self._is_strange(forward, End.CLIENT, hardware):
                return  # it would make the client's own connection unread
            self._sets.undo_offload(forward)
            syn = HalfOpen(segment.seq, from_inside, segment.scale, hardware)
            self._router.counters.evicted_half_open += half_open.announce(forward, syn, now)

    def _answers(
        self,
        segment: Segment,
        forward: bytes,
        from_inside: bool,
        hardware: bytes | None,
        skewed: bool,
        now: float,
    ) -> Answered | None:
        """A SYN/ACK: if it answers a SYN that was seen, the handshake whose last packet is awaited."""
        syn = self._flows.half_open.answered(forward, segment.ack, from_inside)
        if syn is None and forward not in self._flows.streams and not self._answered.get(forward):
            self._unread.answer_without_syn(forward)
        if syn is None or segment.ignorable:
            return None
        if syn.from_inside:
            hardware = syn.hardware
        bases = segment.ack, wrap(segment.seq + 1)
        stream = self._flows.streams.get(forward)
        if stream and _bases(stream.flow) == bases and stream.flow.life is not Life.FINISHED:
            return None  # the same handshake, repeated
        earlier = (self._answered if stream is None else self.rivals).get(forward)
        other = earlier is not None and earlier.hardware != hardware
        if other and self._is_strange(forward, syn.inside, hardware):
            return None
        return Answered(bases, syn, segment.scale, hardware, skewed, now)

    def _await(self, forward: bytes, one: Answered, now: float) -> None:
        """Await the client's ACK of *one*. No packet of the connection is on its way but the SYN/ACK at hand,
        so from now on they may wait in the sessions' queue.
        """
        if forward in self._flows.streams:
            forgotten = [*self.rivals.set(forward, one)]
        else:
            forgotten = self._forget(self._answered.set(forward, one))
            self._sets.know(forward, now)
        self._router.counters.evicted_half_open += len(forgotten)

    def _forget(self, keys: Iterable[bytes]) -> list[bytes]:
        """The handshakes of *keys* are not awaited any more. Returns the keys."""
        forgotten = [*keys]
        for key in forgotten:
            if key not in self._flows.streams:
                self._sets.forget(key)
        return forgotten

    def _is_strange(self, forward: bytes, inside: End, hardware: bytes | None) -> bool:
        return self._senders.sent(flow_id(forward)[inside].address, hardware) is Sender.STRANGER

    def awaited(
        self, segment: Segment, from_inside: bool, now: float, token: Any
    ) -> tuple[bool, list[Ended]]:
        """A segment without SYN: whether it passes as it is, because its connection is not decided yet; and
        the flows that ended, because it began another one.
        """
        key = segment.key
        for forward, by_client in ((key, True), (reverse(key), False)):
            for table in (self._answered, self.rivals):
                one = table.get(forward)
                if one is None or by_client is not (one.syn.from_inside is from_inside):
                    continue
                arrival = _Arrival(segment, forward, by_client, from_inside, token, now)
                return self._belongs(arrival, one, table)
        return False, []

    def _belongs(self, arrival: _Arrival, one: Answered, table: AnsweredTable) -> tuple[bool, list[Ended]]:
        segment, forward = arrival.segment, arrival.forward
        if segment.flags & RST and (one.has(segment, arrival.by_client) or _refuses(one, arrival)):
            table.pop(forward)  # an end, perhaps in whose name another one spoke, wants no connection
            self._forget([forward])
            return True, []
        if not one.has(segment, arrival.by_client):
            return False, []
        if not one.acked and arrival.by_client and segment.flags & ACK:
            one = self._acknowledged(one, arrival)
            old = self._flows.streams.get(forward)
            decides = old is None or (one.acked and old.flow.closed is not None)
        else:
            decides = one.acked and self._is_complete(forward)
        if decides:
            table.pop(forward)
            return False, self._begin(forward, one, arrival.now, midstream=False)
        if table.get(forward):
            table.set(forward, one._replace(missed=one.missed or bool(segment.size)))
        return True, []

    def _acknowledged(self, one: Answered, arrival: _Arrival) -> Answered:
        """The client's ACK has come. It counts if its host sent it. A stranger's handshake is forgotten,
        unless its key is free: then the flow is read, but nothing is opened for it.
        """
        forward = arrival.forward
        if arrival.from_inside:
            one = one._replace(hardware=self._senders.hardware(arrival.token))
        if forward not in self._flows.streams:
            return one._replace(acked=True)
        found = self._senders.sent(flow_id(forward)[one.syn.inside].address, one.hardware)
        if found is Sender.STRANGER or (found is Sender.HOST and not one.same_sender):
            self.rivals.pop(forward)
            return one
        return one._replace(acked=found is not Sender.UNKNOWN)

    def reset(self, stream: Stream[Flow], segment: Segment, token: Any, now: float) -> None:
        """An RST. It proves nothing, unless it comes from inside and certainly is its host's own."""
        flow = stream.flow
        flow.reset = True
        if not stream.from_inside:
            return
        before = flow.proved, flow.barred
        if self._senders.disowned(stream, segment, token):
            # What it never said anything in is not its connection; of its own some agreements may outlive it.
            own = stream.next > 0 and segment.seq != stream.base
            reason = "its host reset the connection"
            self._router.pinholes.close_flow(flow.id, reason, now if own else None)
        if before != (flow.proved, flow.barred):
            self._kept.changed(flow)

    def _is_complete(self, forward: bytes) -> bool:
        try:
            return self._router.conntrack.handshake_seen(flow_id(forward))
        except BackendError:
            return False

    def expire(self, now: float) -> None:
        """Forget handshakes that were not completed in time, and servers that nobody uses. Call it often."""
        self._sets.expire(now, self._flows)
        if now - self._turned >= _EXPECTED_WITHIN_S:
            self._turned = now
            self._forget(self._answered.turn())
            self._unread.turn()
            self.rivals.turn()

    def midstream(
        self, segment: Segment, from_inside: bool, now: float
    ) -> tuple[Stream[Flow] | None, list[Ended]]:
        """A segment without SYN of no known flow: the stream that it begins, and the flows that ended.

        Only the settings can allow that. Otherwise the flow leaves the queue: nothing of it will be read.
        """
        sets, key = self._sets, segment.key
        forward = key if sets.protocol_of(key) is not None else reverse(key)
        if not segment.size or segment.flags & RST:
            return None, []
        if sets.protocol_of(forward) is None:
            if key != reverse(key):
                sets.leave(key, from_inside, self._flows)
            return None, []
        if not self._settings.midstream or self._router.pinholes.leads_to(flow_id(forward).server):
            # If it is ahead of the handshake it will come again.
            half_open = self._flows.half_open
            if not (half_open.begins(forward, now) or self._answered.get(forward)):
                peer = self._router.pinholes.leads_to(flow_id(forward).server)
                self._unread.met(forward, forward in half_open, peer, now)
                sets.offload(forward, self._flows)
            return None, []
        bases = (segment.seq, segment.ack) if forward == key else (segment.ack, segment.seq)
        syn = HalfOpen(0, from_inside is (forward == key))
        one = Answered(bases, syn, None, None, skewed=False, since=now)
        ended = self._begin(forward, one, now, midstream=True)
        return self._flows.streams[key], ended

    def _begin(self, key: bytes, one: Answered, now: float, midstream: bool) -> list[Ended]:
        """Start the flow of *key*; an old one ends."""
        ended: list[Ended] = []
        old = self._flows.streams.get(key)
        if old is not None:
            self._flows.remove(old.flow)
            ended.append((old.flow, "control connection replaced"))
        flow = Flow(key, one.bases, one.syn.inside, now)
        flow.midstream = midstream
        if not midstream:
            flow.scaled(one.syn.scale, one.scale)
            self._senders.begins(flow, one.hardware, one.same_sender)
        flow.nat = FlowNat(flow, self._router)
        protocol = self._sets.protocol_of(key)
        if protocol is not None and not one.missed:
            protocol.given_to(flow)
            flow.followed = not self._sets.serves_port(key, flow.protocol)
            helper = protocol.make(midstream)
            flow.reading = Reading(helper, State.ESTABLISHED if helper.established else State.NEW)
            self._kept.begins(flow, one.since, now)
        self._sets.used(flow, now)
        if midstream:
            self._sets.know(key, now)
        self._router.counters.flows += 1
        for evicted in self._flows.add(flow, self._router.pinholes.flows):
            self._router.counters.evicted_flows += 1
            ended.append((evicted, "too many control connections"))
        if one.skewed:
            self._router.store.unprotect(key)
        return ended


def _bases(flow: Flow) -> tuple[int, int]:
    client, server = flow.streams
    return client.base, server.base


def _refuses(one: Answered, arrival: _Arrival) -> bool:
    """Whether a reset of the server's answers the client's SYN."""
    segment = arrival.segment
    return not arrival.by_client and segment.seq == 0 and segment.ack == one.bases[0]
