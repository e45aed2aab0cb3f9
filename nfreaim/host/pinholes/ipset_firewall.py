"""IpsetFirewall: pinholes as entries of the set nfreaim_pin, which the rules of the nat table read.

Opening, closing or narrowing a pinhole changes the set, which takes a few microseconds however many pinholes
are open. Only the first pinhole of a destination replaces the nat table. The order is always: rule of the
destination, set entry, verdict. An entry holds the whole pinhole with its deadline, so that a restarted
daemon reads it back. Its time-out is short, and renewed while the daemon lives (host.pinholes.leases).
"""

from __future__ import annotations

import errno
import logging
import math
import re
import socket
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import count
from typing import Final

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.firewall.pinhole import Pinhole
from nfreaim.core.firewall.policy import Forward
from nfreaim.errors import BackendError
from nfreaim.host.netfilter.ipset import PinEntry, PinSet, pin_data, pin_destination
from nfreaim.host.netfilter.iptables import NatTable
from nfreaim.host.netfilter.names import COMMENT, PIN_SET
from nfreaim.host.pinholes.foreign_forwards import ForeignForwards
from nfreaim.host.pinholes.leases import LEASE_S, Leases
from nfreaim.host.pinholes.mark_watch import MarkWatch
from nfreaim.marks import DEFAULT, Marks
from nfreaim.old_spellings import DEFAULT_PROTOCOL

log = logging.getLogger("nfreaim")

# The words stay, because entries of earlier installations are in running kernels. Installations that knew one
# protocol named none.
_PINHOLE_COMMENT: Final = re.compile(
    rf"{COMMENT} in=(?P<in>\S+) flow=(?P<client>\S+)>(?P<server>\S+) for=(?P<service>\S+)"
    r" cookie=(?P<agreement>[0-9a-f]*) until=(?P<until>\S+) since=(?P<since>\S+)(?: proto=(?P<protocol>\S+))?"
    r"(?: unverified=(?P<unverified>\S+))?(?: told=(?P<told>\S+))?"
)
_EVERYBODY: Final = (("0.0.0.0", 1), ("128.0.0.0", 1))  # a set of the kernel cannot hold a /0

# At most this many rules in a bucket: about the root of the most destinations, because a new connection
# passes one bucket and the jumps to all buckets.
_PER_BUCKET: Final = 32

_KEEP_S: Final = 3600.0  # that an unused destination keeps its rule
_MOST_IDLE: Final = 1024  # at most as many unused destinations keep their rules
_BATCH: Final = 16  # at most as many rules removed at once; each takes milliseconds in a large table


class IpsetFirewall:
    """core.firewall.pinhole.Firewall. *clock* is the clock of the deadlines, *marks* are the rules'.

    foreign        what other rules forward: no pinhole is opened on these ports
    foreign_marks  what other rules do to connmarks: no pinhole is opened that cannot work
    """

    def __init__(self, clock: Callable[[], float], marks: Marks = DEFAULT) -> None:
        self.foreign = ForeignForwards(clock)
        self.foreign_marks = MarkWatch(clock, marks)
        self._clock = clock
        self._set = PinSet(PIN_SET)
        self._nat = NatTable(marks)
        self._destinations = _Destinations(self._nat, clock)
        self._destination_of: dict[Endpoint, Endpoint] = {}
        self._leases = Leases()
        self._troubled = False

    def close_sockets(self) -> None:
        """Close the sockets."""
        self._set.close()
        self._nat.close()
        self.foreign.close()
        self.foreign_marks.close()

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
            for entry in wanted:
                self._set.add(entry)
            for entry in old:
                if entry.network not in kept:
                    self._set.delete(entry)
        except BackendError:
            with suppress(BackendError):
                for entry in wanted:
                    self._set.delete(entry)
                for entry in old:
                    self._set.add(entry)
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
        found: dict[Endpoint, Pinhole] = {}
        for entry in self._set.entries():
            pinhole = _parse(entry)
            if pinhole is None:
                continue
            other = found.get(entry.outside)
            if other is not None:
                both = other.peers and pinhole.peers  # a pinhole for everybody has two entries
                pinhole = replace(
                    pinhole, peers=tuple(sorted({*other.peers, *pinhole.peers})) if both else ()
                )
            found[entry.outside] = pinhole
            destination, bucket = pin_destination(entry.data)
            self._destinations.found(destination, bucket)
            self._use(entry.outside, destination)
        return [*found.values()]

    def left(self) -> Sequence[Pinhole]:
        """What ``list`` returns, with the deadlines that hold if no daemon renews the entries."""
        ends = {it.outside: self._clock() + (it.seconds or math.inf) for it in self._set.entries()}
        return [
            replace(pinhole, deadline=min(pinhole.deadline, ends.get(pinhole.outside, 0.0)))
            for pinhole in self.list()
        ]

    def renew(self, pinholes: Sequence[Pinhole]) -> Sequence[Pinhole]:
        now = self._clock()
        due = self._leases.due(pinholes, now)
        entries = [entry for pinhole in due for entry in self._entries(pinhole, now, self._data(pinhole))]
        try:
            absent = {entry.outside for entry in self._set.renew(entries)}
        except BackendError as error:
            level = logging.DEBUG if self._troubled else logging.WARNING
            log.log(level, "pinholes cannot be renewed, and end in %d s: %s", LEASE_S, error)
            self._troubled = True
            raise
        self._troubled = False
        lapsed = {pinhole.outside for pinhole in due if self._leases.lapsed(pinhole, now)} & absent
        for pinhole in due:
            self._leases.written(pinhole, now)
        if lapsed:
            log.warning(
                "%d pinholes were closed for a while, because the daemon had no time to renew them for %d s;"
                " they are open again",
                len(lapsed),
                LEASE_S,
            )
        return [pinhole for pinhole in due if pinhole.outside in absent - lapsed]

    def busy(self, outside: Endpoint) -> bool:
        return self.foreign.has(outside.port) or _taken(outside)

    def forwarded(self, outside: Endpoint) -> bool:
        return self.foreign.has(outside.port)

    def prepare(self, host: str) -> None:
        self._destinations.prepare(Endpoint(host, 0))

    def upkeep(self) -> None:
        self._destinations.upkeep()

    # --- start and stop ---

    def set_forwards(self, forwards: Sequence[Forward]) -> None:
        """Make *forwards* the forwards in the kernel (see NatTable.set_forwards). Raises BackendError."""
        self._nat.set_forwards(forwards)

    def forwards(self) -> Sequence[Forward]:
        """The forwards in the kernel. Raises BackendError."""
        return self._nat.forwards()

    def clear(self) -> None:
        """Take the daemon's rules out of the nat table; a pinhole that is still open then leads nowhere.

        Raises BackendError.
        """
        self._nat.set_forwards(())
        self._nat.clear()

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
        comment = (
            f"{COMMENT} in={pinhole.inside} flow={pinhole.flow.client}>{pinhole.flow.server}"
            f" for={pinhole.service} cookie={pinhole.agreement.hex()} until={pinhole.deadline:.3f}"
            f" since={pinhole.since:.3f} proto={pinhole.protocol}"
        )
        if pinhole.unverified:
            comment += f" unverified={pinhole.unverified}"
        if pinhole.told is not None:
            comment += f" told={pinhole.told}"
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


def _parse(entry: PinEntry) -> Pinhole | None:
    found = _PINHOLE_COMMENT.fullmatch(entry.comment)
    if found is None:
        return None
    try:
        return Pinhole(
            inside=_endpoint(found["in"]),
            outside=entry.outside,
            flow=FlowId(_endpoint(found["client"]), _endpoint(found["server"])),
            agreement=bytes.fromhex(found["agreement"]),
            service=found["service"],
            deadline=float(found["until"]),
            peers=(entry.network,) if entry.length == 32 else (),
            since=float(found["since"]),
            verify=entry.verify,
            protocol=found["protocol"] or DEFAULT_PROTOCOL,
            unverified=found["unverified"] or "",
            told=_endpoint(found["told"]) if found["told"] else None,
        )
    except ValueError:
        return None


def _endpoint(text: str) -> Endpoint:
    address, _, port = text.rpartition(":")
    return Endpoint(socket.inet_ntoa(socket.inet_pton(socket.AF_INET, address)), int(port))


def _taken(outside: Endpoint) -> bool:
    """Whether a socket of the router's own has the port, on this address or on all.

    An attempt to bind shows it: reading /proc/net/tcp takes milliseconds, however few sockets there are.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(outside)
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False
