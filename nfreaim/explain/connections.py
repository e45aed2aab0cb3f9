"""Connections: every TCP connection of a capture, from its SYN to its end, and those that are one by two
names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Literal

from nfreaim.capture import Frame
from nfreaim.core.address import Direction, FlowId, flow_id, reverse
from nfreaim.core.tcp.segment import ACK, RST, SYN, Segment, distance
from nfreaim.core.tcp.stream import FAR
from nfreaim.explain.frames import segment_in

_SAME_S: Final = 3.0  # between the two sides of a router; a SYN that waits for a verdict takes milliseconds
_AGAIN_S: Final = 0.2  # a client waits for a second before it repeats a SYN; sooner, it is another copy

Outcome = Literal["open", "refused", "no answer", "not completed"]


@dataclass(slots=True, eq=False)
class Connection:
    """One connection attempt, as one side of the router shows it.

    frame, time  of the first SYN; of the first packet, if the capture begins later
    isn      the client's initial sequence number; None: the capture begins later
    ttl      of that packet
    syns     how often the client asked
    last     time of the last SYN
    answered the server's SYN/ACK came; *completed*: the client has acknowledged that
    refused  the server answered with a reset
    sent     bytes by direction
    reset    who reset it later
    """

    flow: FlowId
    frame: int
    time: float
    isn: int | None
    ttl: int
    syns: int = 0
    last: float = 0.0
    answered: bool = False
    completed: bool = False
    refused: bool = False
    sent: list[int] = field(default_factory=lambda: [0, 0])
    reset: Direction | None = None
    ends: list[int | None] = field(default_factory=lambda: [None, None])

    @property
    def outcome(self) -> Outcome:
        """What became of the attempt."""
        if self.isn is None or self.completed:
            return "open"
        if self.refused:
            return "refused"
        return "not completed" if self.answered else "no answer"

    def saw(self, direction: Direction, segment: Segment) -> None:
        """A packet of it that is no SYN of the client."""
        if segment.flags & RST:
            if self.completed or self.isn is None:
                self.reset = direction if self.reset is None else self.reset
            elif direction is Direction.REPLY:
                self.refused = True
            return
        if segment.flags & SYN:
            self.answered = True
        elif direction is Direction.ORIGINAL and self.answered and segment.flags & ACK:
            self.completed = True
        end, known = segment.seq + segment.size, self.ends[direction]
        if known is None:
            self.ends[direction] = end + bool(segment.flags & SYN)
            self.sent[direction] += segment.size
        elif 0 < distance(known, end) <= FAR:
            self.sent[direction] += distance(known, end)
            self.ends[direction] = end


def connections_in(frames: Iterable[Frame]) -> list[Connection]:
    """Every connection of *frames*, in order of their beginning."""
    found: list[Connection] = []
    by_key: dict[bytes, Connection] = {}
    for frame in frames:
        segment = segment_in(frame)
        if segment is None:
            continue
        key = segment.key
        if segment.flags & SYN and not segment.flags & ACK:
            one = by_key.get(key)
            if one is None or one.isn != segment.seq:
                one = by_key[key] = Connection(
                    flow_id(key), frame.number, frame.time, segment.seq, segment.raw[8]
                )
                one.ends[0] = segment.seq + 1
                found.append(one)
            if not one.syns or frame.time - one.last > _AGAIN_S:
                one.syns, one.last = one.syns + 1, frame.time
            continue
        direction = Direction.ORIGINAL if key in by_key else Direction.REPLY
        one = by_key.get(key) or by_key.get(reverse(key))
        if one is None:
            client, server = flow_id(key)
            direction = Direction.ORIGINAL if client.port > server.port else Direction.REPLY
            own = key if direction is Direction.ORIGINAL else reverse(key)
            one = by_key[own] = Connection(flow_id(own), frame.number, frame.time, None, segment.raw[8])
            found.append(one)
        one.saw(direction, segment)
    return found


@dataclass(slots=True, eq=False)
class Pair:
    """A connection as both sides of the router show it, or as one does."""

    lan: Connection | None
    wan: Connection | None

    @property
    def shown(self) -> Connection:
        """One of the two: that of the LAN, where all is known."""
        one = self.lan or self.wan
        assert one is not None
        return one

    @property
    def first(self) -> Connection:
        """The side where it was seen first."""
        both = [one for one in (self.lan, self.wan) if one is not None]
        return min(both, key=lambda one: (one.time, one.frame))


def same(one: Connection, other: Connection) -> bool:
    """Whether both are one connection, on either side of a router that has translated an end of it.

    The router leaves the sequence number and takes one from the TTL. Where a connection's SYN is not in the
    capture the ports tell: masquerading keeps them if they are free.
    """
    (client, server), (other_client, other_server) = one.flow, other.flow
    if one.flow == other.flow or one.isn != other.isn or one.ttl == other.ttl:
        return False
    if one.isn is None:
        return server == other_server and client.port == other_client.port
    return abs(one.time - other.time) <= _SAME_S


def translated(one: Connection, other: Connection) -> tuple[str, str] | None:
    """The addresses of the end that differs, of *one* and of *other*; None if both ends do."""
    ends = [(here.address, there.address) for here, there in zip(one.flow, other.flow, strict=True)]
    found = [end for end in ends if end[0] != end[1]]
    return found[0] if len(found) == 1 else None
