"""Sockets of another network namespace, for use in this process."""

from __future__ import annotations

import ctypes
import socket
import threading
from typing import Protocol

_CLONE_NEWNET = 0x40000000


class Network(Protocol):
    """What has nodes, each of which is a network namespace."""

    def ns(self, node: str) -> str: ...


def socket_in(network: Network, node: str, *kind: int) -> socket.socket:
    """A socket (TCP unless *kind* says otherwise) of a node, which waits for ten seconds at most."""
    made: list[socket.socket | OSError] = []
    libc = ctypes.CDLL(None, use_errno=True)  # os.setns came with Python 3.12

    def make() -> None:
        with open(f"/run/netns/{network.ns(node)}") as handle:
            if libc.setns(handle.fileno(), _CLONE_NEWNET) != 0:
                made.append(OSError(ctypes.get_errno(), "setns"))
                return
        made.append(socket.socket(*kind))

    thread = threading.Thread(target=make)  # the namespace is the thread's and ends with it
    thread.start()
    thread.join()
    if isinstance(made[0], OSError):
        raise made[0]
    made[0].settimeout(10.0)
    return made[0]
