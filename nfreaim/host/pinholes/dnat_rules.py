"""DnatRules: which destinations of pinholes have their rule in the nat table, and in which bucket.

A new rule replaces the whole table: milliseconds, where an entry of a set takes microseconds. So rules are
made ahead where that is possible, many at once, and kept for a while after the last pinhole. What the rules
look like is in host.netfilter.iptables.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import count
from typing import Final

from nfreaim.core.address import Endpoint
from nfreaim.errors import BackendError
from nfreaim.host.netfilter.iptables import NatTable

log = logging.getLogger("nfreaim")

PER_BUCKET: Final = 32
"""Rules in a bucket: about the root of what may be, for a connection also passes the jumps to the others."""

_KEEP_S: Final = 3600.0  # for which an unused destination keeps its rule
_MOST_IDLE: Final = 1024  # destinations
_BATCH: Final = 16  # rules removed at once, some milliseconds each in a large table


class DnatRules:
    """The destinations that we made, or that an earlier daemon's pinholes lead to.

    buckets  those that have a rule or are to get one, with the numbers of their buckets
    missing  those of them that may have no rule
    """

    def __init__(self, nat: NatTable, clock: Callable[[], float]) -> None:
        self.buckets: dict[Endpoint, int] = {}
        self.missing: set[Endpoint] = set()
        self._nat = nat
        self._clock = clock
        self._version = b""
        self._sizes: Counter[int] = Counter()
        self._users: Counter[Endpoint] = Counter()
        self._idle: dict[Endpoint, float] = {}
        self._troubled = False

    def make_ready(self, destination: Endpoint) -> int:
        """Make the destination's rule if it is missing; returns its bucket's number. Raises BackendError."""
        self._know(destination)
        if destination in self.missing or self._nat.version() != self._version:
            self._update({})
        return self.buckets[destination]

    def prepare(self, destination: Endpoint) -> None:
        """Have its rule made soon, unless too many unused ones are kept already."""
        if destination in self.buckets or len(self._idle) < _MOST_IDLE:
            self._know(destination)

    def found(self, destination: Endpoint, bucket: int) -> None:
        """A pinhole in the kernel leads there by this bucket; the rule itself may be lost."""
        if destination not in self.buckets:
            self._assign(destination, bucket)

    def use(self, destination: Endpoint) -> None:
        """One more pinhole leads there."""
        self._users[destination] += 1
        self._idle.pop(destination, None)

    def release(self, destination: Endpoint) -> None:
        """One pinhole less leads there."""
        self._users[destination] -= 1
        if self._users[destination] <= 0:
            del self._users[destination]
            self._idle[destination] = self._clock()

    def upkeep(self) -> None:
        """Make missing rules, remove long unused ones, and repair what another program changed."""
        oldest = next(iter(self._idle.values()), self._clock())
        try:
            due = self._clock() - oldest > _KEEP_S or len(self._idle) > _MOST_IDLE
            if self.missing or due or self._nat.version() != self._version:
                self._update(self._old())
            self._troubled = False
        except BackendError as error:
            log.log(logging.DEBUG if self._troubled else logging.WARNING, "pinholes: %s", error)
            self._troubled = True

    def _know(self, destination: Endpoint) -> None:
        if destination not in self.buckets:
            self._assign(destination, next(it for it in count() if self._sizes[it] < PER_BUCKET))
        if destination not in self._users:
            self._idle.pop(destination, None)  # the order is that of the times
            self._idle[destination] = self._clock()

    def _assign(self, destination: Endpoint, bucket: int) -> None:
        self.buckets[destination] = bucket
        self._sizes[bucket] += 1
        self.missing.add(destination)

    def _old(self) -> dict[Endpoint, int]:
        """Destinations to remove: unused for long, or the longest unused ones if there are too many."""
        now, spare = self._clock(), len(self._idle) - _MOST_IDLE
        old: dict[Endpoint, int] = {}
        for destination, since in self._idle.items():
            if len(old) == _BATCH or (now - since <= _KEEP_S and len(old) >= spare):
                break
            old[destination] = self.buckets[destination]
        return old

    def _update(self, old: Mapping[Endpoint, int]) -> None:
        """Make what is missing, remove *old*. Raises BackendError."""
        wanted = {one: bucket for one, bucket in self.buckets.items() if one not in old}
        unwanted = {one: bucket for one, bucket in old.items() if one not in self.missing}
        self._version = self._nat.set_destinations(wanted, self.missing - old.keys(), unwanted, self._version)
        self.missing.clear()
        for destination, bucket in old.items():
            del self.buckets[destination], self._idle[destination]
            self._sizes[bucket] -= 1
