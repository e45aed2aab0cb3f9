"""Zones: the zones of connection tracking that are in use.

A question about a connection names a zone, 0 if none is given, and neither the packet nor the flow tells it:
our first hook comes before connection tracking, and the packets of a queue name no zone. So a question is put
once for each zone that has connections. These are learnt from a dump, of which nothing but zones is read.
Layouts: linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import logging
import re
import struct
from collections.abc import Callable
from typing import Final

from nfreaim.errors import BackendError
from nfreaim.host.netfilter.netlink import DUMP, REQUEST, Netlink, message

log = logging.getLogger("nfreaim")

_GET: Final = 0x0101  # IPCTNL_MSG_CT_GET of the subsystem of connection tracking
_MOST: Final = 64  # zones; each more costs every question about an unknown flow 10 µs
# A dump takes about a millisecond for each thousand connections, and packets wait meanwhile.
_AGAIN_S: Final = 10.0
_SHARE: Final = 0.002
_AT_ONCE: Final = 3


def _head(length: int, kind: int) -> bytes:
    return re.escape(struct.pack("=HH", length, kind))


# CTA_ZONE, or CTA_TUPLE_ZONE, which has the same number as a port and follows that (CTA_PROTO_DST_PORT).
_ZONE: Final = re.compile(
    _head(6, 18) + b"(..)|" + _head(6, 3) + b"..\0\0" + _head(6, 3) + b"(..)", re.DOTALL
)


class Zones:
    """*clock* tells the time. Zone 0 is always known."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.known: tuple[int, ...] = (0,)
        self._clock = clock
        self._netlink = Netlink()
        self._next = float("-inf")  # the time by which searches so far are paid for

    def close(self) -> None:
        """Close the socket."""
        self._netlink.close()

    def search(self) -> tuple[int, ...]:
        """The zones that are new since the last search; none if it is too early for another one.

        Raises BackendError.
        """
        began = self._clock()
        if began < self._next:
            return ()
        found: dict[int, None] = {}
        try:
            for body in self._netlink.dump(message(_GET, REQUEST | DUMP)):
                found.update(dict.fromkeys(zones_in(body)))
        except OSError as error:
            raise BackendError(f"connection tracking: {error}") from error
        finally:
            pause = max(_AGAIN_S, (self._clock() - began) / _SHARE)
            # A few searches may follow each other, further ones wait.
            self._next = max(self._next, began - pause * (_AT_ONCE - 1)) + pause
        new = tuple(zone for zone in found if zone not in self.known)[: _MOST - len(self.known)]
        if new:
            self.known += new
            log.info("connection tracking has zones: %s", ", ".join(map(str, sorted(self.known))))
        return new


def zones_in(entry: bytes) -> list[int]:
    """The zones that an entry names, both of them if each direction has its own."""
    return [int.from_bytes(one or other, "big") for one, other in _ZONE.findall(entry)]
