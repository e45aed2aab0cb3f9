"""QueueSets: which flows the kernel queues, beyond the fixed ports of the rules, and who reads them.

Mirrors the kernel's sets in bounded memory. A refusal by the kernel costs speed or reach, never a connection.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from nfreaim.core.address import Endpoint, flow_id, reverse
from nfreaim.core.backend import Followed, News, QueueControl
from nfreaim.core.flow import Flow
from nfreaim.core.flow_table import FlowTable
from nfreaim.core.helper import HelperFactory, HelperSpec
from nfreaim.errors import BackendError

log = logging.getLogger(__name__)

_MOST_FOLLOWED: Final = 1024
_FOLLOW_FOR_S: Final = 7200.0  # after the entry was refreshed; the kernel keeps it as long
_REFRESH_AFTER_S: Final = 600.0
_LOOK_EVERY_S: Final = 60.0  # between looks at all flows for the servers that are in use
# At most as many flows are let out of the queue between two calls of ``expire``: each costs one or two calls
# of the kernel, and any inside host can send packets that belong to no flow. Others stay in the queue until
# their next packet.
_MOST_OFFLOADS: Final = 1024


class Protocol(NamedTuple):
    """A protocol that is served: what is known of it, and the factory of its helpers."""

    spec: HelperSpec
    make: HelperFactory

    def given_to(self, flow: Flow) -> None:
        """*flow* is of this protocol."""
        flow.protocol = self.spec.name
        flow.resizable |= flow.inside in self.spec.resizes


class _Watched(NamedTuple):
    protocol: Protocol
    since: float
    """When the kernel's entry was made or refreshed."""


class QueueSets:
    """Offloaded flows, which skip the queue, and followed servers, queued whatever their port.

    helpers  by server port
    bound    at most as many flows are out of the queue
    news     asked before a packet counts as no flow's: another process may have read the client's redirect
    """

    def __init__(
        self,
        helpers: Mapping[int, HelperSpec],
        queue: QueueControl,
        bound: int,
        news: News | None = None,
    ) -> None:
        self._protocols = {spec.name: Protocol(spec, spec.load()) for spec in helpers.values()}
        self._by_port = {port: self._protocols[spec.name] for port, spec in helpers.items()}
        self._news = news
        self._queue = queue
        self._bound = bound
        self._offloaded: OrderedDict[bytes, None] = OrderedDict()
        self._room = _MOST_OFFLOADS
        self._next_look = 0.0
        # By server and client, oldest first.
        self._followed: dict[tuple[Endpoint, str], _Watched] = {}
        self._warned: set[str] = set()

    def protocol_of(self, key: bytes) -> Protocol | None:
        """The protocol of packets of *key* if they run from a client to a server that is read, else None.

        None, too, for packets from an endpoint to itself: nothing tells which way they run. A followed server
        is read by the protocol whose redirect named it, whatever its port.
        """
        if key == reverse(key):
            return None
        if self._news is not None:
            for followed, since in self._news():
                self._adopt(followed, since)
        if self._followed:
            client, server = flow_id(key)
            watched = self._followed.get((server, client.address))
            if watched is not None:
                return watched.protocol
        return self._by_port.get(_port(key))

    def named(self, name: str) -> Protocol | None:
        """The protocol of that name, if it is served."""
        return self._protocols.get(name)

    def serves_port(self, key: bytes, protocol: str) -> bool:
        """Whether flows of *key* are read by *protocol* because of their server's port."""
        found = self._by_port.get(_port(key))
        return found is not None and found.spec.name == protocol

    def adopt(self, followed: Followed, now: float) -> None:
        """An earlier daemon followed this server: go on, as if its client had been redirected again."""
        self._adopt(followed, now - _REFRESH_AFTER_S)  # expire() tells the kernel

    def _adopt(self, followed: Followed, since: float) -> None:
        protocol = self._protocols.get(followed.protocol)
        if protocol is not None:
            self._remember((followed.server, followed.client), _Watched(protocol, since))

    def offload(self, key: bytes, flows: FlowTable) -> None:
        """Let the flow skip the queue from now on, unless that would let one of *flows* skip it, too.

        At the bound the oldest one comes back.
        """
        if self._room <= 0 or any(other in flows.streams for other in self._same_set_entry(key)):
            return  # one forged packet is enough to get here
        self._room -= 1
        if len(self._offloaded) >= self._bound:
            # Were it only forgotten, its ends could not begin a new connection for an hour.
            self.undo_offload(next(iter(self._offloaded)))
        self._offloaded[key] = None
        try:
            self._queue.offload(flow_id(key))
        except BackendError as error:
            self._warn("a flow stays in the queue", error)

    def undo_offload(self, key: bytes) -> None:
        """A new connection has the endpoints of one that was let out of the queue: queue it again."""
        if key in self._offloaded:
            del self._offloaded[key]
            try:
                self._queue.undo_offload(flow_id(key))
            except BackendError as error:
                self._warn("a flow does not come back to the queue", error)

    def follow(self, server: Endpoint, flow: Flow, now: float) -> None:
        """Read the connections of *flow*'s client to *server* from now on, by the protocol of *flow*.

        Nothing is needed where the rules queue that port for this protocol anyway.
        """
        protocol = self._protocols.get(flow.protocol)
        if protocol is None or self._by_port.get(server.port) is protocol:
            return
        client = flow.id.client.address
        pair = (server, client)
        known = self._followed.pop(pair, None)
        if known is not None and known.protocol is protocol and now - known.since < _REFRESH_AFTER_S:
            self._followed[pair] = known
            return
        self._remember(pair, _Watched(protocol, now))
        try:
            self._queue.queue_server(Followed(server, client, flow.protocol))
        except BackendError as error:
            self._warn("a redirect is not followed", error)

    def used(self, flow: Flow, now: float) -> None:
        """*flow* is in use: as long as sessions last, their server stays followed."""
        client, server = flow.id
        if (server, client.address) in self._followed:
            self.follow(server, flow, now)

    def expire(self, now: float, flows: Iterable[Flow]) -> None:
        """Refresh the servers of living *flows*; forget those that none has used for long.

        The kernel's entries end by themselves; one that ended under a living flow would leave gaps in it.
        """
        self._room = _MOST_OFFLOADS
        if not self._followed or now < self._next_look:
            return
        self._next_look = now + _LOOK_EVERY_S
        busy = {(flow.id.server, flow.id.client.address): flow for flow in flows}
        for pair, known in list(self._followed.items()):
            if pair in busy:
                self.follow(pair[0], busy[pair], now)
            elif now - known.since > _FOLLOW_FOR_S:
                del self._followed[pair]

    def _remember(self, pair: tuple[Endpoint, str], watched: _Watched) -> None:
        self._followed[pair] = watched
        if len(self._followed) > _MOST_FOLLOWED:
            del self._followed[next(iter(self._followed))]

    def _same_set_entry(self, key: bytes) -> Iterator[bytes]:
        """Keys of the other flows that the kernel's set cannot tell from this one: it has no server port."""
        client, server = flow_id(key)
        ports = {
            *self._by_port,
            *(
                other.port
                for other, whose in self._followed
                if other.address == server.address and whose == client.address
            ),
        }
        return (key[:10] + port.to_bytes(2, "big") for port in ports - {server.port})

    def _warn(self, what: str, error: BackendError) -> None:
        # Once: the next such flow will fail just the same.
        level = logging.DEBUG if what in self._warned else logging.WARNING
        self._warned.add(what)
        log.log(level, "%s: %s", what, error)


def _port(key: bytes) -> int:
    return int.from_bytes(key[10:12], "big")
