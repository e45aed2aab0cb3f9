"""QueueSets: which flows the kernel queues, in which queue, and who reads them.

Mirrors the kernel's sets in bounded memory. A refusal by the kernel costs speed or reach, never a connection.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Final, NamedTuple

from nfreaim.core.address import Endpoint, flow_id, reverse
from nfreaim.core.backend import Followed, QueueControl
from nfreaim.core.flow import Flow
from nfreaim.core.flow_table import FlowTable
from nfreaim.core.followed import RENEWED_AFTER_S, FollowedServers, Following, is_of_another_service
from nfreaim.core.helper import HelperFactory, HelperSpec, Refused
from nfreaim.errors import BackendError

log = logging.getLogger(__name__)

_MOST_FOLLOWED: Final = 8  # servers that the redirects of one flow name; 3 were recorded
# At most as many flows are let out of the queue between two calls of ``expire``: each costs one or two calls
# of the kernel, and any inside host can send packets that belong to no flow. Others stay in the queue until
# their next packet.
_MOST_OFFLOADS: Final = 1024
_DEMOTED_S: Final = 10.0  # for as long a noisy flow waits with the newcomers
_MOST_DEMOTED: Final = 1024
_MOST_LINES: Final = 10  # in the log about flows that do so at a time
# Known flows are renewed this long after the kernel's entry was made, a few in each call of ``expire``.
_RENEW_AFTER_S: Final = 1800.0
_MOST_RENEWALS: Final = 256


class Protocol(NamedTuple):
    """A protocol that is served: what is known of it, and the factory of its helpers."""

    spec: HelperSpec
    make: HelperFactory

    def given_to(self, flow: Flow) -> None:
        """*flow* is of this protocol."""
        flow.protocol = self.spec.name
        flow.resizable |= flow.inside in self.spec.resizes
        flow.attend()


class QueueSets:
    """Offloaded flows, which skip the queue, followed servers, queued whatever their port, and known flows.

    Packets of flows that the kernel's set does not know wait in queues of their own, behind the sessions'.

    helpers   by server port
    bound     at most as many flows are out of the queue
    followed  None: a table of its own; a worker has the main process's
    """

    def __init__(
        self,
        helpers: Mapping[int, HelperSpec],
        queue: QueueControl,
        bound: int,
        followed: Following | None = None,
    ) -> None:
        self._protocols = {spec.name: Protocol(spec, spec.load()) for spec in helpers.values()}
        self._by_port = {port: self._protocols[spec.name] for port, spec in helpers.items()}
        self.followed = FollowedServers(queue) if followed is None else followed
        self._queue = queue
        self._bound = bound
        self._offloaded: OrderedDict[bytes, None] = OrderedDict()
        self._room = _MOST_OFFLOADS
        self._known: OrderedDict[bytes, float] = OrderedDict()  # when told to the kernel, oldest first
        self._gone: OrderedDict[bytes, None] = OrderedDict()  # no longer known, and still in the kernel's set
        self._strays: set[bytes] = set()
        self._demoted: dict[bytes, float] = {}  # until when
        self._next_look = 0.0
        self._warned: set[str] = set()

    def protocol_of(self, key: bytes) -> Protocol | None:
        """The protocol of packets of *key* if they run from a client to a server that is read, else None.

        None, too, for packets from an endpoint to itself: nothing tells which way they run. A followed server
        is read by the protocol whose redirect named it, whatever its port.
        """
        if key == reverse(key):
            return None
        if len(self.followed):
            client, server = flow_id(key)
            name = self.followed.protocol(server, client.address)
            if name in self._protocols:
                return self._protocols[name]
        return self._by_port.get(_port(key))

    def named(self, name: str) -> Protocol | None:
        """The protocol of that name, if it is served."""
        return self._protocols.get(name)

    def serves_port(self, key: bytes, protocol: str) -> bool:
        """Whether flows of *key* are read by *protocol* because of their server's port."""
        found = self._by_port.get(_port(key))
        return found is not None and found.spec.name == protocol

    def know(self, key: bytes, now: float) -> None:
        """The flow of *key* is in the table: its packets go before those of newcomers.

        To be called while no packet of it can be on its way but the one that is at hand, before that has its
        verdict: packets of one flow in two queues may overtake each other.
        """
        self._gone.pop(key, None)
        self._known.pop(key, None)
        self._known[key] = now
        self._delete(2)
        try:
            self._queue.know(flow_id(key))
        except BackendError as error:
            self._warn("a flow waits with the newcomers", error)

    def forget(self, key: bytes) -> None:
        """The flow of *key* is no longer in the table. The kernel is told later, a few at once."""
        self._strays.discard(key)
        if self._known.pop(key, None) is not None:
            self._gone[key] = None

    def stray(self, key: bytes) -> None:
        """A packet of the flow *key*, which is in the table, came with the newcomers."""
        if len(self._strays) < _MOST_OFFLOADS:
            self._strays.add(key)

    def demote(self, key: bytes, now: float) -> None:
        """Let the flow of *key* wait with the newcomers for some seconds: it fills the sessions' queue."""
        if self._known.pop(key, None) is None or len(self._demoted) >= _MOST_DEMOTED:
            return
        self._demoted[key] = now + _DEMOTED_S
        level = logging.INFO if len(self._demoted) <= _MOST_LINES else logging.DEBUG
        log.log(level, "%s: too many packets that bring nothing: it waits with the newcomers", flow_id(key))
        try:
            self._queue.forget(flow_id(key))
        except BackendError as error:
            self._warn("a noisy flow stays with the sessions", error)

    def gather(self, now: float) -> bool:
        """No newcomer waits: let strays go with the sessions. Returns whether there were any.

        What came meanwhile has to be served before the sessions are.
        """
        if self._demoted:
            self._demoted = {key: until for key, until in self._demoted.items() if until > now}
        strays, self._strays = self._strays - self._demoted.keys(), set()
        for key in strays:
            self.know(key, now)
        return bool(strays)

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
        self._offloaded.move_to_end(key)
        try:
            self._queue.offload(flow_id(key))
        except BackendError as error:
            self._warn("a flow stays in the queue", error)

    def leave(self, key: bytes, from_inside: bool, flows: FlowTable) -> None:
        """A packet of *key* was queued, and no protocol is read there: let its connection skip the queue.

        The set needs to know who is the client. It is the inside end where a followed server was forgotten;
        if that entry did not help, or has ended, either end is tried.
        """
        client = key if from_inside else reverse(key)
        again = client in self._offloaded
        self.offload(client, flows)
        if again:
            self.offload(reverse(client), flows)

    def undo_offload(self, key: bytes) -> None:
        """A new connection has the endpoints of one that was let out of the queue: queue it again."""
        if key in self._offloaded:
            del self._offloaded[key]
            try:
                self._queue.undo_offload(flow_id(key))
            except BackendError as error:
                self._warn("a flow does not come back to the queue", error)

    def follow(self, server: Endpoint, flow: Flow, others: Set[Endpoint], now: float) -> bool:
        """Read the connections of *flow*'s client to *server* from now on, by the protocol of *flow*.

        others  those that were followed for this flow before

        False if nothing is needed: the rules queue that port for this protocol anyway. Raises Refused.
        """
        protocol = self._protocols.get(flow.protocol)
        by_port = self._by_port.get(server.port)
        if protocol is None or by_port is protocol:
            return False
        if by_port is not None:
            raise Refused(f"port {server.port} is read for {by_port.spec.name}")
        if is_of_another_service(server.port):
            raise Refused(f"port {server.port} is another service's; if it is not, add it to ports")
        if server not in others and len(others) >= _MOST_FOLLOWED:
            raise Refused(f"{_MOST_FOLLOWED} other servers on this connection")
        try:
            self.followed.follow(Followed(server, flow.id.client.address, flow.protocol), now)
        except BackendError as error:
            self._warn("a redirect is not followed", error)
        return True

    def used(self, flow: Flow, now: float) -> None:
        """*flow* is in use: as long as sessions last, their server stays followed."""
        client, server = flow.id
        self.followed.used(server, client.address, now)

    def expire(self, now: float, flows: Iterable[Flow]) -> None:
        """Keep the servers of living *flows*; forget those that none uses.

        The kernel's entries end by themselves; one that ended under a living flow would leave gaps in it.
        """
        self._room = _MOST_OFFLOADS
        self._renew(now)
        self._delete(_MOST_RENEWALS)
        if len(self.followed) and now >= self._next_look:
            self._next_look = now + RENEWED_AFTER_S
            for client, server in {flow.id for flow in flows}:
                self.followed.used(server, client.address, now)
        self.followed.expire(now)

    def _renew(self, now: float) -> None:
        """Let the kernel's entries of known flows begin anew. One that ended would only be made again."""
        for _ in range(min(_MOST_RENEWALS, len(self._known))):
            key, told = next(iter(self._known.items()))
            if now - told < _RENEW_AFTER_S:
                break
            self.know(key, now)

    def _delete(self, most: int) -> None:
        """Let the kernel forget up to *most* flows that are gone."""
        for _ in range(min(most, len(self._gone))):
            key, _none = self._gone.popitem(last=False)
            try:
                self._queue.forget(flow_id(key))
            except BackendError as error:
                self._warn("an ended flow stays in the set of known ones", error)

    def _same_set_entry(self, key: bytes) -> Iterator[bytes]:
        """Keys of the other flows that the kernel's set cannot tell from this one: it has no server port."""
        client, server = flow_id(key)
        ports = {*self._by_port, *self.followed.ports(server.address, client.address)}
        return (key[:10] + port.to_bytes(2, "big") for port in ports - {server.port})

    def _warn(self, what: str, error: BackendError) -> None:
        # Once: the next such flow will fail just the same.
        level = logging.DEBUG if what in self._warned else logging.WARNING
        self._warned.add(what)
        log.log(level, "%s: %s", what, error)


def _port(key: bytes) -> int:
    return int.from_bytes(key[10:12], "big")
