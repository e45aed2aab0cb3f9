"""Endpoint, Direction, Flow and the table of flows. Knows TCP's handshake, no protocol above it.

A flow comes into being with the server's SYN/ACK, not with the client's SYN: packets from the inside are
seen before any firewall, and a SYN alone proves nothing. Until then one integer is kept for it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from nfreaim.core.stream import Stream

if TYPE_CHECKING:
    from nfreaim.core.helper import Helper
    from nfreaim.core.nat import FlowNat
    from nfreaim.core.sessions import Resuming

_ANSWERED: Final = 3.0  # seconds; what has no answer by then was dropped, or its answer takes another way
_KEY: Final = struct.Struct("!4s4sHH")


class Direction(IntEnum):
    """Of a packet within its flow: ORIGINAL from the client to the server, REPLY back."""

    ORIGINAL = 0
    REPLY = 1


class Endpoint(NamedTuple):
    """An IPv4 address in dotted form and a TCP port."""

    address: str
    port: int

    def __str__(self) -> str:
        return f"{self.address}:{self.port}"


class Owner(NamedTuple):
    """A flow by its two ends, as the inside sees them: the name under which its pinholes are kept."""

    client: Endpoint
    server: Endpoint

    def __str__(self) -> str:
        return f"{self.client} > {self.server}"


def owner_of(key: bytes) -> Owner:
    """The flow whose packets in the original direction have this key (see Segment)."""
    client, server, sport, dport = _KEY.unpack(key)
    return Owner(
        Endpoint(".".join(map(str, client)), sport),
        Endpoint(".".join(map(str, server)), dport),
    )


def reverse(key: bytes) -> bytes:
    """The key of the packets that go the other way."""
    return key[4:8] + key[:4] + key[10:12] + key[8:10]


class HalfOpen(NamedTuple):
    """A client's SYN: its sequence number, where it came from, when, and its window scale (see Segment)."""

    seq: int
    from_inside: bool
    since: float
    scale: int | None = None


class Flow:
    """One control connection.

    key      of the packets in the original direction
    owner    its ends
    server_inside  which of them is the inside one: the server (behind this router, or on it) or the client
    skewed   an edit changed a length: headers of both directions are translated, and it must fail closed
    helper   reads it, or None once it is bypassed
    nat      what the helper is handed
    midstream its beginning was not seen
    resuming  of an earlier daemon's life: how it comes to be read again, and may stop being read for a while
    finished a bit for each direction whose FIN was seen
    reset    an RST was seen: that alone proves nothing
    seen     when its last packet passed
    closed   when both its ends were done, or None
    """

    __slots__ = (
        "closed",
        "finished",
        "helper",
        "key",
        "midstream",
        "nat",
        "owner",
        "reset",
        "resuming",
        "seen",
        "server_inside",
        "skewed",
        "streams",
    )

    def __init__(
        self, key: bytes, client_base: int, server_base: int, helper: Helper | None, now: float
    ) -> None:
        self.key = key
        self.server_inside = False
        self.skewed = False
        self.owner = owner_of(key)
        self.helper = helper
        self.nat: FlowNat | None = None
        self.midstream = False
        self.resuming: Resuming | None = None
        self.streams = (
            Stream(self, Direction.ORIGINAL, client_base),
            Stream(self, Direction.REPLY, server_base),
        )
        self.seen = now
        self.finished = 0
        self.reset = False
        self.closed: float | None = None

    def seen_from(self, client_inside: bool) -> None:
        """Which end is the inside one; until told, it is the client."""
        self.server_inside = not client_inside
        for stream in self.streams:
            stream.from_inside = (stream.direction is Direction.ORIGINAL) is client_inside

    def scaled(self, client: int | None, server: int | None) -> None:
        """Both SYNs were seen, with these window scales: either both ends shift their windows, or none."""
        used = client is not None and server is not None
        self.streams[Direction.ORIGINAL].scale = server if used else 0
        self.streams[Direction.REPLY].scale = client if used else 0


@dataclass(frozen=True, slots=True)
class FlowLimits:
    """How much the table remembers. Times in seconds."""

    flows: int = 65536
    half_open: int = 16384
    idle: float = 4 * 3600.0
    linger: float = 60.0
    """How long a closed flow is remembered after its last packet, for retransmissions of its last bytes."""


class FlowTable:
    """Every flow by the keys of its two directions, bounded in number and idle time; the skewed by owner."""

    def __init__(self, limits: FlowLimits) -> None:
        self.limits = limits
        self.streams: dict[bytes, Stream] = {}
        self.skewed: dict[Owner, Flow] = {}
        self._half_open: dict[bytes, HalfOpen] = {}

    def __len__(self) -> int:
        return len(self.streams) // 2

    def __iter__(self) -> Iterator[Flow]:
        return (stream.flow for stream in self.streams.values() if stream.direction is Direction.ORIGINAL)

    def announce(self, key: bytes, syn: HalfOpen) -> None:
        """A client's SYN was seen; at the bound the oldest one gives way.

        Not one from an endpoint to itself: both directions of such a flow would have the same key.
        """
        if key == reverse(key):
            return
        self._half_open.pop(key, None)
        if len(self._half_open) >= self.limits.half_open:
            del self._half_open[next(iter(self._half_open))]
        self._half_open[key] = syn

    def begins(self, key: bytes, now: float) -> bool:
        """Whether a client's SYN with this key awaits its answer, and may still get it."""
        syn = self._half_open.get(key)
        return syn is not None and now - syn.since < _ANSWERED

    def answered(self, key: bytes, ack: int, from_inside: bool) -> HalfOpen | None:
        """The SYN announced for *key* that this acknowledgement number answers, from the other side."""
        syn = self._half_open.get(key)
        if syn is None or (syn.seq + 1) & 0xFFFFFFFF != ack or syn.from_inside is from_inside:
            return None
        return self._half_open.pop(key)

    def add(self, flow: Flow) -> list[Flow]:
        """Remember *flow*. Returns the flows that had to give way in a full table: the longest idle ones."""
        evicted: list[Flow] = []
        if len(self) >= self.limits.flows:
            # A whole sixteenth at once, so that the search for the oldest costs little per new flow. Never
            # skewed ones: what they still send and receive has to be translated.
            plain = (old for old in self if not old.skewed)
            evicted = sorted(plain, key=lambda old: old.seen)[: max(1, self.limits.flows // 16)]
            for old in evicted:
                self.remove(old)
        self.streams[flow.key] = flow.streams[0]
        self.streams[reverse(flow.key)] = flow.streams[1]
        return evicted

    def remove(self, flow: Flow) -> None:
        """Forget *flow*; unknown ones are no error."""
        if self.streams.get(flow.key) is flow.streams[0]:
            del self.streams[flow.key]
            del self.streams[reverse(flow.key)]
        if self.skewed.get(flow.owner) is flow:
            del self.skewed[flow.owner]

    def expire(self, now: float) -> list[Flow]:
        """Forget and return the flows that are idle for too long (not if skewed) or closed long enough."""
        idle, closed = now - self.limits.idle, now - self.limits.linger  # seen last at these times
        old = [
            flow
            for flow in self
            if (flow.seen <= idle and not flow.skewed) or (flow.closed is not None and flow.seen <= closed)
        ]
        for flow in old:
            self.remove(flow)
        return old
