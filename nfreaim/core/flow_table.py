"""FlowTable: every flow by the keys of its packets, bounded in number, memory and idle time.

Who gives way in a full table: first flows of clients that have more than their share of it, so that nobody
can push out others by opening many; of these, and then of all, those that are not read, then those that are
not past sign-on, the longest idle ones first. What a pinhole or a translation hangs on is spared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from nfreaim.core.address import Direction, FlowId, key_of, reverse
from nfreaim.core.flow import Flow
from nfreaim.core.quota import Quota
from nfreaim.core.tcp.half_open import HalfOpenTable
from nfreaim.core.tcp.stream import Stream

# Flows of one client (an address) that are never too many; a host has a handful.
_FEW: Final = 64
# So many streams are looked at in one call of ``expire``: a full table at once would take 60 ms.
_SWEEP: Final = 8192


@dataclass(frozen=True, slots=True)
class FlowLimits:
    """How much the table remembers. Times in seconds."""

    flows: int = 65536
    skewed: int = 16384
    """Of these, flows that are never evicted, because what they send has to be translated."""
    half_open: int = 131072
    """SYNs without an answer, 0.1 KiB each."""
    half_read: int = 64 << 20
    """Bytes of frames whose end is missing, of all flows together."""
    edits: int = 65536
    """Edits remembered for retransmissions, 0.2 KiB each, of all flows together."""
    idle: float = 4 * 3600.0
    linger: float = 60.0
    """How long a closed flow is remembered after its last packet, for retransmissions of its last bytes."""


class FlowTable:
    """Every flow by the keys of its two directions, bounded in number and idle time; the skewed by owner."""

    def __init__(self, limits: FlowLimits) -> None:
        self.limits = limits
        self.streams: dict[bytes, Stream] = {}
        self.skewed: dict[FlowId, Flow] = {}
        self.half_open = HalfOpenTable(limits.half_open)
        self.half_read: Quota[Flow] = Quota(limits.half_read)
        self._edits: Quota[Flow] = Quota(limits.edits)
        self._sweep: list[bytes] = []

    def __len__(self) -> int:
        return len(self.streams) // 2

    def __iter__(self) -> Iterator[Flow]:
        return (stream.flow for stream in self.streams.values() if stream.direction is Direction.ORIGINAL)

    def add(self, flow: Flow, spared: Callable[[], Iterable[FlowId]] = tuple) -> list[Flow]:
        """Remember *flow*. Returns the flows that had to give way in a full table (see above).

        spared  tells the owners that give way last
        """
        evicted: list[Flow] = []
        if len(self) >= self.limits.flows:
            # A whole sixteenth at once, so that the search costs little per new flow.
            evicted = self._least(max(1, self.limits.flows // 16), {key_of(owner) for owner in spared()})
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
            helper = flow.helper
            reading = 0 if helper is None or flow.closed is not None else 2 if helper.established else 1
            return flow.key in spared, shares[flow.key[:4]] <= fair, reading, flow.seen

        return sorted((flow for flow in self if not flow.skewed), key=worth)[:count]

    def remove(self, flow: Flow) -> None:
        """Forget *flow*; unknown ones are no error."""
        if self.streams.get(flow.key) is flow.streams[0]:
            del self.streams[flow.key]
            del self.streams[reverse(flow.key)]
        self.half_read.set(flow, 0)
        self._edits.set(flow, 0)
        if self.skewed.get(flow.owner) is flow:
            del self.skewed[flow.owner]

    def may_skew(self, flow: Flow) -> bool:
        """Whether *flow* may be skewed, or is. One whose client is inside never: no protocol needs it."""
        return flow.server_inside and (flow.skewed or len(self.skewed) < self.limits.skewed)

    def edited(self, flow: Flow) -> int:
        """Edits of *flow* were added. Returns how many flows must forget theirs: those edited longest ago.

        What they send again of them passes as it came. Their receivers have had it long since, and keep that.
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
        return old
