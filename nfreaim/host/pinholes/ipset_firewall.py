"""IpsetFirewall: pinholes as entries of the set nfreaim_pin, which the rules of the nat table read.

Opening, closing or narrowing a pinhole changes the set, which takes a few microseconds however many pinholes
are open. Only the first pinhole of a destination replaces the nat table. The order is always: rule of the
destination, set entry, verdict.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import count
from typing import Final

from nfreaim.core.address import Endpoint
from nfreaim.core.firewall.pinhole import Pinhole
from nfreaim.core.firewall.policy import Forward
from nfreaim.errors import BackendError
from nfreaim.host.netfilter.ipset import PinEntry, PinSet, pin_data, pin_destination
from nfreaim.host.netfilter.iptables import NatTable
from nfreaim.host.netfilter.names import PIN_SET
from nfreaim.host.pinholes import pin_record
from nfreaim.host.pinholes.kernel_firewall import KernelFirewall, end_in, joined
from nfreaim.marks import DEFAULT, Marks

log = logging.getLogger("nfreaim")

_EVERYBODY: Final = (("0.0.0.0", 1), ("128.0.0.0", 1))  # a set of the kernel cannot hold a /0

# At most this many rules in a bucket: about the root of the most destinations, because a new connection
# passes one bucket and the jumps to all buckets.
_PER_BUCKET: Final = 32

_KEEP_S: Final = 3600.0  # that an unused destination keeps its rule
_MOST_IDLE: Final = 1024  # at most as many unused destinations keep their rules
_BATCH: Final = 16  # at most as many rules removed at once; each takes milliseconds in a large table


class IpsetFirewall(KernelFirewall):
    """See KernelFirewall."""

    def __init__(self, clock: Callable[[], float], marks: Marks = DEFAULT) -> None:
        super().__init__(clock, marks)
        self._set = PinSet(PIN_SET)
        self._nat = NatTable(marks)
        self._destinations = _Destinations(self._nat, clock)
        self._destination_of: dict[Endpoint, Endpoint] = {}

    def close_sockets(self) -> None:
        super().close_sockets()
        self._set.close()
        self._nat.close()

    # --- core.firewall.pinhole.Firewall ---

    def open(self, pinhole: Pinhole, earlier: Pinhole | None) -> None:
        self.foreign_marks.require()
        destination = _destination(pinhole)
        data = pin_data(destination, self._destinations.make_ready(destination))
        now = self._clock()
        wanted = self._entries(pinhole, now, data)
        old = [] if earlier is None else self._entries(earlier, now, data)
        kept = {entry.network for entry in wanted}
        try:
            self._set.add(wanted)
            for entry in old:
                if entry.network not in kept:
                    self._set.delete(entry)
        except BackendError:
            with suppress(BackendError):
                for entry in wanted:
                    self._set.delete(entry)
                if old:
                    self._set.add(old)
            raise
        self._leases.written(pinhole, now)
        self._use(pinhole.outside, destination)

    def close(self, pinhole: Pinhole) -> None:
        self._leases.gone(pinhole.outside)
        for entry in self._entries(pinhole, self._clock()):
            self._set.delete(entry)
        destination = self._destination_of.pop(pinhole.outside, None)
        if destination is not None:
            self._destinations.release(destination)

    def list(self) -> list[Pinhole]:
        found: list[Pinhole] = []
        for entry in self._set.entries():
            peer = entry.network if entry.length == 32 else ""  # a pinhole for everybody has two entries
            pinhole = pin_record.read(entry.comment, entry.outside, peer, entry.verify)
            if pinhole is not None:
                found.append(pinhole)
                destination, bucket = pin_destination(entry.data)
                self._destinations.found(destination, bucket)
                self._use(entry.outside, destination)
        return joined(found)

    def prepare(self, host: str) -> None:
        self._destinations.prepare(Endpoint(host, 0))

    def upkeep(self) -> None:
        self._destinations.upkeep()

    # --- start and stop ---

    def behind(self, outside: Endpoint) -> Endpoint | None:
        found = self._destination_of.get(outside)
        return None if found is None else Endpoint(found.address, found.port or outside.port)

    def set_forwards(self, forwards: Sequence[Forward]) -> None:
        self._nat.set_forwards(forwards)

    def forwards(self) -> Sequence[Forward]:
        return self._nat.forwards()

    def clear(self) -> None:
        """Take the daemon's rules out of the nat table; a pinhole that is still open then leads nowhere.

        Raises BackendError.
        """
        self._nat.set_forwards(())
        self._nat.clear()

    # --- KernelFirewall ---

    def _write_again(self, due: Sequence[Pinhole], now: float) -> set[Endpoint]:
        entries = [entry for pinhole in due for entry in self._entries(pinhole, now, self._data(pinhole))]
        return {entry.outside for entry in self._set.renew(entries)}

    def _ends(self) -> Mapping[Endpoint, float]:
        now = self._clock()
        return {it.outside: end_in(it.seconds, now) for it in self._set.entries()}

    def _use(self, outside: Endpoint, destination: Endpoint) -> None:
        if outside not in self._destination_of:  # a pinhole never changes its inside endpoint
            self._destination_of[outside] = destination
            self._destinations.use(destination)

    def _data(self, pinhole: Pinhole) -> int:
        """The data of its entries, whose destination is known."""
        destination = self._destination_of[pinhole.outside]
        return pin_data(destination, self._destinations.buckets[destination])

    def _entries(self, pinhole: Pinhole, now: float, data: int = 0) -> Sequence[PinEntry]:
        """The pinhole's entries, as they are written now: one for each peer, or two for everybody."""
        seconds = self._leases.seconds(pinhole, now)
        networks = [(peer, 32) for peer in pinhole.peers] or _EVERYBODY
        comment = pin_record.written(pinhole, with_inside=True)
        return [
            PinEntry(pinhole.outside, network, length, seconds, data, verify=pinhole.verify, comment=comment)
            for network, length in networks
        ]


class _Destinations:
    """The destinations of pinholes that have a rule in the nat table, and their buckets.

    A destination is known from its first pinhole on, whether this daemon opened that or an earlier one. A new
    rule replaces the whole table, which takes milliseconds where a set entry takes microseconds. So rules are
    made ahead where possible, many at once, and kept for a while after the last pinhole.

    buckets  destinations that have a rule or are to get one, with the numbers of their buckets
    missing  destinations of *buckets* whose rule may be missing
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
        """Make the destination's rule if it is missing. Returns its bucket's number. Raises BackendError."""
        self._know(destination)
        if destination in self.missing or self._nat.version() != self._version:
            self._update({})
        return self.buckets[destination]

    def prepare(self, destination: Endpoint) -> None:
        """Have the destination's rule made soon, unless too many unused rules are kept already."""
        if destination in self.buckets or len(self._idle) < _MOST_IDLE:
            self._know(destination)

    def found(self, destination: Endpoint, bucket: int) -> None:
        """A pinhole in the kernel leads to *destination* by this bucket; the rule may be missing."""
        if destination not in self.buckets:
            self._assign(destination, bucket)

    def use(self, destination: Endpoint) -> None:
        """One more pinhole leads to *destination*."""
        self._users[destination] += 1
        self._idle.pop(destination, None)

    def release(self, destination: Endpoint) -> None:
        """One pinhole less leads to *destination*."""
        self._users[destination] -= 1
        if self._users[destination] <= 0:
            del self._users[destination]
            self._idle[destination] = self._clock()

    def upkeep(self) -> None:
        """Make missing rules, remove those unused for long, and repair changes by other programs."""
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
            self._assign(destination, next(it for it in count() if self._sizes[it] < _PER_BUCKET))
        if destination not in self._users:
            self._idle.pop(destination, None)  # _idle stays in the order of its times
            self._idle[destination] = self._clock()

    def _assign(self, destination: Endpoint, bucket: int) -> None:
        self.buckets[destination] = bucket
        self._sizes[bucket] += 1
        self.missing.add(destination)

    def _old(self) -> dict[Endpoint, int]:
        """Destinations to remove: those unused for _KEEP_S, and of too many idle ones the longest unused."""
        now, spare = self._clock(), len(self._idle) - _MOST_IDLE
        old: dict[Endpoint, int] = {}
        for destination, since in self._idle.items():
            if len(old) == _BATCH or (now - since <= _KEEP_S and len(old) >= spare):
                break
            old[destination] = self.buckets[destination]
        return old

    def _update(self, old: Mapping[Endpoint, int]) -> None:
        """Make the missing rules and remove those of *old*. Raises BackendError."""
        wanted = {one: bucket for one, bucket in self.buckets.items() if one not in old}
        unwanted = {one: bucket for one, bucket in old.items() if one not in self.missing}
        self._version = self._nat.set_destinations(wanted, self.missing - old.keys(), unwanted, self._version)
        self.missing.clear()
        for destination, bucket in old.items():
            del self.buckets[destination], self._idle[destination]
            self._sizes[bucket] -= 1


def _destination(pinhole: Pinhole) -> Endpoint:
    """The pinhole's inside host, and its port unless that equals the outside port.

    So most pinholes of a host share one rule.
    """
    address, port = pinhole.inside
    return Endpoint(address, 0 if port == pinhole.outside.port else port)
