"""NftEvents: the kernel's announcements of changes of nf_tables, those of elements of sets apart.

Each transaction announces what it made and deleted. Elements change all the time, by the daemon's own hand
above all, so a filter of the socket leaves such messages out in the kernel: without it each opened pinhole
would wake the loop. A transaction that begins with elements and changes more is not announced whole then; who
listens looks from time to time as well.
Layouts: linux/netfilter/nf_tables.h, linux/netfilter/nfnetlink.h.
"""

from __future__ import annotations

import errno
import socket
from typing import Final, NamedTuple

from nfreaim.errors import BackendError
from nfreaim.host.netfilter import socket_filter
from nfreaim.host.netfilter.netlink import NETFILTER, attributes, messages
from nfreaim.host.netfilter.nft_messages import SUBSYSTEM, Kind

GROUP: Final = 7
"""NFNLGRP_NFTABLES"""

ADD_MEMBERSHIP, SOL_NETLINK = 1, 270
_SO_RCVBUFFORCE, _BUFFER = 33, 1 << 20  # a ruleset of some thousand rules
_LEFT_OUT: Final = (Kind.NEW_ELEMENTS, Kind.DELETE_ELEMENTS, Kind.NEW_GENERATION)
_NAME: Final = 1  # the attribute that names the table, of every object
_NFGENMSG: Final = 4


class Changes(NamedTuple):
    """What has changed since the last reading.

    ours   something of our table, or that is not known because too much happened at once
    others something of other tables, or that is not known
    """

    ours: bool
    others: bool


class NftEvents:
    """Readable when somebody has changed tables, chains, rules, sets or objects of nf_tables.

    table  the name of ours, of the family ip
    ignored  a table whose name begins so belongs to neither
    """

    def __init__(self, table: str, ignored: str) -> None:
        self._table, self._ignored = table.encode(), ignored.encode()
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, NETFILTER)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
            socket_filter.attach(self._socket, _others())
            self._socket.bind((0, 0))
            self._socket.setsockopt(SOL_NETLINK, ADD_MEMBERSHIP, GROUP)
        except OSError as error:
            self._socket.close()
            raise BackendError(f"no announcements of nftables: {error}") from error

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def fileno(self) -> int:
        """For a selector: readable when something was announced."""
        return self._socket.fileno()

    def read(self) -> Changes:
        """Read all that was announced. Raises OSError."""
        ours = others = False
        while True:
            try:
                data = self._socket.recv(1 << 16)
            except BlockingIOError:
                return Changes(ours, others)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                ours = others = True
                continue
            for kind, _, _, body in messages(data):
                if kind >> 8 != SUBSYSTEM or kind & 0xFF in _LEFT_OUT:
                    continue
                name = dict(attributes(body[_NFGENMSG:])).get(_NAME, b"").rstrip(b"\0")
                if body[:1] == bytes([socket.AF_INET]) and name == self._table:
                    ours = True
                elif not name.startswith(self._ignored):
                    others = True


def _others() -> list[socket_filter.Step]:
    """A filter that takes all messages but those of _LEFT_OUT."""
    kinds = [socket_filter.kind(SUBSYSTEM << 8 | kind) for kind in _LEFT_OUT]
    return [
        socket_filter.Step(socket_filter.LOAD_HALF, value=socket_filter.KIND_AT),
        *socket_filter.any_of(kinds, then=socket_filter.NOTHING, otherwise=socket_filter.ALL),
    ]
