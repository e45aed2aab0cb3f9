"""Waiting: connections through pinholes that are established and undecided, in fair shares.

A newcomer is never turned away. Where a share is exceeded another connection gives way, and it is one of
those who have most: of the peer address that has most at the same inside endpoint, or, if there are too many
in all, of the inside host that has most. So connections to one host cost another host nothing, and a peer
with one connection stays as long as any stranger has two.
"""

from __future__ import annotations

from collections.abc import Iterator, KeysView, Sequence, ValuesView
from dataclasses import dataclass, field
from enum import Enum, auto

from nfreaim.core.firewall.answered import Answer
from nfreaim.core.greeting import Greeting
from nfreaim.core.tcp.segment import distance, wrap


@dataclass(frozen=True, slots=True)
class GateLimits:
    """The bounds of the gate's memory. Times are in seconds.

    waiting       at most as many connections are established and undecided; another one's entry makes the
                  inside host that has most give one up
    per_endpoint  at most as many of them lead to one inside endpoint
    per_peer      at most as many of these come from one address
    answered      at most as many connections are remembered whose peer has not answered a SYN/ACK
    others        at most as many connections are remembered that are decided
    silent        after this time a connection that has said nothing is reset, if a later one waits at the
                  same endpoint or it cannot say anything any more
    partial       the same for a connection that has said a part of a greeting
    idle          a connection without a packet is forgotten after this time
    lenient       for this time after a start packets of unknown connections pass, because these connections
                  were established while no gate watched
    """

    waiting: int = 16384
    per_endpoint: int = 64
    per_peer: int = 16
    answered: int = 65536
    others: int = 4096
    silent: float = 5.0
    partial: float = 30.0
    idle: float = 3600.0
    lenient: float = 60.0


class State(Enum):
    READING = auto()
    SATISFIED = auto()  # the greeting matches, and is not acknowledged yet
    RELEASED = auto()
    REFUSED = auto()


class Connection:
    """One connection.

    answer     the inside host's SYN/ACK
    read       the first bytes, up to the length of the longest greeting
    end        number of bytes that have passed; a FIN counts as one
    greetings  the greetings expected when it was established
    over       the peer sent a FIN
    since      when it was established; *seen*: when its last packet came
    confirmed  the inside host has sent the byte behind its SYN/ACK: it is really this connection. A host that
               answers with SYN cookies may have another one in mind, whose first byte has another number
    sent       number behind the inside host's last byte
    taken      number of bytes that the inside host has acknowledged
    """

    __slots__ = (
        "answer",
        "confirmed",
        "end",
        "greetings",
        "over",
        "read",
        "seen",
        "sent",
        "since",
        "state",
        "taken",
    )

    def __init__(self, answer: Answer, greetings: Sequence[Greeting], now: float) -> None:
        self.answer = answer
        self.greetings = greetings
        self.state = State.READING
        self.read = b""
        self.end = self.taken = 0
        self.over = self.confirmed = False
        self.sent = wrap(answer.isn + 1)
        self.since = self.seen = now

    @property
    def undecided(self) -> bool:
        """Whether it is neither released nor refused."""
        return self.state in (State.READING, State.SATISFIED)

    def offset(self, number: int) -> int:
        """The offset from the peer's first byte of a sequence or acknowledgement number."""
        return distance(self.answer.base, number)

    def agrees(self, at: int, data: bytes) -> bool:
        """Whether *data* at offset *at* equals the bytes that were read, as far as the two overlap."""
        if at < 0:
            return at == -1 and len(data) == 1  # a keep-alive with the number of the SYN
        known = self.read[at : at + len(data)]
        return data[: len(known)] == known

    def heard(self, seq: int, end: int, ack: int) -> None:
        """The inside host sent the bytes from *seq* to *end*, and acknowledged up to *ack*."""
        if seq == wrap(self.answer.isn + 1):
            self.confirmed = True
        if distance(self.sent, end) > 0:
            self.sent = wrap(end)
        self.taken = max(self.taken, min(self.offset(ack), self.end))


Connections = dict[bytes, Connection]
"""By the key of the peer's packets, the oldest first."""


@dataclass(slots=True)
class _Door:
    """The connections to one inside endpoint, by peer address."""

    count: int = 0
    peers: dict[bytes, Connections] = field(default_factory=dict)


@dataclass(slots=True)
class _Host:
    """The connections to one inside host, by port."""

    count: int = 0
    doors: dict[bytes, _Door] = field(default_factory=dict)


class Waiting:
    """The undecided connections, by the key of the peer's packets (see Segment)."""

    def __init__(self, limits: GateLimits) -> None:
        self._limits = limits
        self._all: Connections = {}
        self._hosts: dict[bytes, _Host] = {}

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, key: bytes) -> bool:
        return key in self._all

    def keys(self) -> KeysView[bytes]:
        """The keys of all."""
        return self._all.keys()

    def values(self) -> ValuesView[Connection]:
        """All connections."""
        return self._all.values()

    def get(self, key: bytes) -> Connection | None:
        """The connection with this key, or None."""
        return self._all.get(key)

    def enter(self, key: bytes, connection: Connection) -> bytes | None:
        """One more connection. Returns the key of the one that has to give way, or None; see ``leave``."""
        host = self._hosts.get(key[4:8])
        if host is None:
            host = self._hosts[key[4:8]] = _Host()
        door = host.doors.get(key[10:12])
        if door is None:
            door = host.doors[key[10:12]] = _Door()
        own = door.peers.setdefault(key[:4], {})
        own[key] = self._all[key] = connection
        host.count += 1
        door.count += 1
        limits = self._limits
        if len(own) > limits.per_peer:
            return _first(own, key)
        if door.count > limits.per_endpoint:
            return _first(max(door.peers.values(), key=len), key)
        if len(self._all) > limits.waiting:
            most = max(self._hosts.values(), key=lambda each: each.count)
            fullest = max(most.doors.values(), key=lambda each: each.count)
            return _first(max(fullest.peers.values(), key=len), key)
        return None

    def leave(self, key: bytes) -> Connection | None:
        """Take the connection out; None if it is not there."""
        connection = self._all.pop(key, None)
        if connection is None:
            return None
        host = self._hosts[key[4:8]]
        door = host.doors[key[10:12]]
        host.count -= 1
        door.count -= 1
        own = door.peers[key[:4]]
        del own[key]
        if not own:
            del door.peers[key[:4]]
        if not door.count:
            del host.doors[key[10:12]]
        if not host.count:
            del self._hosts[key[4:8]]
        return connection

    def at(self, address: bytes, port: bytes) -> list[bytes]:
        """The keys of the connections to one inside endpoint."""
        host = self._hosts.get(address)
        door = None if host is None else host.doors.get(port)
        return [] if door is None else [key for peer in door.peers.values() for key in peer]

    def idle_since(self, time: float) -> list[bytes]:
        """The keys of those without a packet since *time*."""
        return [key for key, one in self._all.items() if one.seen <= time]

    def too_slow(self, now: float) -> Iterator[bytes]:
        """The keys of those that have said too little for too long, see GateLimits."""
        for door in [door for host in self._hosts.values() for door in host.doors.values()]:
            ones = [(key, one) for peer in door.peers.values() for key, one in peer.items()]
            latest, _ = max(ones, key=lambda each: each[1].since)
            for key, one in ones:
                patience = self._limits.partial if one.read else self._limits.silent
                slow = one.state is State.READING and now - one.since >= patience
                if slow and (key != latest or one.over):
                    yield key


def _first(own: Connections, newcomer: bytes) -> bytes:
    """Which of the connections of one peer gives way: the oldest without a byte, else the oldest."""
    others = [key for key in own if key != newcomer] or [newcomer]
    return next((key for key in others if not own[key].read), others[0])
