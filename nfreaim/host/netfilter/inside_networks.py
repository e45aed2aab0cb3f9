"""InsideNetworks: keeps the set of inside networks as the interfaces towards the LAN have them.

The rules script fills the set when it installs the rules. LANs, VLANs, second networks and links of VPNs come
and go later. The kernel announces changes of links, addresses and routes; the routes of the interfaces that
the rules name are read again then, and the set is changed entry by entry. What counts is what the script
takes, too: IPv4 routes of the main table by these interfaces, without the default route. A network that loses
its route stays in the set for a while, because a link that goes down for a moment takes its routes along. The
network of a self-test counts as one inside as long as it exists, and is not told in the log.
Layouts: linux/rtnetlink.h.
"""

from __future__ import annotations

import errno
import logging
import socket
import struct
from collections.abc import Callable, Iterable
from contextlib import suppress
from ipaddress import IPv4Network
from typing import Final

from nfreaim.errors import BackendError
from nfreaim.host.netfilter.interfaces import existing
from nfreaim.host.netfilter.kernel_sets import NetworkSet
from nfreaim.host.netfilter.names import TEST_CLIENTS, TEST_LAN
from nfreaim.host.netfilter.netlink import DUMP, REQUEST, ROUTE, Netlink, attribute, attributes, framed

log = logging.getLogger("nfreaim")

_GROUPS: Final = 0x1 | 0x10 | 0x40  # RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE
_GET_ROUTE: Final = 26
_ROUTE_MESSAGE: Final = struct.Struct(
    "=BBBBBBBBI"
)  # family, destination's bits, ..., table, ..., type, flags
_DESTINATION, _INTERFACE = 1, 4
_MAIN, _UNICAST = 254, 1
_SOL_NETLINK, _STRICT = (
    270,
    12,
)  # NETLINK_GET_STRICT_CHK: the kernel answers for one table and interface alone
_LOOK_EVERY_S: Final = 10.0  # without an announcement
_GONE_AFTER_S: Final = 5.0  # that a network stays in the set without a route
_PAUSE_S: Final = 1.0  # at least, between two looks: a routing daemon changes many routes at once
_TIMES: Final = 50  # as long as a look took
_OF_TEST: Final = IPv4Network(TEST_CLIENTS)


class InsideNetworks:
    """The networks behind the interfaces that are written *lan* (see ``interfaces``), in *members*.

    It is readable when the kernel has announced a change. *clock* tells the time.
    """

    def __init__(self, members: NetworkSet, lan: Iterable[str], clock: Callable[[], float]) -> None:
        self.lan = tuple(lan)
        self._members, self._clock = members, clock
        self._next = 0.0
        self._looked = -_PAUSE_S
        self._seen: dict[
            IPv4Network, float
        ] = {}  # networks that have or had a route, and when they had it last
        self._pause_s = _PAUSE_S
        self._failing = ""
        self._left = 0  # networks in the set after the last look
        self._events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, ROUTE)
        try:
            self._events.bind((0, _GROUPS))
            self._netlink = Netlink(protocol=ROUTE)
        except OSError as error:
            self._events.close()
            raise BackendError(f"no announcements of networks: {error}") from error
        with suppress(OSError):  # without it the kernel sends all routes
            self._netlink.set_option(_SOL_NETLINK, _STRICT)

    @property
    def name(self) -> str:
        """Of the set."""
        return self._members.name

    def close(self) -> None:
        """Close the sockets."""
        self._events.close()
        self._netlink.close()

    def fileno(self) -> int:
        """For a selector: readable when something was announced."""
        return self._events.fileno()

    def noticed(self) -> None:
        """Read the announcements: the next ``tick`` looks, or the first one after the pause."""
        while True:
            try:
                self._events.recv(65536)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # more than the buffer holds: it is looked anyway
                    raise
        self._next = min(self._next, self._looked + self._pause_s)

    def filled(self) -> bool:
        """Whether the set has an entry, unless none was in it after the last look. Raises BackendError."""
        return not self._left or self._members.filled()

    def again(self, now: float) -> None:
        """Look at once, because the set may have been emptied. Raises nothing."""
        self._next = now
        self.tick(now)

    def tick(self, now: float) -> None:
        """Look, if it is time. Raises nothing."""
        if now < self._next:
            return
        self._looked, self._next = now, now + _LOOK_EVERY_S
        try:
            self._follow(now)
            self._failing = ""
        except BackendError as error:
            if str(error) != self._failing:
                log.warning("changes of the inside networks are not followed: %s", error)
            self._failing = str(error)
        self._pause_s = max(_PAUSE_S, _TIMES * (self._clock() - now))

    def _follow(self, now: float) -> None:
        wanted, there = self._wanted(), self._members.networks()
        for network in sorted(wanted.keys() - there):
            self._members.add(network)
            text = "inside network %s on %s came: its hosts are served"
            log.log(_level(network), text, network, wanted[network])
        self._seen |= dict.fromkeys(wanted, now)
        self._seen = {one: when for one, when in self._seen.items() if now - when < _GONE_AFTER_S}
        for network in sorted(there - self._seen.keys()):
            self._members.remove(network)
            text = "inside network %s is gone: no interface that --lan names leads there"
            log.log(_level(network), text, network)
        missing = self._seen.keys() - wanted.keys()
        if missing:
            self._next = now + _PAUSE_S
        self._left = len(wanted) + len(missing & there)

    def _wanted(self) -> dict[IPv4Network, str]:
        """The networks and their interfaces. Raises BackendError."""
        found: dict[IPv4Network, str] = {}
        try:
            for name in existing((*self.lan, TEST_LAN)):
                with suppress(OSError):  # it has just gone
                    found |= dict.fromkeys(self._behind(socket.if_nametoindex(name)), name)
        except (OSError, struct.error) as error:
            raise BackendError(f"routes cannot be read: {error}") from error
        return found

    def _behind(self, interface: int) -> list[IPv4Network]:
        head = _ROUTE_MESSAGE.pack(socket.AF_INET, 0, 0, 0, _MAIN, 0, 0, 0, 0)
        question = framed(
            _GET_ROUTE, REQUEST | DUMP, head + attribute(_INTERFACE, struct.pack("=I", interface))
        )
        networks = []
        for body in self._netlink.bodies(question):
            _, bits, _, _, table, _, _, kind, _ = _ROUTE_MESSAGE.unpack_from(body)
            found = dict(attributes(body[_ROUTE_MESSAGE.size :]))
            by = found.get(_INTERFACE) == struct.pack("=I", interface)
            if by and bits and (table, kind) == (_MAIN, _UNICAST) and len(found.get(_DESTINATION, b"")) == 4:
                networks.append(IPv4Network((found[_DESTINATION], bits)))
        return networks


def _level(network: IPv4Network) -> int:
    return logging.DEBUG if network == _OF_TEST else logging.INFO
