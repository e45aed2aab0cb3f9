"""The generation of the nft rules: a number that every change of them changes.

Where our own sets are nftables', each pinhole and each flow is a change, and nobody is to read the rules of
others again because of it. So the daemon has the kernel announce who changed something, and counts what
processes other than its own did. Layouts: linux/netfilter/nf_tables.h (nft_gen_attributes).
"""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import Final

from nfreaim.host.netfilter import socket_filter
from nfreaim.host.netfilter.netlink import (
    HEADERS_SIZE,
    NETFILTER,
    REQUEST,
    Netlink,
    attributes,
    error_of,
    message,
)
from nfreaim.host.netfilter.nft_events import ADD_MEMBERSHIP, GROUP, SOL_NETLINK
from nfreaim.host.netfilter.nft_messages import SUBSYSTEM, Kind

_ID, _PROCESS = 1, 2
_PROCESS_AT: Final = HEADERS_SIZE + 8 + 4  # behind the attribute with the number, which comes first
_MOST: Final = 128  # processes of ours that are left out: workers that were started anew have other numbers


class OthersChanges:
    """Counts the changes that other programs make from now on; *process* is ours, with its children."""

    def __init__(self, process: int) -> None:
        self._process = process
        self._ours = [process]
        self._count = 1  # as with the kernel's own number, 0 would mean that there never was a rule
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, NETFILTER)
        self._filter()
        self._socket.bind((0, 0))
        self._socket.setsockopt(SOL_NETLINK, ADD_MEMBERSHIP, GROUP)

    def count(self) -> int:
        """How many there were; one more where not all could be told. Raises OSError."""
        while True:
            try:
                announced = self._socket.recv(1 << 16)
            except BlockingIOError:
                return self._count
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._count += 1
                continue
            process = int.from_bytes(announced[_PROCESS_AT : _PROCESS_AT + 4], "big")
            if process not in self._ours and not self._is_child(process):
                self._count += 1

    def _is_child(self, process: int) -> bool:
        """Whether it is a worker of ours. The kernel leaves out what that does from now on."""
        try:
            status = Path(f"/proc/{process}/status").read_text()
        except OSError:  # it has ended
            return False
        if f"\nPPid:\t{self._process}\n" not in status or len(self._ours) >= _MOST:
            return False
        self._ours.append(process)
        self._filter()
        return True

    def _filter(self) -> None:
        kind = socket_filter.kind(SUBSYSTEM << 8 | Kind.NEW_GENERATION)
        steps = [
            socket_filter.Step(socket_filter.LOAD_HALF, value=socket_filter.KIND_AT),
            *socket_filter.only(kind, socket_filter.NOTHING),
            socket_filter.Step(socket_filter.LOAD_WORD, value=_PROCESS_AT),
            *socket_filter.any_of(self._ours, then=socket_filter.NOTHING, otherwise=socket_filter.ALL),
        ]
        socket_filter.attach(self._socket, steps)


_others: list[OthersChanges] = []


def leave_own_changes_out() -> None:
    """From now on ``generation`` counts what other programs change, and nothing of ours. Raises OSError."""
    if not _others:
        _others.append(OthersChanges(os.getpid()))


def generation() -> int | None:
    """A number that changes with the nft rules; None: no nft."""
    try:
        if _others:
            return _others[0].count()
        netlink = Netlink()
        try:
            answer = netlink.ask(
                message(SUBSYSTEM << 8 | Kind.GET_GENERATION, REQUEST, family=socket.AF_UNSPEC)
            )
        finally:
            netlink.close()
    except OSError:
        return None
    if error_of(answer) is not None:
        return None
    found = dict(attributes(answer[HEADERS_SIZE:])).get(_ID, b"")
    return int.from_bytes(found, "big") if len(found) == 4 else None
