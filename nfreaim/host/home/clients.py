"""Clients: which hosts have a connection to which servers on the inside, asked seldom.

The larger the hash table of connection tracking, the longer a look through it takes: 24 ms with 262,144
buckets. Packets wait meanwhile, so looks are few, whatever a server asks for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from nfreaim.core.address import Endpoint
from nfreaim.host.home.own_connections import OwnConnection, OwnConnections

_TRUE_FOR_S: Final = 5.0  # a connection that was seen counts as long
_SPAN_S: Final = 10.0
_OF_ONE, _OF_ALL = 4, 16  # looks in a span, for one server and for all


class Clients:
    """*clock* tells the time."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._connections = OwnConnections()
        self._seen: dict[Endpoint, tuple[float, list[OwnConnection]]] = {}
        self._looks: deque[tuple[float, Endpoint]] = deque()

    def close(self) -> None:
        """Close the socket."""
        self._connections.close()

    def has(self, host: str, server: Endpoint, whole: bool) -> bool:
        """Whether *host* has a connection to *server*; with *whole*, one that was seen from its beginning.

        False also if there were too many looks lately. Raises BackendError.
        """
        if self._known(host, server, whole):
            return True
        now = self._clock()
        while self._looks and self._looks[0][0] < now - _SPAN_S:
            _, forgotten = self._looks.popleft()
            if all(other != forgotten for _, other in self._looks):
                self._seen.pop(forgotten, None)
        if len(self._looks) >= _OF_ALL or sum(other == server for _, other in self._looks) >= _OF_ONE:
            return False
        self._looks.append((now, server))
        self._seen[server] = now, self._connections.to(server)
        return self._known(host, server, whole)

    def _known(self, host: str, server: Endpoint, whole: bool) -> bool:
        seen, connections = self._seen.get(server, (0.0, []))
        if self._clock() > seen + _TRUE_FOR_S:
            return False
        return any(one.host == host and (one.whole or not whole) for one in connections)
