"""DnatRules: which of them have their rule in the nat table, and in which bucket.

A rule is made when the first pinhole needs it, or ahead, many at once, because that replaces the whole
table: milliseconds where an entry of a set takes microseconds. It is kept for a while after the last pinhole.
May not touch the set of pinholes, and knows no rule: those are in host.netfilter.iptables.
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

_KEEP: Final = 3600.0  # seconds that an unused destination keeps its rule
_IDLE: Final = 1024  # so many are kept unused at most
_BATCH: Final = 16  # so many rules are removed in a second, some milliseconds each in a large table


class DnatRules:
    """The destinations of this network namespace, as far as we made them or found pinholes to them.

    buckets  those that have a rule, or are to get one, with the numbers of their buckets
    missing  those of them that may have none
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

    def ready(self, destination: Endpoint) -> int:
        """See that the destination has its rule; the number of its bucket. Raises BackendError."""
        self._know(destination)
        if destination in self.missing or self._nat.version() != self._version:
            self._work({})
        return self.buckets[destination]

    def prepare(self, destination: Endpoint) -> None:
        """Let it have its rule soon, unless too many are kept unused already."""
        if destination in self.buckets or len(self._idle) < _IDLE:
            self._know(destination)

    def found(self, destination: Endpoint, bucket: int) -> None:
        """The kernel has a pinhole there that names this bucket; the rule may be lost."""
        if destination not in self.buckets:
            self._assign(destination, bucket)

    def use(self, destination: Endpoint) -> None:
        """One more pinhole leads there."""
        self._users[destination] += 1
        self._idle.pop(destination, None)

    def release(self, destination: Endpoint) -> None:
        """One less."""
        self._users[destination] -= 1
        if self._users[destination] <= 0:
            del self._users[destination]
            self._idle[destination] = self._clock()

    def upkeep(self) -> None:
        """Make what is missing, remove what has long been unused, repair what somebody else broke."""
        oldest = next(iter(self._idle.values()), self._clock())
        try:
            due = self._clock() - oldest > _KEEP or len(self._idle) > _IDLE
            if self.missing or due or self._nat.version() != self._version:
                self._work(self._old())
            self._troubled = False
        except BackendError as error:
            log.log(logging.DEBUG if self._troubled else logging.WARNING, "pinholes: %s", error)
            self._troubled = True

    def _know(self, destination: Endpoint) -> None:
        if destination not in self.buckets:
            self._assign(destination, next(it for it in count() if self._sizes[it] < PER_BUCKET))
        if destination not in self._users:
            self._idle.pop(destination, None)  # in the order of the times
            self._idle[destination] = self._clock()

    def _assign(self, destination: Endpoint, bucket: int) -> None:
        self.buckets[destination] = bucket
        self._sizes[bucket] += 1
        self.missing.add(destination)

    def _old(self) -> dict[Endpoint, int]:
        """Those that have been unused for long, or for longest where too many are."""
        now, spare = self._clock(), len(self._idle) - _IDLE
        old: dict[Endpoint, int] = {}
        for destination, since in self._idle.items():
            if len(old) == _BATCH or (now - since <= _KEEP and len(old) >= spare):
                break
            old[destination] = self.buckets[destination]
        return old

    def _work(self, old: Mapping[Endpoint, int]) -> None:
        """Make what is missing, remove *old*. Raises BackendError."""
        wanted = {one: bucket for one, bucket in self.buckets.items() if one not in old}
        unwanted = {one: bucket for one, bucket in old.items() if one not in self.missing}
        self._version = self._nat.lead(wanted, self.missing - old.keys(), unwanted, self._version)
        self.missing.clear()
        for destination, bucket in old.items():
            del self.buckets[destination], self._idle[destination]
            self._sizes[bucket] -= 1
