"""UnfinishedConnections: ends the entries of incomplete connections through pinholes in connection tracking.

The rules mark such entries, so the kernel hands out these alone, however many others it has. Layouts:
linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import Final

from nfreaim.core.address import Endpoint
from nfreaim.errors import BackendError
from nfreaim.host.netfilter.netlink import (
    ACKNOWLEDGE,
    DUMP,
    REQUEST,
    Netlink,
    attribute,
    attributes,
    message,
    nest,
)
from nfreaim.marks import Marks

_GET, _DELETE = 0x0101, 0x0102  # IPCTNL_MSG_CT_GET and _DELETE of the subsystem of connection tracking
_ORIGINAL, _STATUS, _MARK, _ID, _ZONE, _MARK_MASK = 1, 3, 8, 12, 18, 21
_IP, _PROTO = 1, 2
_SOURCE, _DESTINATION = 1, 2
_SOURCE_PORT, _DESTINATION_PORT = 2, 3
_ASSURED: Final = 4  # bit of CTA_STATUS: both ends completed the handshake

Concerned = Callable[[Endpoint, str], bool]
"""Whether a connection to this outside endpoint, from this address, has to end."""


class UnfinishedConnections:
    """A socket. A flood may make many entries, so a call deletes *most* entries at most."""

    def __init__(self, marks: Marks, most: int = 1000) -> None:
        self._new = struct.pack("!I", marks.pinhole | marks.incomplete)
        self._most = most
        self._netlink = Netlink()

    def close(self) -> None:
        """Close the socket."""
        self._netlink.close()

    def end(self, concerned: Concerned) -> bool:
        """Delete the entries that are *concerned*; the other end's next packet makes none of them anew.

        Returns whether none is left. Raises BackendError.
        """
        found: list[dict[int, bytes]] = []
        looked = 0
        question = message(
            _GET, REQUEST | DUMP, attribute(_MARK, self._new) + attribute(_MARK_MASK, self._new)
        )
        try:
            for body in self._netlink.dump(question):
                looked += 1
                if looked > self._most * 4 or len(found) >= self._most:
                    self._start_again()
                    break
                entry = dict(attributes(body))
                if _is_unfinished(entry) and concerned(*_ends(entry)):
                    found.append(entry)
            for entry in found:
                self._delete(entry)
        except OSError as error:
            self._start_again()
            raise BackendError(f"connection tracking: {error}") from error
        return looked <= self._most * 4 and len(found) < self._most

    def _start_again(self) -> None:
        """Leave the rest of a dump unread."""
        self._netlink.close()
        self._netlink = Netlink()

    def _delete(self, entry: dict[int, bytes]) -> None:
        # With its number, so that an entry that was made anew meanwhile stays. An absent one is no error.
        named = nest(_ORIGINAL, entry[_ORIGINAL])
        named += b"".join(attribute(kind, entry[kind]) for kind in (_ID, _ZONE) if kind in entry)
        self._netlink.ask(message(_DELETE, REQUEST | ACKNOWLEDGE, named))


def _is_unfinished(entry: dict[int, bytes]) -> bool:
    return not int.from_bytes(entry.get(_STATUS, b""), "big") & _ASSURED and _ORIGINAL in entry


def _ends(entry: dict[int, bytes]) -> tuple[Endpoint, str]:
    """The outside endpoint that the connection was made to, and the address of the peer."""
    parts = dict(attributes(entry[_ORIGINAL]))
    ip, protocol = dict(attributes(parts[_IP])), dict(attributes(parts[_PROTO]))
    port = int.from_bytes(protocol.get(_DESTINATION_PORT, b""), "big")
    return Endpoint(socket.inet_ntoa(ip[_DESTINATION]), port), socket.inet_ntoa(ip[_SOURCE])
