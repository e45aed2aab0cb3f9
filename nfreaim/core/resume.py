"""KeptFlows: the established flows, saved so that the next daemon goes on reading them; Resumed: how it does.

No I/O and no protocol: the store keeps records and positions, the helper knows where messages begin. Nothing
of what was said is saved: a record has the flow's ends, a position has numbers.

A record is written once, when a flow is established; its position whenever the flow has advanced and the
caller asks (``save``). After a restart a flow goes on at its position if the first new segment shows that no
byte was missed: it stands exactly there, and acknowledges nothing beyond the other direction's position.
Otherwise both directions are only looked at until the helper is certain of a message boundary. Until then,
and if that never comes, the flow passes, translated if it is skewed.

While rules of ours are missing, packets pass a living daemon unseen, but for those of skewed flows. So the
flows are resumed where they stand (``doubt``).
"""

from __future__ import annotations

import logging
import math
import struct
import sys
from contextlib import suppress
from itertools import islice
from typing import Any, Final, cast

from nfreaim.core import records
from nfreaim.core.backend import FlowStore, Followed, Record
from nfreaim.core.flow import Event, Flow, Reading, State
from nfreaim.core.flow_table import FlowTable
from nfreaim.core.helper import Resumable
from nfreaim.core.nat import FlowNat, Router
from nfreaim.core.queue_sets import QueueSets
from nfreaim.core.senders import InsideSenders
from nfreaim.core.tcp.segment import ACK, Segment
from nfreaim.core.tcp.stream import FAR, Stream
from nfreaim.errors import BackendError

log = logging.getLogger(__name__)

# What is saved as a position: the sequence number due in either direction, then the helper's own two parts.
_NUMBERS: Final = struct.Struct("!II")
# A segment this far behind is a repetition; farther behind, it is no segment of this connection.
_BEHIND: Final = 1 << 16
_RECORD_EFFORT: Final = 31  # how much longer than a position it takes to write a record, in positions
# For this time after a restart, or after rules were missing, a gap may be bytes that passed unseen and will
# not be sent again.
_PROBATION_S: Final = 120.0
_REPEATED_S: Final = 10.0  # for which the sender of bytes that passed unseen may repeat them, at most


class KeptFlows:
    """The established flows that have advanced or are saved, and those of an earlier daemon.

    moved  flows that were read since the last ``save``, by key
    """

    def __init__(self, store: FlowStore, flows: FlowTable, sets: QueueSets, router: Router) -> None:
        self.moved: dict[bytes, Flow] = {}
        self._store = store
        self._flows = flows
        self._sets = sets
        self._router = router
        self._saved: set[bytes] = set()
        self._outdated: set[bytes] = set()  # of these, whose records are to be written again
        self._warned = False
        self._doubted = 0.0  # the time until which rules were missing that flows were resumed for

    def save(self, effort: int = sys.maxsize) -> None:
        """Write the position of every flow that advanced since the last call.

        *effort* limits the work, because packets wait meanwhile: one unit for a position, 32 for a new flow's
        record. The rest waits for the next call, in order. If the disk refuses, warn once; the flow is tried
        again when it advances again.
        """
        for key in list(islice(self.moved, effort)):
            if effort <= 0:
                break
            flow = self.moved.pop(key)
            effort -= 1
            known = key in self._saved and key not in self._outdated
            helper = flow.reading.helper
            # Asked once: whether an object has the methods of a protocol takes longer than all the rest.
            if not flow.reading.reads or not (known or isinstance(helper, Resumable)):
                continue
            try:
                if not known:
                    effort -= _RECORD_EFFORT
                    if not flow.skewed:  # else there is a record, with more in it
                        self._store.save_session(key, records.session(flow))
                    self._saved.add(key)
                    self._outdated.discard(key)
                self._save_position(flow)
            except BackendError as error:
                level = logging.DEBUG if self._warned else logging.WARNING
                self._warned = True
                log.log(level, "a restart will not find this connection again: %s", error)

    def save_now(self, flow: Flow) -> None:
        """Write the position of *flow*, whose record was written just now. Raises BackendError."""
        if flow.key in self.moved and isinstance(flow.reading.helper, Resumable):
            self._save_position(flow)

    def _save_position(self, flow: Flow) -> None:
        first, second = cast(Resumable, flow.reading.helper).positions()
        numbers = _NUMBERS.pack(*(stream.expected for stream in flow.streams))
        self._store.save_position(flow.key, numbers + first + second)

    def doubt(self) -> None:
        """Resume the flows that are read if rules of ours were missing since the last call."""
        until = self._router.unwatched()
        if until <= self._doubted:
            return
        self._doubted = until
        for flow in self._flows:
            if flow.since <= until:
                self._doubt(flow, until)

    def begins(self, flow: Flow, answered: float, now: float) -> None:
        """*flow* is new; its SYN/ACK, *answered* then, may have been seen before rules were missing."""
        until = self._router.unwatched()
        if answered <= until and now - until <= _REPEATED_S:
            self._doubt(flow, until)

    def _doubt(self, flow: Flow, until: float) -> None:
        helper = flow.reading.helper
        if flow.reading.reads and not flow.skewed and isinstance(helper, Resumable):
            flow.reading = Resumed(flow, helper, self._router.senders, until, flow.reading.state)

    def missed(self, stream: Stream[Flow], token: Any, arrived: bool, now: float) -> bool:
        """*token*, a segment of *stream*, stands behind bytes that were not seen, or acknowledges some.

        arrived  an end has shown that they have arrived

        Returns whether they may have passed. Then the flow is read again from the next message boundary on,
        unless it is NEW.
        """
        self.doubt()
        flow = stream.flow
        if flow.reading.plain or not self._router.senders.may_be_own(stream, token):
            return False
        if not flow.reading.gives_way(arrived, now):
            return False
        self.moved.pop(flow.key, None)
        return True

    def over(self, flow: Flow) -> None:
        """*flow* has ended, or is not read any more."""
        self.moved.pop(flow.key, None)
        self._outdated.discard(flow.key)
        if flow.key in self._saved:
            self._saved.discard(flow.key)
            self._store.forget_session(flow.key, flow.skewed)

    def changed(self, flow: Flow) -> None:
        """What the record says of *flow* has changed: write it again with the next ``save``."""
        if flow.skewed:
            with suppress(BackendError):  # the store has said so; the next edit tries again
                self._store.protect(flow.key, records.record(flow))
        elif flow.key in self._saved:
            self._outdated.add(flow.key)
            self.moved[flow.key] = flow

    def restore(self, record: Record, now: float) -> Flow:
        """Go on with a flow of an earlier daemon: translate it if it is skewed, read it once that is safe.

        It is read by the protocol that its record names, if that is served and still has the server's port,
        or the client was redirected there. Raises ValueError, KeyError, TypeError if the record is damaged.
        """
        flow = records.flow_of(record, now)
        if not records.says_how_it_began(record):
            with suppress(BackendError):  # then its client has to sign on again before anything is opened
                flow.proved = self._router.conntrack.handshake_seen(flow.id)
        protocol = self._sets.named(flow.protocol)
        by_port = self._sets.serves_port(flow.key, flow.protocol)
        if protocol is not None and not by_port and flow.followed:
            client, server = flow.id
            self._sets.followed.adopt(Followed(server, client.address, flow.protocol), 0.0, now)
            by_port = True
        flow.nat = FlowNat(flow, self._router)
        if protocol is not None and by_port:
            protocol.given_to(flow)
            helper = protocol.make(midstream=False)
            if isinstance(helper, Resumable):
                position = record.get("position")
                flow.reading = reading = Resumed(flow, helper, self._router.senders, now)
                reading.go_on(position if isinstance(position, bytes) else b"")
                self._saved.add(flow.key)
                flow.nat.reserve()
        self._flows.add(flow)
        self._sets.know(flow.key, now)
        if flow.skewed:
            self._flows.skew(flow)
        return flow


def acknowledges_unseen(stream: Stream[Flow], segment: Segment) -> bool:
    """Whether the sender of *segment*, of *stream*, has received bytes that were not seen here."""
    return bool(segment.flags & ACK) and 0 < _ahead(stream.other, segment) <= FAR


class Resumed(Reading):
    """The reading of a flow of an earlier daemon, or of one of which bytes may have passed unseen, from the
    time *now* on.

    What another machine says in the inside host's name shows nothing of where the flow stands.

    The first edit that changes a length waits until the position is certain: the stream's receiver has
    acknowledged bytes that were read since then, and nothing beyond, or nothing is repeated any more; and the
    scales of both windows are known. Else its bytes might be a repetition of what passed unseen, or bytes
    behind them may have: their receiver has them, and what is inserted before them would take the place of
    some.
    """

    __slots__ = (
        "_began",
        "_certain",
        "_certain_at",
        "_flow",
        "_foreign",
        "_met",
        "_restored",
        "_resumable",
        "_senders",
        "_since",
    )

    plain = False

    def __init__(
        self,
        flow: Flow,
        helper: Resumable,
        senders: InsideSenders,
        now: float,
        state: State = State.RESTORED,
    ) -> None:
        super().__init__(helper, state)
        self._flow = flow
        self._senders = senders
        self._foreign = False  # whether the segment at hand is another machine's
        self._resumable = helper
        self._met = [False, False]  # directions in which ``resync`` has seen a segment
        self._began = [stream.next for stream in flow.streams]  # where it was read from
        self._certain = [False, False]
        self._restored = not self.reads  # by an earlier daemon's record
        self._since = None if self._restored else now  # when it was read again
        self._certain_at = now + _REPEATED_S

    def go_on(self, position: bytes) -> None:
        """Take up what an earlier daemon left. *position*: as ``KeptFlows.save`` wrote it, or empty."""
        flow, helper, positions = self._flow, self._resumable, None
        if len(position) > _NUMBERS.size:
            half = (len(position) - _NUMBERS.size) // 2 + _NUMBERS.size
            positions = position[_NUMBERS.size : half], position[half:]
            for stream, expected in zip(flow.streams, _NUMBERS.unpack_from(position), strict=True):
                if flow.skewed:
                    stream.advance(stream.offset(expected))
                else:
                    stream.rebase(expected)
        self._began = [stream.next for stream in flow.streams]
        starts = flow.streams[0].next, flow.streams[1].next
        try:
            helper.resume(positions, starts)
        except ValueError:
            positions = None
            helper.resume(None, starts)
        if positions is None:
            self.on(Event.MISSED)

    def certain(self, stream: Stream[Flow], now: float) -> bool:
        streams = self._flow.streams
        if any(one.map.skewed for one in streams):
            return True
        known = self._certain[stream.direction] or now > self._certain_at
        return known and all(one.scale is not None for one in streams)

    def saw(self, stream: Stream[Flow], segment: Segment) -> None:
        if not self.reads or not segment.flags & ACK:
            return
        other = stream.other
        ahead = _ahead(other, segment)
        if ahead > 1:  # one more than seen may be a FIN
            self._certain = [False, False]
        elif ahead <= 0 and -_BEHIND <= stream.offset(segment.seq) - stream.next <= FAR:
            began = self._began[other.direction]
            self._certain[other.direction] |= other.map.fwd(other.next) + ahead > other.map.fwd(began)

    def ready(self, stream: Stream[Flow], segment: Segment, token: Any, now: float) -> bool:
        if self.state is State.RESTORED:
            at = stream.offset(segment.seq)
            if self.strange(stream, segment) or _repeats(stream, at, segment):
                return False
            if at == stream.next and _nothing_beyond(stream.other, segment):
                self.on(Event.IN_PLACE)
                self._since = now
                log.info("%s: read again, nothing was missed", self._flow.id)
                return True
        if not self._senders.may_be_own(stream, token):
            self._foreign = True
            return False
        if self.state is State.RESTORED:
            self._lose()
        if self.state is State.RESYNCING:
            self._resync(stream, segment, now)
        return False

    def _lose(self) -> None:
        """Bytes were missed: begin to look for a message boundary."""
        self.on(Event.MISSED)
        self._met = [False, False]
        self._certain = [False, False]
        self._certain_at = math.inf
        self._resumable.resume(None, (0, 0))

    def _resync(self, stream: Stream[Flow], segment: Segment, now: float) -> None:
        """Show the bytes of *segment* to the helper, which only looks at them."""
        way, at = stream.direction, stream.offset(segment.seq)
        # Edits that were made stand at offsets, which must go on meaning the same bytes.
        numbered = self._flow.skewed or bool(stream.map.edits)
        if (self._met[way] or numbered) and _repeats(stream, at, segment):
            return
        joined = self._met[way] and at <= stream.next < at + segment.size
        self._met[way] = True
        if not (joined or numbered):
            stream.rebase(segment.seq)
            at = 0
        new_from = stream.next - at if joined else 0
        data = segment.raw[segment.start + new_from :]
        if self._resumable.resync(way, data, at + new_from, now, joined):
            self.on(Event.RESYNCED)
            self._began = [each.next for each in self._flow.streams]
            self._since = now
            log.info("%s: read again", self._flow.id)

    def strange(self, stream: Stream[Flow], segment: Segment) -> bool:
        """Packets of inside hosts come before any check of the kernel's. What passed while no daemon ran is
        no more than fits into a window.
        """
        foreign, self._foreign = self._foreign, False
        if foreign:
            return True
        if self.state is not State.RESTORED:
            return False
        ahead = _ahead(stream.other, segment)
        apart = max(abs(ahead), abs(stream.offset(segment.seq) - stream.next))
        return not segment.flags & ACK or apart > FAR

    def gives_way(self, arrived: bool, now: float) -> bool:
        if self._since is None or now - self._since > _PROBATION_S or not (arrived or self._restored):
            return False
        self._since = None
        if self.state is not State.NEW:
            self._lose()
        return True


def _repeats(stream: Stream[Flow], at: int, segment: Segment) -> bool:
    """Whether *segment*, which stands at offset *at*, has no new byte."""
    return stream.next - _BEHIND <= at and at + segment.size <= stream.next


def _nothing_beyond(other: Stream[Flow], segment: Segment) -> bool:
    """Whether the sender of *segment* has received no byte of *other* from behind where that stands."""
    return bool(segment.flags & ACK) and -_BEHIND <= _ahead(other, segment) <= 0


def _ahead(other: Stream[Flow], segment: Segment) -> int:
    """By how much *segment* acknowledges more of *other* than where that stands."""
    return other.edited_offset(segment.ack) - other.map.fwd(other.next)
