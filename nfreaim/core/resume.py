"""KeptFlows: which flows are signed on, kept so that a later daemon goes on reading them, and how it does.

No I/O and no protocol: the kernel keeps records and places, the helper knows where frames begin. Nothing of
what was said is kept: a record has the flow's ends, a place has numbers.

A record is written once, when a flow is past sign-on; its place whenever it has moved, by the caller's leave
(``keep``). After a restart a flow goes on at its place if the first new segment shows that nothing was
missed: it stands exactly there, and acknowledges nothing from beyond the other direction's place. Otherwise
both directions are only looked at until the helper is sure of where frames begin. Until then, and if that
never comes, the flow passes, translated if it was skewed.
"""

from __future__ import annotations

import logging
import struct
import sys
from collections.abc import Callable
from itertools import islice
from typing import Final, cast

from nfreaim.core import records
from nfreaim.core.backend import Kernel, Record
from nfreaim.core.flow import Flow
from nfreaim.core.flow_table import FlowTable
from nfreaim.core.helper import HelperFactory, Resumable
from nfreaim.core.nat import FlowNat
from nfreaim.core.queue_sets import QueueSets
from nfreaim.core.tcp.segment import ACK, Segment
from nfreaim.core.tcp.stream import FAR, Stream
from nfreaim.errors import BackendError

log = logging.getLogger(__name__)

_PLACE: Final = struct.Struct("!II")
# A segment this far behind is a repetition; farther, it is somewhere else altogether.
_BEHIND: Final = 1 << 16
_RECORD: Final = 31  # how much longer than a place it takes to write a record, in places
# So long a hole in a flow that goes on may be of bytes that passed before, which never come again.
_PROBATION: Final = 120.0  # seconds


class KeptFlows:
    """The signed-on flows of the table that have moved or are kept, and those being resumed.

    moved  flows that were read since the last ``keep``, by key
    """

    def __init__(
        self, kernel: Kernel, flows: FlowTable, sets: QueueSets, nat_for: Callable[[Flow], FlowNat]
    ) -> None:
        self.moved: dict[bytes, Flow] = {}
        self._kernel = kernel
        self._flows = flows
        self._sets = sets
        self._nat_for = nat_for
        self._kept: set[bytes] = set()
        self._warned = self._said = False

    def keep(self, effort: int = sys.maxsize) -> None:
        """Write down where the moved flows stand. A refusal costs the restart ability only: one warning.

        Of a record, until the flow moves again: a disk that was full need not stay so.

        effort  so many places are written, a record of a new flow counting as 32: packets wait meanwhile.
                What is left stays in ``moved``, and those that move again stand behind it.
        """
        for key in list(islice(self.moved, effort)):
            if effort <= 0:
                break
            flow = self.moved.pop(key)
            effort -= 1
            helper = flow.helper
            known = key in self._kept
            # Asked once: whether an object has the methods of a protocol takes longer than all the rest.
            if helper is None or not (known or isinstance(helper, Resumable)):
                continue
            try:
                if not known:
                    effort -= _RECORD
                    if not flow.skewed:  # else there is a record, with more in it
                        self._kernel.keep(key, records.session(flow, self._sets.serves(key)))
                    self._kept.add(key)
                first, second = cast(Resumable, helper).places()
                ends = _PLACE.pack(*(stream.expected for stream in flow.streams))
                self._kernel.note(key, ends + first + second)
            except BackendError as error:
                level = logging.DEBUG if self._warned else logging.WARNING
                self._warned = True
                log.log(level, "a restart will not find this connection again: %s", error)

    def over(self, flow: Flow) -> None:
        """*flow* has ended, or is not read any more."""
        self.moved.pop(flow.key, None)
        flow.resuming = None
        if flow.key in self._kept:
            self._kept.discard(flow.key)
            self._kernel.drop(flow.key, flow.skewed)

    def unknown(self) -> None:
        """A connection is met that nobody has a record of. Said once."""
        level = logging.DEBUG if self._said else logging.INFO
        self._said = True
        log.log(
            level, "a connection older than this daemon passes unread: its client has to sign on again first"
        )

    def restore(self, record: Record, now: float) -> None:
        """Go on with a flow of an earlier life: translate it if it is skewed, read it once that is safe.

        Raises ValueError, KeyError, TypeError if the record is damaged.
        """
        flow = records.flow_of(record, now)
        factory: HelperFactory | None = self._sets.helper_for(flow.key)
        if factory is None and record.get("followed") is True:
            factory = self._sets.adopt(flow.owner.server, now)
        helper = factory(midstream=False) if factory is not None else None
        if isinstance(helper, Resumable):
            flow.nat = self._nat_for(flow)
            place = record.get("place")
            flow.resuming = Resuming(flow, helper, place if isinstance(place, bytes) else b"")
            self._kept.add(flow.key)
        self._flows.add(flow)
        if flow.skewed:
            self._flows.skewed[flow.owner] = flow


class Resuming:
    """A flow on the way to being read again. *place*: see ``KeptFlows.keep``, or nothing."""

    def __init__(self, flow: Flow, helper: Resumable, place: bytes) -> None:
        self._helper = helper
        self._met = [False, False]
        self._since: float | None = None
        self._exact = len(place) > _PLACE.size
        places = None
        if self._exact:
            half = (len(place) - _PLACE.size) // 2 + _PLACE.size
            places = place[_PLACE.size : half], place[half:]
            for stream, expected in zip(flow.streams, _PLACE.unpack_from(place), strict=True):
                if flow.skewed:
                    stream.advance(stream.offset(expected))
                else:
                    stream.rebase(expected)
        starts = flow.streams[0].next, flow.streams[1].next
        try:
            helper.resume(places, starts)
        except ValueError:
            self._exact = False
            helper.resume(None, starts)

    def ready(self, stream: Stream, segment: Segment, now: float) -> bool:
        """Whether *segment*, which has data, is to be read. If not, it passes; later ones may be read."""
        at = stream.offset(segment.seq)
        end = at + len(segment.raw) - segment.start
        flow, way = stream.flow, stream.direction
        if self.strange(stream, segment):
            return False
        if self._exact:
            if stream.next - _BEHIND <= at and end <= stream.next:
                return False
            if at == stream.next and _nothing_beyond(flow.streams[1 - way], segment):
                flow.helper, self._since = self._helper, now
                log.info("%s: read again, nothing was missed", flow.owner)
                return True
            self._exact = False
            self._helper.resume(None, (0, 0))
        if self._met[way] and stream.next - _BEHIND <= at and end <= stream.next:
            return False
        joined = self._met[way] and at <= stream.next < end
        self._met[way] = True
        if not joined and not flow.skewed:
            stream.rebase(segment.seq)
            at = 0
        fresh = stream.next - at if joined else 0
        data = segment.raw[segment.start + fresh :]
        if self._helper.follow(way, data, at + fresh, now, joined):
            flow.helper, self._since = self._helper, now
            log.info("%s: read again", flow.owner)
        return False

    def strange(self, stream: Stream, segment: Segment) -> bool:
        """Whether *segment* is so far from the known places that this flow's ends cannot have sent it.

        Packets of inside hosts come before any check of the kernel's. What passed while nobody looked may be
        missed, but no more than fits into a window.
        """
        if not self._exact:
            return False
        ahead = _ahead(stream.flow.streams[1 - stream.direction], segment)
        apart = max(abs(ahead), abs(stream.offset(segment.seq) - stream.next))
        return not segment.flags & ACK or apart > FAR

    def gives_way(self, flow: Flow, now: float) -> bool:
        """A hole in *flow*: whether it is taken for bytes that passed before, and nothing waits for them."""
        if self._since is None or now - self._since > _PROBATION:
            return False
        flow.helper = self._since = None
        self._met = [False, False]
        self._helper.resume(None, (0, 0))
        return True


def _nothing_beyond(other: Stream, segment: Segment) -> bool:
    """Whether the sender of *segment* has got nothing of *other* from behind where it stands."""
    return bool(segment.flags & ACK) and -_BEHIND <= _ahead(other, segment) <= 0


def _ahead(other: Stream, segment: Segment) -> int:
    """By how much *segment* acknowledges more of *other* than where that stands."""
    return other.edited_offset(segment.ack) - other.map.fwd(other.next)
