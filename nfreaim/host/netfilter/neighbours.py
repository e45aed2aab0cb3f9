"""Neighbours: which machine on the link an inside address belongs to, by the kernel's routes and neighbours.

A packet names its sender's address, and anybody on the link can write another one there. The hardware address
of the frame that brought it is harder to forge: the switch sends answers to where that address was seen last.
So a packet is believed to come from a host if its frame came from where the router would send the answer.

The kernel is asked by a Netlink of our own, because packets wait for the answer: two questions, 20 µs. An
answer is kept for two seconds.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import socket
import struct
from collections.abc import Callable, Collection
from typing import Any, Final, NamedTuple

from nfreaim.core.backend import Sender
from nfreaim.errors import BackendError
from nfreaim.host.netfilter.interfaces import is_named
from nfreaim.host.netfilter.netlink import REQUEST, ROUTE, Netlink, attribute, attributes, body_of, error_of
from nfreaim.host.netfilter.netlink import framed as message

log = logging.getLogger("nfreaim")

_KEPT_FOR_S: Final = 2.0
_READ_AGAIN_AFTER_S: Final = 0.05  # on a mismatch; any host can cause one with each packet
_MOST_KEPT: Final = 4096

# linux/rtnetlink.h and linux/neighbour.h
_GET_ROUTE, _GET_NEIGHBOUR = 26, 30
_ROUTE_MESSAGE: Final = struct.Struct("=BBBBBBBBI")  # family, bits of the destination, ..., type, flags
_NEIGHBOUR_MESSAGE: Final = struct.Struct("=BxxxiHBB")  # family, interface, state, flags, type
_DESTINATION, _INTERFACE, _GATEWAY, _VIA = 1, 4, 5, 18
_NEIGHBOUR, _HARDWARE = 1, 2
_LOCAL: Final = 2  # a route's type: the address is this machine's own
_INVALID: Final = 0x21  # a neighbour's states: INCOMPLETE, FAILED
_UNRESOLVED_LINK: Final = 0x40  # NOARP: the link resolves no addresses

_GET_FLAGS, _GET_HARDWARE = 0x8913, 0x8927  # SIOCGIFFLAGS, SIOCGIFHWADDR
_NO_ARP: Final = 0x80
_ETHERNET: Final = 1
_SIZE: Final = 6  # of an Ethernet address


class _Way(NamedTuple):
    """How packets reach an address: what *hardware* address they are sent to.

    checked   frames on that link have a sender, and the operator wants it compared
    on_link   the address itself is on the link, and not behind another router
    """

    checked: bool
    on_link: bool
    hardware: bytes | None


_OWN: Final = _Way(True, False, None)
_NOT_CHECKED: Final = _Way(False, False, None)
_UNKNOWN: Final = _Way(True, False, None)


class Neighbours:
    """Answers from the kernel's tables of routes and neighbours; a core.backend.Senders.

    check  on which interfaces senders are compared: all, none, or those of these names
    clock  seconds that never go back
    """

    def __init__(self, clock: Callable[[], float], check: bool | Collection[str] = True) -> None:
        self._clock = clock
        self._check = check
        try:
            self._netlink = Netlink(protocol=ROUTE)
        except OSError as error:
            raise BackendError(f"routes and neighbours cannot be asked for: {error}") from error
        self._known: dict[str, tuple[float, _Way]] = {}
        self._failing = False

    def close(self) -> None:
        """Close the socket."""
        self._netlink.close()

    def hardware_address(self, address: str) -> bytes | None:
        """The hardware address that packets to *address* are sent to: its own, or that of the next hop.

        None: the link has no such addresses, or it is not known (any more). Raises nothing.
        """
        return self._way(address, _KEPT_FOR_S).hardware

    def machine(self, address: str) -> str | None:
        """The hardware address of *address*, as text, if it is on a link of ours; else None."""
        way = self._way(address, _KEPT_FOR_S)
        return as_text(way.hardware) if way.on_link and way.hardware else None

    # --- core.backend.Senders ---

    def hardware(self, token: Any) -> bytes | None:
        """Of *token*, a packet of a netfilter queue, while it is being handled."""
        found: bytes | None = token.get_hw()
        return found[:_SIZE] if found and any(found[:_SIZE]) else None

    def sent(self, address: str, hardware: bytes | None) -> Sender:
        found = _fits(self._way(address, _KEPT_FOR_S), hardware)
        if found in (Sender.HOST, Sender.UNCHECKED):
            return found
        return _fits(self._way(address, _READ_AGAIN_AFTER_S), hardware)

    def _way(self, address: str, age: float) -> _Way:
        """How packets reach *address*, as it was at most *age* seconds ago."""
        now = self._clock()
        known = self._known.get(address)
        if known is not None and now - known[0] < age:
            return known[1]
        try:
            way = self._look(address)
        except OSError as error:
            level = logging.DEBUG if self._failing else logging.WARNING
            self._failing = True
            log.log(level, "routes and neighbours cannot be asked for: %s", error)
            way = _UNKNOWN
        if len(self._known) >= _MOST_KEPT:
            self._known.clear()
        self._known[address] = now, way
        return way

    def _look(self, address: str) -> _Way:
        head = _ROUTE_MESSAGE.pack(socket.AF_INET, 32, 0, 0, 0, 0, 0, 0, 0)
        route = self._ask(_GET_ROUTE, head + attribute(_DESTINATION, socket.inet_aton(address)))
        if route is None:
            return _UNKNOWN
        if route[7] == _LOCAL:
            return _OWN
        found = dict(attributes(route[_ROUTE_MESSAGE.size :]))
        interface = int.from_bytes(found[_INTERFACE], "little" if _LITTLE else "big")
        name = socket.if_indextoname(interface)
        if not has_addresses(name):
            return _NOT_CHECKED
        checked = self._check if isinstance(self._check, bool) else is_named(name, self._check)
        unknown = _UNKNOWN if checked else _NOT_CHECKED
        family, hop = socket.AF_INET, found.get(_GATEWAY, socket.inet_aton(address))
        if _VIA in found:  # an IPv4 route through an IPv6 neighbour
            family, hop = socket.AF_INET6, found[_VIA][2:]
        head = _NEIGHBOUR_MESSAGE.pack(family, interface, 0, 0, 0)
        entry = self._ask(_GET_NEIGHBOUR, head + attribute(_NEIGHBOUR, hop))
        if entry is None:
            return unknown
        state = _NEIGHBOUR_MESSAGE.unpack_from(entry)[2]
        if state & _UNRESOLVED_LINK:
            return _NOT_CHECKED
        hardware = dict(attributes(entry[_NEIGHBOUR_MESSAGE.size :])).get(_HARDWARE)
        if state & _INVALID or hardware is None or len(hardware) != _SIZE:
            return unknown
        return _Way(checked, _GATEWAY not in found and _VIA not in found, hardware)

    def _ask(self, kind: int, body: bytes) -> bytes | None:
        """The answer without its netlink header; None if the kernel has none. Raises OSError."""
        answer = self._netlink.ask(message(kind, REQUEST, body))
        code = error_of(answer)
        if code is None:
            return body_of(answer)
        if code in (errno.ENOENT, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EINVAL):
            return None
        raise OSError(code, "netlink")


def _fits(way: _Way, hardware: bytes | None) -> Sender:
    if not way.checked:
        return Sender.UNCHECKED
    if way is _OWN:  # what this machine sends comes in no frame
        return Sender.HOST if hardware is None else Sender.STRANGER
    if way.hardware is None:
        return Sender.UNKNOWN
    return Sender.HOST if way.hardware == hardware else Sender.STRANGER


_LITTLE: Final = struct.pack("=H", 1) == b"\1\0"


def has_addresses(interface: str) -> bool:
    """Whether frames on *interface* have hardware addresses that are resolved. Raises OSError."""
    name = interface.encode()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        kind = fcntl.ioctl(probe, _GET_HARDWARE, struct.pack("16s24x", name))[16:18]
        flags = fcntl.ioctl(probe, _GET_FLAGS, struct.pack("16s24x", name))[16:18]
    return struct.unpack("=H", kind)[0] == _ETHERNET and not struct.unpack("=H", flags)[0] & _NO_ARP


def as_text(hardware: bytes) -> str:
    """A hardware address as it is usually written."""
    return hardware.hex(":")
