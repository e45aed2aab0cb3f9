"""PeerGate: lets a connection through a pinhole go on only if its first bytes from outside match a greeting.

The gate sees the packets of each connection that decide something, from the inside host's SYN/ACK until it
is decided: the rules let the peer's SYN and ACK pass if they have no data (rules/nfreaim-rules). The verdict
that releases a connection takes it out of the queue, so the gate sees none of its later packets. The gate has
no I/O, no clock and no protocol: the helper of the service provides the greetings.

The bytes that were checked are the bytes that are delivered. Bytes are read in order from the number that the
inside host's SYN/ACK confirms. A segment is dropped if it has other bytes at an offset that was read, or lies
behind a gap. Data are removed from a SYN, and its sender repeats them. A connection is released only after
the inside host has acknowledged the greeting: a segment that passed the gate may not have reached the host
(an old timestamp, a short time to live), and the peer could send another one in its place later.
Layouts: TCP RFC 9293 sections 3.1 and 3.10; urgent data RFC 6093.

A stranger may fill no table to another's harm. A connection counts once its peer has answered the SYN/ACK,
which connection tracking announces (``completed``) or data with the right acknowledgement number show; until
then it is one integer (answered.py). What counts has fair shares (waiting.py), and what gives way is reset at
both ends, because a connection that is only forgotten would be refused when it speaks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from nfreaim.core.address import Endpoint, FlowId, destination, flow_id, key_of, reverse, source
from nfreaim.core.counters import Counters
from nfreaim.core.firewall.answered import Answer, AnsweredCalls
from nfreaim.core.firewall.waiting import Connection, State, Waiting
from nfreaim.core.firewall.waiting import GateLimits as GateLimits
from nfreaim.core.greeting import Greeting, length, match
from nfreaim.core.tcp.segment import ACK, FIN, RST, SYN, URG, Segment, bare_packet, distance, wrap
from nfreaim.core.verdict import ACCEPT, DROP, Verdict

_RELEASE: Final = Verdict(True, release=True)

# The inside host may have sent so many bytes before the peer's first ones, which acknowledge them. Who forges
# a peer's address does not know the number: one in 4,096 guesses is taken here, and connection tracking lets
# one in 60,000 pass.
_SENT_FIRST: Final = 1 << 20


class GateHost(Protocol):
    """The parts of the host that the gate needs. No call raises."""

    def expected(self, inside: Endpoint) -> Sequence[Greeting]:
        """The greetings that a connection to *inside* may begin with; empty if no pinhole leads there."""

    def is_inside_host(self, address: str) -> bool:
        """Whether *address* is in one of the inside networks."""

    def reset(self, key: bytes, seq: int, ack: int) -> None:
        """Send a reset with the addresses and ports of *key* (see Segment), towards outside or inside."""

    def refused(self, connection: FlowId, reason: str) -> None:
        """The gate resets *connection*, whose client is the peer, at both ends. Called once."""

    def claimed(self, connection: FlowId, now: float) -> None:
        """*connection*, whose client is the peer, passed verification while one of its ends finished it.

        Connection tracking announces all others. Of this one it would tell as of any connection that ends.
        """


class PeerGate:
    """Decides about connections through pinholes by their first bytes."""

    def __init__(
        self, host: GateHost, counters: Counters, now: float, limits: GateLimits | None = None
    ) -> None:
        self._host = host
        self._counters = counters
        self._limits = limits or GateLimits()
        self._answered = AnsweredCalls(self._limits.answered)
        self._waiting = Waiting(self._limits)
        self._others: dict[bytes, Connection] = {}
        self._lenient_until = now + self._limits.lenient

    def __len__(self) -> int:
        return len(self._answered) + len(self._waiting) + len(self._others)

    def process(self, raw: bytes, now: float) -> Verdict:
        """The verdict for *raw*, an IPv4 packet of an undecided pinhole connection, in either direction.

        The packet may be cut behind its first 4000 bytes, because the queue hands out no more.
        """
        if len(raw) < int.from_bytes(raw[2:4], "big"):
            raw = raw[:2] + len(raw).to_bytes(2, "big") + raw[4:]
        segment = Segment.parse(raw)
        if segment is None:
            self._counters.peer_drops += 1  # connection tracking would not count it to a connection
            return DROP
        key = segment.key
        if (connection := self._find(key)) is not None:
            connection.seen = now
            return self._from_outside(key, connection, segment)
        back = reverse(key)
        if (connection := self._find(back)) is not None:
            connection.seen = now
            return self._from_inside(back, connection, segment)
        if key in self._answered:
            return self._first(key, segment, now)
        if back in self._answered:
            return self._answering(back, segment, now)
        return self._unknown(segment, now)

    def completed(self, peer: Endpoint, inside: Endpoint, now: float) -> None:
        """Connection tracking says that *peer* has answered the SYN/ACK of *inside*."""
        key = key_of(FlowId(peer, inside))
        if (answer := self._answered.find(key)) is not None:
            connection = self._enter(key, answer, now)
            if not connection.greetings:
                self._give_way([key], "came when its pinhole was closed")

    def closed(self, inside: Endpoint) -> None:
        """The last pinhole to *inside* is closed: reset what waits there."""
        place = key_of(FlowId(inside, inside))
        self._give_way(self._waiting.at(place[:4], place[8:10]), "still waited when its pinhole was closed")

    def expire(self, now: float) -> None:
        """Reset connections that say nothing, and forget those that are idle for too long.

        The latter are refused at their next packet. Call it about every second.
        """
        self._answered.expire(now)
        self._give_way(list(self._waiting.too_slow(now)), "said too little while others waited")
        idle = now - self._limits.idle
        for key in self._waiting.idle_since(idle):
            self._waiting.leave(key)
        for key in [key for key, one in self._others.items() if one.seen <= idle]:
            del self._others[key]

    def unwatched(self, now: float) -> None:
        """Packets may have passed unseen until *now*, so unknown connections pass for a while."""
        self._lenient_until = now + self._limits.lenient

    # --- from the peer ---

    def _first(self, key: bytes, segment: Segment, now: float) -> Verdict:
        """A packet of the peer, from which nothing but a SYN has been seen."""
        answer = self._answered.find(key)
        if segment.flags & RST:
            return ACCEPT
        if segment.flags & SYN:
            return self._call(key, None, segment, now)
        if answer is None:
            return self._drop()  # the inside host has not answered yet
        if not (segment.flags & ACK and 0 <= distance(wrap(answer.isn + 1), segment.ack) < _SENT_FIRST):
            return self._drop()
        connection = self._enter(key, answer, now)
        if not connection.greetings:
            return self._refuse(key, connection, segment, "came when its pinhole was closed")
        return self._from_outside(key, connection, segment)

    def _from_outside(self, key: bytes, connection: Connection, segment: Segment) -> Verdict:
        if segment.flags & RST:
            self._decided(key, connection)
            return ACCEPT
        if segment.flags & SYN:
            return self._call(key, connection, segment, connection.seen)
        if connection.state is State.RELEASED:
            # The packet was queued before the release took effect, or is a stray one with the same ports. It
            # is not released: that would mark the new entry that a stray packet makes in connection tracking,
            # and a later SYN would use that entry.
            return ACCEPT
        if connection.state is State.REFUSED:
            return self._reset(segment, connection.answer.base + len(connection.read))
        if segment.flags & URG:
            # TCP takes an urgent byte out of the stream (RFC 6093 section 2): the host would read other
            # bytes.
            return self._refuse(key, connection, segment, "sent urgent data first")
        return self._read(key, connection, segment)

    def _read(self, key: bytes, connection: Connection, segment: Segment) -> Verdict:
        """Read the bytes of a peer that the inside host has answered, until the greeting is complete."""
        data = segment.raw[segment.start :]
        at = connection.offset(segment.seq)
        known = len(connection.read)
        reading = connection.state is State.READING
        # Bytes that were read must not change, and no bytes pass behind a gap while the greeting is
        # incomplete.
        if data and (not connection.agrees(at, data) if at <= known else reading):
            return self._drop()
        if reading and at + len(data) > known and data:
            read = connection.read + data[known - at :]
            greetings = connection.greetings
            matches = match(read, greetings)
            if not matches and (others := self._host.expected(destination(key))) != greetings:
                greetings = [*greetings, *others]
                matches = match(read, greetings)
            if matches is False:
                return self._refuse(key, connection, segment, "did not say what was expected of it")
            connection.read = read[: max([length(one) for one in greetings])]
            if matches:
                connection.state = State.SATISFIED
        connection.over |= bool(segment.flags & FIN)
        connection.end = max(connection.end, at + len(data) + bool(segment.flags & FIN))
        return ACCEPT

    def _call(self, key: bytes, connection: Connection | None, segment: Segment, now: float) -> Verdict:
        """A SYN from outside. Only the answer of the inside host shows whether it begins a new connection."""
        if segment.flags & URG:
            return self._drop()
        if connection is None or not connection.undecided:
            if not self._host.expected(destination(key)):
                return self._drop()  # the pinhole was closed meanwhile
            if connection is None:
                self._forgotten(self._answered.call(key), now)
        if segment.start < len(segment.raw):
            return Verdict(True, segment.rebuilt(segment.seq, segment.ack, b"", None).raw)
        return ACCEPT

    # --- from the inside host ---

    def _answering(self, key: bytes, segment: Segment, now: float) -> Verdict:
        """A packet of an inside host whose peer has said nothing."""
        if segment.flags & RST or not segment.flags & ACK:
            return ACCEPT
        if segment.flags & SYN:
            return self._answer(key, None, segment, now)
        answer = self._answered.find(key)
        if answer is not None and segment.seq == wrap(answer.isn + 1) and segment.size:
            # A host that sends data has had the peer's ACK. Its bare ACKs may answer other packets.
            return self._from_inside(key, self._enter(key, answer, now), segment)
        return ACCEPT

    def _from_inside(self, key: bytes, connection: Connection, segment: Segment) -> Verdict:
        if segment.flags & RST:
            self._decided(key, connection)
            return ACCEPT
        if not segment.flags & ACK:
            return ACCEPT
        if segment.flags & SYN:
            return self._answer(key, connection, segment, connection.seen)
        if connection.state is State.RELEASED:
            return _RELEASE
        acknowledged = connection.offset(segment.ack)
        end = segment.seq + segment.size + bool(segment.flags & FIN)
        connection.heard(segment.seq, end, segment.ack)
        if (
            connection.state is State.SATISFIED
            and connection.confirmed
            and len(connection.read) <= acknowledged <= connection.end
        ):
            connection.state = State.RELEASED
            self._decided(key, connection)
            self._counters.peers_verified += 1
            if connection.over or segment.flags & FIN:
                self._host.claimed(flow_id(key), connection.seen)
            return _RELEASE
        return ACCEPT

    def _answer(self, key: bytes, connection: Connection | None, segment: Segment, now: float) -> Verdict:
        """The inside host's SYN/ACK: it shows the sequence number of the peer's first byte."""
        answer = Answer(segment.ack, segment.seq)
        if connection is not None and connection.undecided and connection.answer == answer:
            return ACCEPT  # repeated
        if not self._host.expected(destination(key)):
            return self._drop()  # the pinhole was closed meanwhile: the connection shall not be completed
        return self._answered_call(key, answer, now)

    def _answered_call(self, key: bytes, answer: Answer, now: float) -> Verdict:
        self._waiting.leave(key)
        self._others.pop(key, None)
        self._forgotten(self._answered.answer(key, answer), now)
        return ACCEPT

    # --- neither ---

    def _unknown(self, segment: Segment, now: float) -> Verdict:
        """A packet of an unknown connection: its beginning was not seen, or this is its first packet."""
        key, flags = segment.key, segment.flags
        if flags & RST:
            return ACCEPT
        if flags & SYN and not flags & ACK:
            # One of the inside host's own says nothing: it opens the connection from both sides.
            if self._host.is_inside_host(source(key).address):
                return ACCEPT
            return self._call(key, None, segment, now)
        if flags & SYN and self._host.expected(source(key)):
            # A pinhole leads to its source, so it is the answer to a call that passed without data.
            return self._answered_call(reverse(key), Answer(segment.ack, segment.seq), now)
        from_inside = self._host.is_inside_host(source(key).address)
        if from_inside and flags & SYN:
            return self._drop()  # the pinhole was closed meanwhile: the connection shall not be completed
        if now >= self._lenient_until:
            return ACCEPT if from_inside else self._refuse(key, None, segment, "is not known any more")
        if not from_inside:
            return ACCEPT
        # The inside host speaks, so the connection is established. A peer's packet would not prove that: a
        # stray ACK makes an entry in connection tracking that a later SYN with the same ports could use.
        self._counters.peers_passed += 1
        return _RELEASE

    def _enter(self, key: bytes, answer: Answer, now: float) -> Connection:
        """The peer has answered the SYN/ACK: from now on the connection counts."""
        self._answered.forget(key)
        connection = Connection(answer, self._host.expected(destination(key)), now)
        loser = self._waiting.enter(key, connection)
        if loser is not None:
            self._give_way([loser], "gave way: too many connections wait")
        return connection

    def _give_way(self, keys: Iterable[bytes], reason: str) -> None:
        """Reset both ends of connections that wait."""
        for key in keys:
            connection = self._waiting.leave(key)
            if connection is None:
                continue
            self._counters.peers_gave_way += 1
            self._host.refused(flow_id(key), reason)
            connection.state = State.REFUSED
            self._remember(key, connection)
            taken = wrap(connection.answer.base + connection.taken)
            self._host.reset(key, taken, connection.sent)
            self._host.reset(reverse(key), connection.sent, wrap(connection.answer.base + connection.end))

    def _refuse(self, key: bytes, connection: Connection | None, segment: Segment, reason: str) -> Verdict:
        self._counters.peers_refused += 1
        self._host.refused(flow_id(key), reason)
        if connection is None:
            return self._reset(segment, segment.seq)
        connection.state = State.REFUSED
        self._decided(key, connection)
        return self._reset(segment, connection.answer.base + len(connection.read))

    def _reset(self, segment: Segment, seq: int) -> Verdict:
        """Reset the peer by a packet of ours, and the inside host by turning *segment* into a reset.

        *segment* is used because connection tracking has translated it already.

        seq  the number that the inside host expects next: RFC 5961 section 3.2 wants a reset to have exactly
             it
        """
        if not segment.flags & ACK:
            return self._drop()
        end = segment.seq + len(segment.raw) - segment.start + bool(segment.flags & FIN)
        self._host.reset(reverse(segment.key), segment.ack, end)
        return Verdict(True, bare_packet(segment.key, seq, segment.ack, RST | ACK))

    def _drop(self) -> Verdict:
        self._counters.peer_drops += 1
        return DROP

    def _forgotten(self, count: int, now: float) -> None:
        """So many connections were forgotten because of a flood.

        If one of them is completed, its packets are those of an unknown connection. So these no longer pass.
        """
        if count:
            self._counters.evicted_half_open += count
            self._lenient_until = min(self._lenient_until, now)

    def _find(self, key: bytes) -> Connection | None:
        return self._waiting.get(key) or self._others.get(key)

    def _decided(self, key: bytes, connection: Connection) -> None:
        """The connection is decided: move it to the table whose oldest entry may be forgotten."""
        self._waiting.leave(key)
        self._remember(key, connection)

    def _remember(self, key: bytes, connection: Connection) -> None:
        self._others.pop(key, None)
        if len(self._others) >= self._limits.others:
            del self._others[next(iter(self._others))]
        self._others[key] = connection
