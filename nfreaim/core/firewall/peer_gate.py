"""PeerGate: who may go on through a pinhole. The first bytes from outside have to be what was promised.

It sees both directions of each connection from its SYN until it is decided, and nothing of it afterwards:
the verdict that releases a connection takes it out of the queue for good. No I/O, no clock and no protocol
here: what to expect comes as a Greeting, from whoever knows the service.

What was checked is what is delivered. Bytes are read in order from the SYN's sequence number on; a segment
that brings other bytes for a place that was read does not pass, nor does what lies behind a hole, and data on
a SYN is taken off it (its receiver asks for it again). A connection is released only once the inside host has
acknowledged the greeting: a segment that passed here need not have arrived there (an old timestamp, a short
time to live), and another one could be sent in its place later.
Layouts: TCP RFC 9293 sections 3.1 and 3.10; urgent data RFC 6093.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Protocol

from nfreaim.core.address import Endpoint, FlowId, flow_id, reverse
from nfreaim.core.counters import Counters
from nfreaim.core.greeting import Greeting, length, match
from nfreaim.core.tcp.segment import ACK, FIN, RST, SYN, URG, Segment, bare_packet, distance, wrap
from nfreaim.core.verdict import ACCEPT, DROP, Verdict

_RELEASE: Final = Verdict(True, release=True)


class GateHost(Protocol):
    """What the gate needs of its surroundings. No call raises."""

    def expected(self, inside: Endpoint) -> Sequence[Greeting]:
        """What may be said first to *inside*, each of them in full; none: no pinhole leads there."""

    def is_inside_host(self, address: str) -> bool:
        """Whether *address* belongs to the inside networks."""

    def reset(self, key: bytes, seq: int, ack: int) -> None:
        """Send a reset with the addresses and ports of *key* (see Segment) towards outside."""

    def refused(self, connection: FlowId, reason: str) -> None:
        """The peer (client) did not say what it had to to the inside host; both are reset. Once for each."""


@dataclass(frozen=True, slots=True)
class GateLimits:
    """How much the gate remembers. Times in seconds.

    waiting  connections that are established and have not been decided: while there are so many no other is
             completed, because what is forgotten here can only be refused when it speaks
    others   those that are not established yet, or decided already
    idle     of a waiting connection without a packet
    lenient  after a start packets of unknown connections pass: they were established while nobody looked
    """

    waiting: int = 4096
    others: int = 4096
    idle: float = 3600.0
    lenient: float = 60.0


class _State(Enum):
    CALLED = auto()  # its SYN was seen
    READING = auto()  # the inside host answered it
    SATISFIED = auto()  # the greeting is right, and not acknowledged yet
    RELEASED = auto()
    REFUSED = auto()


class _Connection:
    """One connection.

    syn        the sequence number of its latest SYN
    base       that of its first byte
    read       its first bytes, as far as a greeting goes
    end        how many bytes (a FIN counts as one) have passed
    greetings  what was expected when it was made
    """

    __slots__ = ("base", "end", "greetings", "read", "seen", "state", "syn")

    def __init__(self, syn: int, greetings: Sequence[Greeting], now: float) -> None:
        self.syn = syn
        self.greetings = greetings
        self.state = _State.CALLED
        self.base = 0
        self.read = b""
        self.end = 0
        self.seen = now

    def begin(self, base: int) -> None:
        """The inside host answered: the first byte has this sequence number."""
        self.state = _State.READING
        self.base = base
        self.read = b""
        self.end = 0

    def offset(self, number: int) -> int:
        """Where a sequence or acknowledgement number lies, relative to the first byte."""
        return distance(self.base, number)

    def agrees(self, at: int, data: bytes) -> bool:
        """Whether *data* at offset *at* repeats what was read, as far as the two overlap."""
        if at < 0:
            return at + len(data) <= 0  # a keep-alive of the SYN's own number
        known = self.read[at : at + len(data)]
        return data[: len(known)] == known


class PeerGate:
    """Decides about connections through pinholes by their first bytes."""

    def __init__(
        self, host: GateHost, counters: Counters, now: float, limits: GateLimits | None = None
    ) -> None:
        self._host = host
        self._counters = counters
        self._limits = limits or GateLimits()
        self._waiting: dict[bytes, _Connection] = {}
        self._others: dict[bytes, _Connection] = {}
        self._lenient_until = now + self._limits.lenient

    def __len__(self) -> int:
        return len(self._waiting) + len(self._others)

    def process(self, raw: bytes, now: float) -> Verdict:
        """The verdict for *raw*, an IPv4 packet of an undecided pinhole connection, in either direction.

        It may be cut behind its first 4000 bytes, which is as much as the queue hands out.
        """
        if len(raw) < int.from_bytes(raw[2:4], "big"):
            raw = raw[:2] + len(raw).to_bytes(2, "big") + raw[4:]
        segment = Segment.parse(raw)
        if segment is None:
            self._counters.peer_drops += 1  # connection tracking lets no such packet pass as one of ours
            return DROP
        key = segment.key
        connection = self._find(key)
        if connection is not None:
            connection.seen = now
            return self._from_outside(key, connection, segment, now)
        back = reverse(key)
        connection = self._find(back)
        if connection is not None:
            connection.seen = now
            return self._from_inside(back, connection, segment)
        return self._unknown(segment, now)

    def expire(self, now: float) -> None:
        """Forget what has been idle for too long; if it speaks again it is refused."""
        for table in (self._waiting, self._others):
            for key in [key for key, one in table.items() if one.seen <= now - self._limits.idle]:
                del table[key]

    def unwatched(self, now: float) -> None:
        """Packets may have passed unseen until *now*: unknown connections are not refused for a while."""
        self._lenient_until = now + self._limits.lenient

    # --- from the peer ---

    def _from_outside(self, key: bytes, connection: _Connection, segment: Segment, now: float) -> Verdict:
        if segment.flags & RST:
            self._decided(key, connection)
            return ACCEPT
        if segment.flags & SYN:
            return self._call(key, connection, segment, now)
        if connection.state is _State.RELEASED:
            # It was in the queue already, or is no part of that connection: a stray packet with its ports
            # makes a new entry in connection tracking, which a later SYN would use.
            return ACCEPT
        if connection.state is _State.REFUSED:
            return self._reset(segment, connection.base + len(connection.read))
        if connection.state is _State.CALLED:
            return self._drop()  # nobody has answered it yet
        if segment.flags & URG:
            # An urgent byte is taken out of the stream (RFC 6093 section 2): its reader misses what we read.
            return self._refuse(key, connection, segment, "sent urgent data first")
        return self._read(key, connection, segment)

    def _read(self, key: bytes, connection: _Connection, segment: Segment) -> Verdict:
        """Bytes of a peer that the inside host has answered: the greeting, as far as it is not complete."""
        data = segment.raw[segment.start :]
        at = connection.offset(segment.seq)
        known = len(connection.read)
        reading = connection.state is _State.READING
        # Behind a hole nothing passes while the greeting is incomplete, and in it no byte changes any more.
        if data and (not connection.agrees(at, data) if at <= known else reading):
            return self._drop()
        if reading and at + len(data) > known and data:
            read = connection.read + data[known - at :]
            greetings = {*connection.greetings, *self._host.expected(flow_id(key).server)}
            matches = match(read, greetings)
            if matches is False:
                return self._refuse(key, connection, segment, "did not say what was expected of it")
            connection.read = read[: max(map(length, greetings))]
            if matches:
                connection.state = _State.SATISFIED
        connection.end = max(connection.end, at + len(data) + bool(segment.flags & FIN))
        return ACCEPT

    def _call(self, key: bytes, connection: _Connection | None, segment: Segment, now: float) -> Verdict:
        """A SYN from outside: a new connection, or the same again."""
        if segment.flags & URG:
            return self._drop()
        undecided = connection is not None and connection.state in (_State.READING, _State.SATISFIED)
        if connection is None or not undecided:
            greetings = self._host.expected(flow_id(key).server)
            if not greetings:
                return self._drop()  # its pinhole has gone meanwhile
            self._waiting.pop(key, None)
            self._remember(key, _Connection(segment.seq, greetings, now))
        else:
            # Nobody but the inside host can tell whether this is a new connection: by its answer.
            connection.syn = segment.seq
        if segment.start < len(segment.raw):
            return Verdict(True, segment.rebuilt(segment.seq, segment.ack, b"", None).raw)
        return ACCEPT

    # --- from the inside host ---

    def _from_inside(self, key: bytes, connection: _Connection, segment: Segment) -> Verdict:
        if segment.flags & RST:
            self._decided(key, connection)
            return ACCEPT
        if not segment.flags & ACK:
            return ACCEPT
        if segment.flags & SYN:
            return self._answered(key, connection, segment)
        if connection.state is _State.RELEASED:
            return _RELEASE
        acknowledged = connection.offset(segment.ack)
        if connection.state is _State.SATISFIED and len(connection.read) <= acknowledged <= connection.end:
            connection.state = _State.RELEASED
            self._decided(key, connection)
            self._counters.peers_verified += 1
            return _RELEASE
        return ACCEPT

    def _answered(self, key: bytes, connection: _Connection, segment: Segment) -> Verdict:
        """The inside host's SYN/ACK: now it is certain where the peer's bytes begin."""
        first = wrap(connection.syn + 1)
        again = connection.state is not _State.CALLED and first == connection.base
        if segment.ack != first or again or connection.state is _State.REFUSED:
            return ACCEPT
        if key not in self._waiting:
            if len(self._waiting) >= self._limits.waiting:
                return self._drop()
            del self._others[key]
            self._waiting[key] = connection
        connection.begin(first)
        return ACCEPT

    # --- neither ---

    def _unknown(self, segment: Segment, now: float) -> Verdict:
        """A packet of a connection whose beginning nobody saw, or the first one of a new connection."""
        key, flags = segment.key, segment.flags
        if flags & RST:
            return ACCEPT
        if flags & SYN and not flags & ACK:
            return self._call(key, None, segment, now)
        from_inside = self._host.is_inside_host(flow_id(key).client.address)
        if now >= self._lenient_until:
            return ACCEPT if from_inside else self._refuse(key, None, segment, "is not known any more")
        if not from_inside:
            return ACCEPT
        if flags & SYN:
            # The SYN passed before a restart: this answer has its number, too.
            back = reverse(key)
            connection = _Connection(wrap(segment.ack - 1), self._host.expected(flow_id(back).server), now)
            if connection.greetings:
                self._remember(back, connection)
                return self._answered(back, connection, segment)
        # It speaks, so it is established. Released by the peer's own packet it would not need to be: a stray
        # ACK makes an entry in connection tracking that a later SYN with the same ports could use.
        self._counters.peers_passed += 1
        return _RELEASE

    def _refuse(self, key: bytes, connection: _Connection | None, segment: Segment, reason: str) -> Verdict:
        self._counters.peers_refused += 1
        self._host.refused(flow_id(key), reason)
        if connection is None:
            return self._reset(segment, segment.seq)
        connection.state = _State.REFUSED
        self._decided(key, connection)
        return self._reset(segment, connection.base + len(connection.read))

    def _reset(self, segment: Segment, seq: int) -> Verdict:
        """Reset the peer, and the inside host by what this packet becomes: conntrack has placed it already.

        seq  what the inside host expects next: RFC 5961 section 3.2 wants a reset at exactly this number
        """
        if not segment.flags & ACK:
            return self._drop()
        end = segment.seq + len(segment.raw) - segment.start + bool(segment.flags & FIN)
        self._host.reset(reverse(segment.key), segment.ack, end)
        return Verdict(True, bare_packet(segment.key, seq, segment.ack, RST | ACK))

    def _drop(self) -> Verdict:
        self._counters.peer_drops += 1
        return DROP

    def _find(self, key: bytes) -> _Connection | None:
        return self._waiting.get(key) or self._others.get(key)

    def _decided(self, key: bytes, connection: _Connection) -> None:
        """It need not be remembered at all costs any more."""
        self._waiting.pop(key, None)
        self._remember(key, connection)

    def _remember(self, key: bytes, connection: _Connection) -> None:
        self._others.pop(key, None)
        if len(self._others) >= self._limits.others:
            del self._others[next(iter(self._others))]
        self._others[key] = connection
