"""FlowTable: every flow by the keys of its packets, bounded in number, memory and idle time.

In a full table flows of clients that have more than their share of it give way first, so that a client cannot
push out others by opening many. Of these, and then of all, those go first that are not read, then those that
are not established, the longest idle ones first. Flows with pinholes go last, skewed ones never.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final, Generic, TypeVar

from nfreaim.core.address import Direction, End, FlowId, key_of, reverse
from nfreaim.core.counters import EngineStats, FlowStatus
from nfreaim.core.flow import Flow, State
from nfreaim.core.tcp.half_open import HalfOpenTable
from nfreaim.core.tcp.stream import Stream

# At most as many flows of one client (an address) are never too many; a host has a handful.
_FEW: Final = 64
# ``expire`` looks at as many streams in one call, because a full table at once would take 60 ms.
_SWEEP: Final = 8192
# ``stats`` tells of at most as many flows, because packets wait meanwhile.
MOST_TOLD: Final = 512
_RANK: Final = {State.NEW: 1, State.ESTABLISHED: 2}  # in other states nothing is read


H = TypeVar("H", bound=Hashable)


class Quota(Generic[H]):
    """Shares of something that is bounded in all, such as memory: whose share is oldest gives way.

    bound  what all holders together may have; the unit is the caller's
    """

    def __init__(self, bound: int) -> None:
        self.bound = bound
        self.total = 0
        self._shares: OrderedDict[H, int] = OrderedDict()

    def set(self, holder: H, share: int) -> None:
        """*holder* has *share* from now on; the time at which that changed counts."""
        before = self._shares.pop(holder, 0)
        self.total += share - before
        if share:
            self._shares[holder] = share

    def surplus(self) -> list[H]:
        """Those who have to give theirs up, longest unchanged first; they have no share any more.

        The latest is never among them.
        """
        found: list[H] = []
        while self.total > self.bound and len(self._shares) > 1:
            holder, share = self._shares.popitem(last=False)
            self.total -= share
            found.append(holder)
        return found


@dataclass(frozen=True, slots=True)
class FlowLimits:
    """How much the table remembers. Times in seconds."""

    flows: int = 65536
    skewed: int = 16384
    """Of these, flows that are never evicted, because what they send has to be translated."""
    skewed_per_host: int = 1024
    """Of these, flows of one inside client: a host of the LAN must not take all of them from the others."""
    half_open: int = 131072
    """SYNs without an answer, 0.1 KiB each."""
    half_read: int = 64 << 20
    """Bytes of frames whose end is missing, of all flows together."""
    edits: int = 65536
    """Edits remembered for retransmissions, 0.2 KiB each, of all flows together."""
    idle: float = 4 * 3600.0
    linger: float = 60.0
    """How long a closed flow is remembered after its last packet, for retransmissions of its last bytes."""

    def share(self, tables: int) -> FlowLimits:
        """The limits for one of so many tables: together they remember no more than one with these."""
        if tables == 1:
            return self

        def part(whole: int) -> int:
            return max(1, whole // tables)

        return replace(
            self,
            flows=part(self.flows),
            skewed=part(self.skewed),
            skewed_per_host=min(self.skewed_per_host, part(self.skewed)),
            half_open=part(self.half_open),
            half_read=part(self.half_read),
            edits=part(self.edits),
        )


class FlowTable:
    """Every flow by the keys of its two directions, bounded in number and idle time; skewed flows by id."""

    def __init__(self, limits: FlowLimits) -> None:
        self.limits = limits
        self.streams: dict[bytes, Stream[Flow]] = {}
        self.skewed: dict[FlowId, Flow] = {}
        self._skewed_hosts: Counter[str] = Counter()
        self.half_open = HalfOpenTable(limits.half_open)
        self.half_read: Quota[Flow] = Quota(limits.half_read)
        self._edits: Quota[Flow] = Quota(limits.edits)
        self._sweep: list[bytes] = []

    def __len__(self) -> int:
        return len(self.streams) // 2

    def __iter__(self) -> Iterator[Flow]:
        return (stream.flow for stream in self.streams.values() if stream.direction is Direction.ORIGINAL)

    def resets(self) -> list[tuple[bytes, list[tuple[bytes, int, int]]]]:
        """For each skewed flow its key, and what a reset of either end needs (see Flow.resets)."""
        return [(flow.key, flow.resets()) for flow in self.skewed.values()]

    def stats(self, counters: dict[str, int]) -> EngineStats:
        """The statistics of an engine with these flows and *counters*."""
        latest = islice(reversed(self.streams.values()), 4 * MOST_TOLD)
        flows = (stream.flow for stream in latest if stream.direction is Direction.ORIGINAL)
        told = tuple(
            FlowStatus(flow.id, flow.protocol, flow.inside, flow.reading.state.name.lower(), flow.since)
            for flow in islice((flow for flow in flows if flow.closed is None), MOST_TOLD)
        )
        return EngineStats(len(self), tuple(self.skewed), counters, told)

    def add(self, flow: Flow, spared: Callable[[], Iterable[FlowId]] = tuple) -> list[Flow]:
        """Remember *flow*. Returns the flows that had to give way in a full table (see above).

        spared  tells the flows that give way last
        """
        evicted: list[Flow] = []
        if len(self) >= self.limits.flows:
            # A whole sixteenth at once, so that the search costs little per new flow.
            evicted = self._least(max(1, self.limits.flows // 16), {key_of(flow) for flow in spared()})
            for old in evicted:
                self.remove(old)
        self.streams[flow.key] = flow.streams[0]
        self.streams[reverse(flow.key)] = flow.streams[1]
        return evicted

    def _least(self, count: int, spared: set[bytes]) -> list[Flow]:
        """The *count* flows that are missed least. Never skewed ones: what they send must be translated."""
        shares = Counter(flow.key[:4] for flow in self)
        fair = max(_FEW, len(self) // len(shares))

        def worth(flow: Flow) -> tuple[bool, bool, int, float]:
            rank = 0 if flow.closed is not None else _RANK.get(flow.reading.state, 0)
            return flow.key in spared, shares[flow.key[:4]] <= fair, rank, flow.seen

        return sorted((flow for flow in self if not flow.skewed), key=worth)[:count]

    def remove(self, flow: Flow) -> None:
        """Forget *flow*; unknown ones are no error."""
        if self.streams.get(flow.key) is flow.streams[0]:
            del self.streams[flow.key]
            del self.streams[reverse(flow.key)]
        self.half_read.set(flow, 0)
        self._edits.set(flow, 0)
        if self.skewed.get(flow.id) is flow:
            self._count_out(flow)

    def may_skew(self, flow: Flow) -> bool:
        """Whether an edit of *flow* may change a length."""
        return flow.resizable and self.may_fail_closed(flow)

    def may_fail_closed(self, flow: Flow) -> bool:
        """Whether *flow* does, or may within the limits."""
        if flow.skewed:
            return True
        # A server inside has its flows with clients from everywhere, so its address says nothing.
        share = self.limits.skewed if flow.inside is End.SERVER else self.limits.skewed_per_host
        return len(self.skewed) < self.limits.skewed and self._skewed_hosts[flow.inside_host] < share

    def skew(self, flow: Flow) -> None:
        """*flow* is skewed from now on."""
        flow.skewed = True
        flow.attend()
        if flow.id not in self.skewed:
            self._skewed_hosts[flow.inside_host] += 1
        self.skewed[flow.id] = flow

    def straighten(self, flow: Flow) -> None:
        """*flow*, of which no edit has changed a length, need not fail closed any more."""
        flow.skewed = False
        flow.attend()
        self._count_out(flow)

    def _count_out(self, flow: Flow) -> None:
        del self.skewed[flow.id]
        self._skewed_hosts[flow.inside_host] -= 1
        if not self._skewed_hosts[flow.inside_host]:
            del self._skewed_hosts[flow.inside_host]

    def edited(self, flow: Flow) -> int:
        """Edits of *flow* were added. Returns how many flows had to forget theirs: those edited longest ago.

        If they send those bytes again they pass as they came. Their receivers have had them, and keep those.
        """
        self._edits.set(flow, sum(len(stream.map.edits) for stream in flow.streams))
        forgetful = self._edits.surplus()
        for old in forgetful:
            for stream in old.streams:
                stream.map.forget()
        return len(forgetful)

    def expire(self, now: float) -> list[Flow]:
        """Forget and return flows that are idle for too long (not if skewed) or closed long enough.

        Each call looks at a part of the table, so that no packet waits long for it. With 65536 flows what is
        due may stay for 16 calls more.
        """
        self.half_open.expire(now)
        if not self._sweep:
            self._sweep = list(self.streams)
        keys = self._sweep[-_SWEEP:]
        del self._sweep[-_SWEEP:]
        idle, closed = now - self.limits.idle, now - self.limits.linger  # seen last at these times
        old: list[Flow] = []
        for key in keys:
            stream = self.streams.get(key)
            if stream is None or stream.direction:
                continue
            flow = stream.flow
            if (flow.seen <= idle and not flow.skewed) or (flow.closed is not None and flow.seen <= closed):
                self.remove(flow)
                old.append(flow)
            elif flow.skewed and flow.seen <= closed:
                self._rest(flow)
        return old

    def _rest(self, flow: Flow) -> None:
        """A skewed flow is idle: edits that its receivers have had will not be sent again."""
        for stream in flow.streams:
            if stream.map.edits and stream.acked >= stream.map.fwd(stream.next):
                stream.map.forget()
        self._edits.set(flow, sum(len(stream.map.edits) for stream in flow.streams))
