"""Lans: whether two inside hosts may be told each other's inside address, or are in LANs that may not meet.

A LAN is what is behind one interface of the router, that of the route to the host. The kernel is asked by a
Netlink of our own; only a message that names a pinhole of another inside host asks.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Collection
from typing import Final

from nfreaim.errors import BackendError
from nfreaim.host.netfilter.interfaces import is_named
from nfreaim.host.netfilter.netlink import (
    REQUEST,
    ROUTE,
    Netlink,
    attribute,
    attributes,
    body_of,
    error_of,
    framed,
)

# linux/rtnetlink.h
_GET_ROUTE: Final = 26
_ROUTE_MESSAGE: Final = struct.Struct("=BBBBBBBBI")  # family, bits of the destination, ..., type, flags
_DESTINATION, _INTERFACE = 1, 4


class Lans:
    """*isolated*: the names of interfaces whose hosts may meet those of no other; True: all, False: none."""

    def __init__(self, isolated: bool | Collection[str] = False) -> None:
        self._isolated = isolated
        try:
            self._netlink = Netlink(protocol=ROUTE)
        except OSError as error:
            raise BackendError(f"routes cannot be asked for: {error}") from error

    def close(self) -> None:
        """Close the socket."""
        self._netlink.close()

    def may_meet(self, one: str, other: str) -> bool:
        """Whether the hosts at these two inside addresses may meet. Raises BackendError."""
        isolated = self._isolated
        if isolated is False or one == other:
            return True
        first, second = self._interface(one), self._interface(other)
        if first == second:
            return True
        return isolated is not True and not is_named(first, isolated) and not is_named(second, isolated)

    def _interface(self, address: str) -> str:
        """The interface of the route to *address*. Raises BackendError."""
        head = _ROUTE_MESSAGE.pack(socket.AF_INET, 32, 0, 0, 0, 0, 0, 0, 0)
        question = head + attribute(_DESTINATION, socket.inet_aton(address))
        try:
            answer = self._netlink.ask(framed(_GET_ROUTE, REQUEST, question))
            code = error_of(answer)
            if code is not None:
                raise OSError(code, "no route")
            found = dict(attributes(body_of(answer)[_ROUTE_MESSAGE.size :]))
            return socket.if_indextoname(int.from_bytes(found[_INTERFACE], sys.byteorder))
        except (OSError, KeyError) as error:
            raise BackendError(f"no interface leads to {address}: {error}") from error
