"""Copying: takes captured packets and gives copies without secrets, in the same order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from nfreaim.core.address import Direction, Endpoint, FlowId, flow_id, reverse
from nfreaim.core.helper import HelperSpec
from nfreaim.core.redaction import Pseudonyms, filled
from nfreaim.core.tcp.segment import ACK, SYN, Segment
from nfreaim.recording.flow_copy import ControlCopy, Copy, PeerCopy, Positions
from nfreaim.recording.mute_nat import MuteNat

_PATIENCE_S: Final = 10.0  # that a packet waits until it is known what of it may be copied
_MOST_WAITING: Final = 8 << 20  # bytes of packets that wait
_MOST_ENDPOINTS: Final = 256  # where peers are expected, the latest ones
_MOST_FOLLOWED: Final = 64  # servers that a redirect named
_EARLY_S: Final = 5.0  # a peer's SYN may be read before the message that announces where it goes
_MOST_EARLY: Final = 1024
_MOST_FLOWS: Final = 4096


class Packet(NamedTuple):
    """One captured packet: when and on which interface (a number), and its bytes from the IPv4 header on.

    The bytes may end before the packet does, whose header has its length.
    """

    time: float
    interface: int
    raw: bytes


class _Flow:
    """A connection that is copied.

    key        of its packets in the original direction
    undecided  its packets of which it is not known yet what may be copied
    """

    __slots__ = ("copy", "key", "positions", "undecided")

    def __init__(self, key: bytes, copy: Copy) -> None:
        self.key, self.copy, self.positions = key, copy, Positions()
        self.undecided: list[_Waiting] = []

    def decide(self) -> None:
        """Make the copies of those that are known by now."""
        for one in self.undecided:
            one.decide()
        self.undecided = [one for one in self.undecided if one.made is None]


class _Waiting:
    """A packet on its way; *made*: its copy, once that is known."""

    __slots__ = ("direction", "flow", "made", "offset", "packet", "segment")

    def __init__(self, packet: Packet, segment: Segment, flow: _Flow, direction: Direction) -> None:
        self.packet, self.segment, self.flow, self.direction = packet, segment, flow, direction
        self.offset = 0
        self.made: bytes | None = None

    def decide(self) -> None:
        """Make the copy, if its bytes are known by now."""
        if self.made is None:
            segment, copy = self.segment, self.flow.copy
            data = copy.copied(self.direction, self.offset, segment.size)
            if data is not None:
                made = segment.overwritten(data)
                # A file that is sent to a peer would fill the disk with what says nothing.
                empty = isinstance(copy, PeerCopy) and data == filled(data)
                self.made = made.raw[: made.start] if empty else made.raw


class Copying:
    """Copies of the packets of control connections, and of connections to endpoints that they announce.

    servers  the protocol that is read at each port
    key      what pseudonyms are made with; random, and kept nowhere
    """

    def __init__(self, servers: dict[int, HelperSpec], key: bytes) -> None:
        self._servers, self._names = servers, Pseudonyms(key)
        self._specs = {spec.name: spec for spec in servers.values()}
        self._flows: dict[bytes, _Flow] = {}
        self._peers: dict[Endpoint, tuple[HelperSpec, str]] = {}
        self._followed: dict[Endpoint, HelperSpec] = {}
        self._queue: deque[_Waiting] = deque()
        self._size = 0
        self._early: deque[tuple[Packet, Segment]] = deque(maxlen=_MOST_EARLY)
        self.grew: Callable[[], None] = _nothing
        for spec in self._specs.values():  # what they import takes longer than peers wait
            spec.load()
            spec.load_redactor()

    @property
    def ports(self) -> set[int]:
        """The ports of servers and announced endpoints, beside which only SYNs are of interest."""
        return {*self._servers, *(end.port for end in self._peers), *(end.port for end in self._followed)}

    @property
    def controls(self) -> Iterator[ControlCopy]:
        """The control connections that were read last."""
        return (flow.copy for flow in self._flows.values() if isinstance(flow.copy, ControlCopy))

    def control(self, packet: Packet) -> ControlCopy | None:
        """The control connection that *packet* belongs to."""
        segment = _segment(packet)
        flow = self._flows.get(segment.key) or self._flows.get(reverse(segment.key)) if segment else None
        return flow.copy if flow is not None and isinstance(flow.copy, ControlCopy) else None

    def expect(self, endpoint: Endpoint, protocol: str, service: str) -> None:
        """Peers may connect to *endpoint*, which a message or the daemon names."""
        spec = self._specs.get(protocol)
        if spec is None or self._peers.get(endpoint) == (spec, service):
            return
        self._peers.pop(endpoint, None)
        self._peers[endpoint] = spec, service
        if len(self._peers) > _MOST_ENDPOINTS:
            del self._peers[next(iter(self._peers))]
        early, self._early = list(self._early), deque(maxlen=_MOST_EARLY)
        for packet, segment in early:
            self._take(packet, segment)
        self.grew()

    def packet(self, packet: Packet) -> Iterator[Packet]:
        """Take a packet; yields the copies that have become known, in order."""
        segment = _segment(packet)
        if segment is not None:
            self._take(packet, segment)
        return self._ready(packet.time)

    def tick(self, now: float) -> Iterator[Packet]:
        """It is *now*, on the packets' clock: packets that have waited long enough are copied blank."""
        return self._ready(now)

    def close(self) -> Iterator[Packet]:
        """No packet follows."""
        return self._ready(float("inf"))

    def _take(self, packet: Packet, segment: Segment) -> None:
        flow = self._flow_of(segment)
        if flow is None:
            if segment.flags & SYN:
                self._early.append((packet, segment))
                while packet.time - self._early[0][0].time > _EARLY_S:
                    self._early.popleft()
            return
        direction = Direction.ORIGINAL if segment.key == flow.key else Direction.REPLY
        waiting = _Waiting(packet, segment, flow, direction)
        if segment.flags & SYN:
            flow.positions.begin(direction, segment.seq + 1)
            waiting.made = segment.overwritten(filled(segment.raw[segment.start :])).raw
        elif not segment.size:
            waiting.made = segment.overwritten(b"").raw
        self._queue.append(waiting)
        self._size += len(segment.raw)
        if waiting.made is None:
            waiting.offset = flow.positions.offset(direction, segment.seq)
            flow.copy.add(direction, waiting.offset, segment.raw[segment.start :])
            flow.undecided.append(waiting)
            flow.decide()

    def _flow_of(self, segment: Segment) -> _Flow | None:
        """The connection of *segment*, which may begin with it; None if nobody wants it."""
        key = segment.key
        known = self._flows.get(key) or self._flows.get(reverse(key))
        if segment.flags & SYN and not segment.flags & ACK:
            return self._begin(key, midstream=False)
        if known is not None:
            return known
        flow = flow_id(key)
        towards = flow.server in self._peers or self._spec(flow.server, flow.client) is not None
        return self._begin(key if towards else reverse(key), midstream=not segment.flags & SYN)

    def _spec(self, server: Endpoint, client: Endpoint) -> HelperSpec | None:
        if server.port in self._servers and client.port in self._servers and client.port < server.port:
            return None
        return self._followed.get(server) or self._servers.get(server.port)

    def _begin(self, key: bytes, midstream: bool) -> _Flow | None:
        flow = flow_id(key)
        known = self._flows.get(key)
        if known is not None and not midstream:
            known.copy.give_up()
            known.decide()
        expected, spec = self._peers.get(flow.server), self._spec(flow.server, flow.client)
        copy: Copy
        if expected is not None:
            about, service = expected
            greetings = about.services[service].greetings if service in about.services else ()
            copy = PeerCopy(greetings, midstream)
        elif spec is not None:
            copy = self._control(flow, spec, midstream)
        else:
            return None
        made = _Flow(key, copy)
        self._flows.pop(key, None)
        self._flows[key] = made
        if len(self._flows) > _MOST_FLOWS:
            self._flows.pop(next(iter(self._flows))).copy.give_up()  # what waits of it is blank in time
        return made

    def _control(self, flow: FlowId, spec: HelperSpec, midstream: bool) -> ControlCopy:
        def follow(server: Endpoint) -> None:
            self._followed[server] = spec
            if len(self._followed) > _MOST_FOLLOWED:
                del self._followed[next(iter(self._followed))]
            self.grew()

        def announced(endpoint: Endpoint, service: str) -> None:
            if endpoint not in flow:
                self.expect(endpoint, spec.name, service)

        return ControlCopy(flow, spec, self._names, MuteNat(flow, announced, follow), midstream)

    def _ready(self, now: float) -> Iterator[Packet]:
        queue = self._queue
        while queue:
            head = queue[0]
            if head.made is None:
                if now - head.packet.time < _PATIENCE_S and self._size < _MOST_WAITING:
                    return
                head.flow.copy.give_up()
                head.flow.decide()
            queue.popleft()
            self._size -= len(head.segment.raw)
            assert head.made is not None
            yield head.packet._replace(raw=head.made)


def copies(packets: Iterable[Packet], servers: dict[int, HelperSpec], key: bytes) -> Iterator[Packet]:
    """Copies of all *packets* that belong to control connections, or to peers that these announce."""
    copying = Copying(servers, key)
    for packet in packets:
        yield from copying.packet(packet)
    yield from copying.close()


def _segment(packet: Packet) -> Segment | None:
    length = int.from_bytes(packet.raw[2:4], "big")
    return Segment.parse(packet.raw[:length].ljust(length, b"\0")) if len(packet.raw) >= 40 else None


def _nothing() -> None:
    pass
