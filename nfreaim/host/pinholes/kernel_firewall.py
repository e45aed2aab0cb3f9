"""KernelFirewall: what the firewalls of both back ends have in common.

Each element of a pinhole in the kernel holds the whole pinhole with its deadline, so that a restarted daemon
reads it back. Its time-out is short, and renewed while the daemon lives (host.pinholes.leases).
"""

from __future__ import annotations

import errno
import logging
import math
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from nfreaim.core.address import Endpoint
from nfreaim.core.firewall.pinhole import Pinhole
from nfreaim.core.firewall.policy import Forward
from nfreaim.errors import BackendError
from nfreaim.host.pinholes.foreign_forwards import ForeignForwards
from nfreaim.host.pinholes.leases import LEASE_S, Leases
from nfreaim.host.pinholes.mark_watch import MarkWatch
from nfreaim.marks import DEFAULT, Marks

log = logging.getLogger("nfreaim")


class KernelFirewall(ABC):
    """core.firewall.pinhole.Firewall. *clock* is the clock of the deadlines, *marks* are the rules'.

    foreign        what other rules forward: no pinhole is opened on these ports
    foreign_marks  what other rules do to connmarks: no pinhole is opened that cannot work
    """

    def __init__(self, clock: Callable[[], float], marks: Marks = DEFAULT) -> None:
        self.foreign = ForeignForwards(clock)
        self.foreign_marks = MarkWatch(clock, marks)
        self._clock = clock
        self._leases = Leases()
        self._troubled = False

    def close_sockets(self) -> None:
        """Close the sockets."""
        self.foreign.close()
        self.foreign_marks.close()

    # --- core.firewall.pinhole.Firewall ---

    @abstractmethod
    def open(self, pinhole: Pinhole, earlier: Pinhole | None) -> None:
        """See core.firewall.pinhole.Firewall, also of what follows."""

    @abstractmethod
    def close(self, pinhole: Pinhole) -> None: ...

    @abstractmethod
    def list(self) -> list[Pinhole]: ...

    @abstractmethod
    def prepare(self, host: str) -> None: ...

    @abstractmethod
    def upkeep(self) -> None: ...

    def renew(self, pinholes: Sequence[Pinhole]) -> Sequence[Pinhole]:
        now = self._clock()
        due = self._leases.due(pinholes, now)
        try:
            absent = self._write_again(due, now)
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

    # --- start and stop ---

    def left(self) -> Sequence[Pinhole]:
        """What ``list`` returns, with the deadlines that hold if no daemon renews the elements."""
        ends = self._ends()
        return [
            replace(pinhole, deadline=min(pinhole.deadline, ends.get(pinhole.outside, 0.0)))
            for pinhole in self.list()
        ]

    @abstractmethod
    def behind(self, outside: Endpoint) -> Endpoint | None:
        """The inside endpoint that the pinhole at *outside* leads to."""

    @abstractmethod
    def set_forwards(self, forwards: Sequence[Forward]) -> None:
        """Make *forwards* the forwards in the kernel. Raises BackendError.

        They come before pinholes. This is no conflict, because the ports of a forward are given to pinholes
        of its own host only.
        """

    @abstractmethod
    def forwards(self) -> Sequence[Forward]:
        """The forwards in the kernel, in the order in which they were given. Raises BackendError."""

    @abstractmethod
    def clear(self) -> None:
        """Take out of the kernel what the daemon alone needs there, but for pinholes. Raises BackendError."""

    # --- for the back ends ---

    @abstractmethod
    def _write_again(self, due: Sequence[Pinhole], now: float) -> set[Endpoint]:
        """Write the elements of *due* again; the outside endpoints of those that lacked one.

        Raises BackendError.
        """

    @abstractmethod
    def _ends(self) -> Mapping[Endpoint, float]:
        """When the kernel closes what is at an outside endpoint. Raises BackendError."""


def joined(found: Iterable[Pinhole]) -> list[Pinhole]:
    """One pinhole for each outside endpoint, of those that its elements hold, one for each peer."""
    by_outside: dict[Endpoint, Pinhole] = {}
    for pinhole in found:
        other = by_outside.get(pinhole.outside)
        if other is not None:
            both = other.peers and pinhole.peers
            pinhole = replace(pinhole, peers=tuple(sorted({*other.peers, *pinhole.peers})) if both else ())
        by_outside[pinhole.outside] = pinhole
    return [*by_outside.values()]


def end_in(seconds: float, now: float) -> float:
    """When an element ends that has so many *seconds* left; one without a time-out has 0."""
    return now + (seconds or math.inf)


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
