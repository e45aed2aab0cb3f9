"""IpsetFirewall: pinholes as entries of the set nfreaim_pin, which the rules of the nat table read.

Opening, closing and narrowing are changes of the set, a few microseconds each however many are open. Only a
destination that has no rule yet costs a replacement of the nat table, so rules are made ahead where that is
possible and kept for a while. Order, always: rule of the destination, entry, verdict.
The entries carry the whole pinhole: the kernel is the source of truth, closes each at its deadline whether or
not a daemon runs, and a restarted daemon reads them back.
"""

from __future__ import annotations

import errno
import math
import re
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.firewall.pinhole import Pinhole
from nfreaim.core.firewall.policy import Forward
from nfreaim.errors import BackendError
from nfreaim.host.netfilter.ipset import PIN_SET, PinEntry, PinSet
from nfreaim.host.netfilter.iptables import NatTable, pin_data, pin_destination
from nfreaim.host.pinholes.dnat_rules import DnatRules
from nfreaim.host.pinholes.foreign_forwards import ForeignForwards

_COMMENT: Final = re.compile(
    r"nfreaim in=(?P<in>\S+) flow=(?P<client>\S+)>(?P<server>\S+)"
    r" for=(?P<service>\S+) cookie=(?P<cookie>[0-9a-f]*) until=(?P<until>\S+) since=(?P<since>\S+)"
)
_ANYBODY: Final = (("0.0.0.0", 1), ("128.0.0.0", 1))  # the sets of the kernel know no /0


class IpsetFirewall:
    """A core.firewall.pinhole.Firewall. *clock* is that of the deadlines."""

    def __init__(self, forwards: ForeignForwards, clock: Callable[[], float]) -> None:
        self._forwards = forwards
        self._clock = clock
        self._set = PinSet(PIN_SET)
        self._nat = NatTable()
        self._destinations = DnatRules(self._nat, clock)
        self._leading: dict[Endpoint, Endpoint] = {}

    def close(self) -> None:
        """Give the sockets back."""
        self._set.close()
        self._nat.close()

    # --- core.firewall.pinhole.Firewall ---

    def put(self, pinhole: Pinhole, earlier: Pinhole | None) -> None:
        destination = _destination(pinhole)
        data = pin_data(destination, self._destinations.ready(destination))
        wanted = self._entries(pinhole, data)
        old = [] if earlier is None else self._entries(earlier, data)
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
        self._lead(pinhole.outside, destination)

    def drop(self, pinhole: Pinhole) -> None:
        for entry in self._entries(pinhole):
            self._set.delete(entry)
        destination = self._leading.pop(pinhole.outside, None)
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
                both = other.peers and pinhole.peers  # who admits everybody has two entries
                pinhole = replace(
                    pinhole, peers=tuple(sorted({*other.peers, *pinhole.peers})) if both else ()
                )
            found[entry.outside] = pinhole
            destination, bucket = pin_destination(entry.data)
            self._destinations.found(destination, bucket)
            self._lead(entry.outside, destination)
        return [*found.values()]

    def busy(self, outside: Endpoint) -> bool:
        """Whether a socket of the router itself is there, or somebody else's rule forwards that port."""
        return self._forwards.covers(outside.port) or _taken(outside)

    def prepare(self, host: str) -> None:
        self._destinations.prepare(Endpoint(host, 0))

    def upkeep(self) -> None:
        self._destinations.upkeep()

    # --- start and stop ---

    def forward(self, forwards: Sequence[Forward]) -> None:
        """Make these the configured forwards (see NatTable.forward). Raises BackendError."""
        self._nat.forward(forwards)

    def forwards(self) -> Sequence[Forward]:
        """The forwards in the kernel. Raises BackendError."""
        return self._nat.forwards()

    def clear(self) -> None:
        """Take every rule of ours out of the nat table; pinholes that are left lead nowhere.

        Raises BackendError.
        """
        self._nat.forward(())
        self._nat.clear()

    def _lead(self, outside: Endpoint, destination: Endpoint) -> None:
        if outside not in self._leading:  # a pinhole never changes its inside endpoint
            self._leading[outside] = destination
            self._destinations.use(destination)

    def _entries(self, pinhole: Pinhole, data: int = 0) -> Sequence[PinEntry]:
        """What stands for the pinhole in the set: one entry for each peer, or two for everybody."""
        seconds = 0 if pinhole.session else max(1, math.ceil(pinhole.deadline - self._clock()))
        networks = [(peer, 32) for peer in pinhole.peers] or _ANYBODY
        comment = (
            f"nfreaim in={pinhole.inside} flow={pinhole.owner.client}>{pinhole.owner.server}"
            f" for={pinhole.service} cookie={pinhole.cookie.hex()} until={pinhole.deadline:.3f}"
            f" since={pinhole.since:.3f}"
        )
        return [
            PinEntry(pinhole.outside, network, length, seconds, data, pinhole.verify, comment)
            for network, length in networks
        ]


def _destination(pinhole: Pinhole) -> Endpoint:
    """Its host, and the port unless it is the outside one: most pinholes of a host share one rule."""
    address, port = pinhole.inside
    return Endpoint(address, 0 if port == pinhole.outside.port else port)


def _parse(entry: PinEntry) -> Pinhole | None:
    found = _COMMENT.fullmatch(entry.comment)
    if found is None:
        return None
    try:
        return Pinhole(
            _endpoint(found["in"]),
            entry.outside,
            FlowId(_endpoint(found["client"]), _endpoint(found["server"])),
            bytes.fromhex(found["cookie"]),
            found["service"],
            float(found["until"]),
            (entry.network,) if entry.length == 32 else (),
            float(found["since"]),
            entry.verify,
        )
    except ValueError:
        return None


def _endpoint(text: str) -> Endpoint:
    address, _, port = text.rpartition(":")
    return Endpoint(socket.inet_ntoa(socket.inet_pton(socket.AF_INET, address)), int(port))


def _taken(outside: Endpoint) -> bool:
    """Whether a socket of the router's own has that port, on that address or on all.

    Asked by trying to have it: /proc/net/tcp takes the kernel milliseconds, however few sockets there are.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(outside)
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False
