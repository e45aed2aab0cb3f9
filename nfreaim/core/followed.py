"""FollowedServers: the servers that clients were redirected to, each for its client, bounded and for minutes.

The table is the kernel's set: what is added here is added there, what ends or gives way here is deleted there
in the same call. There is one table in a daemon; workers ask the main process for it (host.workers.remote).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Set
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from nfreaim.core.address import Endpoint
from nfreaim.core.backend import Followed, QueueControl
from nfreaim.core.helper import Refused
from nfreaim.errors import BackendError

FOLLOWED_FOR_S: Final = 170.0
"""After a redirect, or after the last look that found a connection there. The kernel's entry ends 10 s later
by itself, for the case that no daemon runs then."""

RENEWED_AFTER_S: Final = 60.0
"""How old an entry has to be for another call of the kernel."""

_PRIVILEGED: Final = 1024
# Services that a redirect never leads to, beside those below 1024, because it would have their connections
# read: proxies and VPNs, databases, file servers, remote desktops and shells, telephony, chat, mail, and the
# usual second ports of web servers.
_SERVICES: Final = frozenset(
    {1080, 1194, 1433, 1434, 1521, 1701, 1723, 1812, 1863, 1883, 1900, 1935, 2049, 2082, 2083, 2086, 2087}
    | {2095, 2096, 2222, 2375, 2376, 3000, 3074, 3128, 3260, 3268, 3269, 3306, 3389, 3478, 3690, 4500}
    | {5000, 5001, 5050, 5060, 5061, 5222, 5223, 5228, 5269, 5280, 5349, 5353, 5432, 5671, 5672, 5900, 5901}
    | {5984, 5985, 5986, 6379, 6443, 6667, 6697, 7070, 8000, 8008, 8009, 8080, 8081, 8083, 8086, 8088, 8096}
    | {8123, 8181, 8333, 8443, 8530, 8531, 8883, 8888, 9000, 9001, 9090, 9091, 9092, 9100, 9200, 9418, 9443}
    | {10000, 11211, 25565, 27017, 32400, 51820}
)


def is_of_another_service(port: int) -> bool:
    """Whether *port* is so well known for something else that no redirect is believed about it."""
    return port < _PRIVILEGED or port in _SERVICES


class FollowLimits(NamedTuple):
    """At most as many servers are followed: for one client (an address), and in all."""

    per_client: int = 16
    total: int = 1024


class Following(Protocol):
    """The table of followed servers, as a reader of packets uses it."""

    def __len__(self) -> int:
        """How many servers are followed."""

    def protocol(self, server: Endpoint, client: str) -> str | None:
        """The protocol whose redirect named *server* to *client*, or None."""

    def ports(self, server: str, client: str) -> Set[int]:
        """The ports of the servers at that address that are followed for *client*."""

    def follow(self, followed: Followed, now: float) -> None:
        """A redirect named this server to its client. Raises Refused, BackendError."""

    def used(self, server: Endpoint, client: str, now: float) -> None:
        """A connection of the client to this server lives: keep the entry, if any. Raises nothing."""

    def adopt(self, followed: Followed, seconds: float, now: float) -> None:
        """An earlier daemon followed this server, for *seconds* more; 0: a connection there goes on.

        The limits hold for it, too. Raises nothing.
        """

    def expire(self, now: float) -> None:
        """End what is due. Call it every few seconds."""


@dataclass(slots=True)
class _Entry:
    """*until*: when it ends. *claimed*: the client has opened a connection there."""

    protocol: str
    until: float
    claimed: bool = False


class FollowedServers:
    """The one table (Following), which carries out its changes by *queue*.

    changes  increases whenever an entry comes or goes
    """

    def __init__(self, queue: QueueControl, limits: FollowLimits | None = None) -> None:
        self.changes = 0
        self._limits = limits or FollowLimits()
        self._queue = queue
        self._entries: dict[tuple[Endpoint, str], _Entry] = {}  # those that were renewed last at the end
        self._clients: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._entries)

    def protocol(self, server: Endpoint, client: str) -> str | None:
        entry = self._entries.get((server, client))
        return None if entry is None else entry.protocol

    def ports(self, server: str, client: str) -> Set[int]:
        return {other.port for other, whose in self._entries if (other.address, whose) == (server, client)}

    def all(self) -> list[Followed]:
        """All entries; the longest unused first."""
        return [Followed(server, client, each.protocol) for (server, client), each in self._entries.items()]

    def follow(self, followed: Followed, now: float) -> None:
        self._follow(followed, now, now + FOLLOWED_FOR_S)

    def used(self, server: Endpoint, client: str, now: float) -> None:
        entry = self._entries.get((server, client))
        if entry is not None:
            entry.claimed = True
            with suppress(BackendError):  # the entry ends in time, and so does this one
                self._renew(Followed(server, client, entry.protocol), entry, now)

    def adopt(self, followed: Followed, seconds: float, now: float) -> None:
        until = now + min(seconds or FOLLOWED_FOR_S, FOLLOWED_FOR_S)
        try:
            self._follow(followed, now, until)
        except (Refused, BackendError):
            self._delete((followed.server, followed.client), followed.protocol)
            return
        entry = self._entries[followed.server, followed.client]
        entry.claimed |= not seconds

    def expire(self, now: float) -> None:
        for pair, entry in list(self._entries.items()):
            if entry.until <= now:
                self._drop(pair)

    def _follow(self, followed: Followed, now: float, until: float) -> None:
        pair = followed.server, followed.client
        known = self._entries.get(pair)
        if known is not None and known.protocol == followed.protocol:
            self._renew(followed, known, now)
            return
        if known is None:
            self._make_room(followed.client)
        self._queue.queue_server(followed)
        self._clients[followed.client] += known is None
        self._entries[pair] = _Entry(followed.protocol, until)
        self.changes += 1

    def _renew(self, followed: Followed, entry: _Entry, now: float) -> None:
        if entry.until - now > FOLLOWED_FOR_S - RENEWED_AFTER_S:
            return
        self._queue.queue_server(followed)
        entry.until = now + FOLLOWED_FOR_S
        pair = followed.server, followed.client
        self._entries[pair] = self._entries.pop(pair)

    def _make_room(self, client: str) -> None:
        """Let unclaimed entries give way: the client's own; at the limit of all, those of who has most.

        Raises Refused if all are claimed.
        """
        if self._clients[client] >= self._limits.per_client:
            own = (pair for pair, entry in self._entries.items() if pair[1] == client and not entry.claimed)
            if (oldest := next(own, None)) is None:
                raise Refused(f"{self._limits.per_client} servers that this client is connected to")
            self._drop(oldest)
        if len(self._entries) >= self._limits.total:
            unclaimed = [pair for pair, entry in self._entries.items() if not entry.claimed]
            if not unclaimed:
                raise Refused(f"{self._limits.total} servers in all that clients are connected to")
            self._drop(max(unclaimed, key=lambda pair: self._clients[pair[1]]))  # of equals the oldest

    def _drop(self, pair: tuple[Endpoint, str]) -> None:
        entry = self._entries.pop(pair)
        self._clients[pair[1]] -= 1
        if not self._clients[pair[1]]:
            del self._clients[pair[1]]
        self.changes += 1
        self._delete(pair, entry.protocol)

    def _delete(self, pair: tuple[Endpoint, str], protocol: str) -> None:
        with suppress(BackendError):  # then it ends by its time-out
            self._queue.unqueue_server(Followed(*pair, protocol))


def adopt_all(table: Following, found: Iterable[tuple[Followed, float]], now: float) -> None:
    """Take over what an earlier daemon left, with the seconds that each is left; the least gives way."""
    for followed, seconds in sorted(found, key=lambda each: each[1]):
        table.adopt(followed, seconds, now)
