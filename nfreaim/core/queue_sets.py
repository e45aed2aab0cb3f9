"""QueueSets: which flows the kernel hands us, beyond the rules' fixed ports, as far as the engine decides it.

Mirrors the kernel's sets in bounded memory. A refusal by the kernel costs speed or reach, never a connection.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from nfreaim.core.address import Endpoint, flow_id, reverse
from nfreaim.core.backend import Kernel
from nfreaim.core.flow import Flow
from nfreaim.core.flow_table import FlowTable
from nfreaim.core.helper import HelperFactory
from nfreaim.errors import BackendError

log = logging.getLogger(__name__)

_FOLLOWED: Final = 1024  # servers that clients were redirected to
_FOLLOW_FOR: Final = 7200.0  # seconds since the entry was refreshed, as long as the kernel keeps it
_REFRESH: Final = 600.0
_LOOK: Final = 60.0  # between looks at all flows for the servers that are in use
# Flows let out of the queue between two calls of ``expire``: each costs one or two calls of the kernel, and
# anybody inside can send what belongs to no flow. More stay in the queue until their next packet.
_OFFLOADS: Final = 1024

News = Callable[[], Iterable[tuple[Endpoint, float]]]
"""Servers that processes of this daemon follow, and when each was named last; nothing if nothing has changed.
Never raises."""


class _Followed(NamedTuple):
    factory: HelperFactory
    since: float
    """When the kernel's entry was made or refreshed."""


class QueueSets:
    """Offloaded flows, which skip the queue, and followed servers, queued whatever their port.

    helpers  by server port
    bound    so many flows may be out of the queue
    news     asked before packets count as nobody's: a client's redirect may have been read by another process
    """

    def __init__(
        self, helpers: Mapping[int, HelperFactory], kernel: Kernel, bound: int, news: News | None = None
    ) -> None:
        self.helpers = helpers
        self._news = news
        self._kernel = kernel
        self._bound = bound
        self._offloaded: OrderedDict[bytes, None] = OrderedDict()
        self._room = _OFFLOADS
        self._next_look = 0.0
        self._followed: dict[Endpoint, _Followed] = {}
        self._warned: set[str] = set()

    def helper_for(self, key: bytes) -> HelperFactory | None:
        """The helper for packets of *key* if they run from a client to a server that is read, else None.

        Nor for packets from an endpoint to itself: which way they run, nobody can tell.
        """
        if key == reverse(key):
            return None
        port = int.from_bytes(key[10:12], "big")
        found = self.helpers.get(port)
        if found is None and self._news is not None:
            for server, since in self._news():
                self._adopt(server, since)
        if found is None and self._followed:
            followed = self._followed.get(flow_id(key).server)
            found = followed.factory if followed else None
        return found

    def serves(self, key: bytes) -> bool:
        """Whether flows of *key* are read because of their server's port."""
        return int.from_bytes(key[10:12], "big") in self.helpers

    def adopt(self, server: Endpoint, now: float) -> HelperFactory | None:
        """An earlier daemon followed *server*: go on, as if a client had been redirected to it again."""
        return self._adopt(server, now - _REFRESH)  # expire() tells the kernel

    def _adopt(self, server: Endpoint, since: float) -> HelperFactory | None:
        factory = next(iter(self.helpers.values()), None)
        if factory is not None:
            self._remember(server, _Followed(factory, since))
        return factory

    def offload(self, key: bytes, flows: FlowTable) -> None:
        """Let the flow skip the queue from now on, unless that would let one of *flows* skip it, too.

        At the bound the oldest one comes back.
        """
        if self._room <= 0 or any(twin in flows.streams for twin in self._twins(key)):
            return  # one forged packet is enough to get here
        self._room -= 1
        if len(self._offloaded) >= self._bound:
            # Were it only forgotten, its ends could not begin a new connection for an hour.
            self.reclaim(next(iter(self._offloaded)))
        self._offloaded[key] = None
        try:
            self._kernel.offload(flow_id(key))
        except BackendError as error:
            self._warn("a flow stays in the queue", error)

    def reclaim(self, key: bytes) -> None:
        """A new connection has the endpoints of one that was let out of the queue: have it back."""
        if key in self._offloaded:
            del self._offloaded[key]
            try:
                self._kernel.reclaim(flow_id(key))
            except BackendError as error:
                self._warn("a flow does not come back to the queue", error)

    def follow(self, server: Endpoint, key: bytes, now: float) -> None:
        """Read flows to *server* from now on, as those of *key* are, unless its port is read anyway."""
        factory = self.helper_for(key)
        if server.port in self.helpers or factory is None:
            return
        known = self._followed.pop(server, None)
        if known is not None and now - known.since < _REFRESH:
            self._followed[server] = known
            return
        self._remember(server, _Followed(factory, now))
        try:
            self._kernel.divert(server)
        except BackendError as error:
            self._warn("a redirect is not followed", error)

    def used(self, key: bytes, now: float) -> None:
        """A flow with this key is in use: as long as sessions last, their server stays followed."""
        server = flow_id(key).server
        if server in self._followed:
            self.follow(server, key, now)

    def expire(self, now: float, flows: Iterable[Flow]) -> None:
        """Refresh the servers of living *flows*; forget those that none has used for long.

        The kernel's entries end by themselves, and one that did under a living flow would leave holes in it.
        """
        self._room = _OFFLOADS
        if not self._followed or now < self._next_look:
            return
        self._next_look = now + _LOOK
        busy = {flow.owner.server: flow.key for flow in flows}
        for server, known in list(self._followed.items()):
            if server in busy:
                self.follow(server, busy[server], now)
            elif now - known.since > _FOLLOW_FOR:
                del self._followed[server]

    def _remember(self, server: Endpoint, followed: _Followed) -> None:
        self._followed[server] = followed
        if len(self._followed) > _FOLLOWED:
            del self._followed[next(iter(self._followed))]

    def _twins(self, key: bytes) -> Iterator[bytes]:
        """Keys of the other flows that the kernel's set cannot tell from this one: it has no server port."""
        server = flow_id(key).server
        ports = {*self.helpers, *(other.port for other in self._followed if other.address == server.address)}
        return (key[:10] + port.to_bytes(2, "big") for port in ports - {server.port})

    def _warn(self, what: str, error: BackendError) -> None:
        # Once: the next such flow will fail just the same.
        level = logging.DEBUG if what in self._warned else logging.WARNING
        self._warned.add(what)
        log.log(level, "%s: %s", what, error)
