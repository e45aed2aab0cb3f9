"""QueueStatistics: reads the kernel's counters of the packet queues in this network namespace."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

from nfreaim.errors import BackendError

PATH: Final = Path("/proc/net/netfilter/nfnetlink_queue")
"""Exists if the kernel supports queues. One line per bound queue: number, netlink port of the socket that
serves it, packets that wait, copy mode, copy range, the two counts of dropped packets, number of the last
packet, 1."""


class QueueStatistics(NamedTuple):
    """One queue since it was bound. Counts are of packets.

    port            netlink port id of the socket that serves the queue
    dropped_full    dropped because the queue was full
    dropped_socket  dropped because the socket's buffer was full
    seen            number of the last packet, from 1
    """

    number: int
    port: int
    waiting: int
    dropped_full: int
    dropped_socket: int
    seen: int


def queues() -> list[QueueStatistics]:
    """The queues that are bound. Raises BackendError."""
    try:
        text = PATH.read_text()
    except OSError as error:
        raise BackendError(
            f"the queue's statistics: {error}; run it as root, or with group root among its groups "
            "(SupplementaryGroups=root)"
        ) from error
    return [parse(line) for line in text.splitlines()]


def parse(line: str) -> QueueStatistics:
    """The statistics in one line of PATH."""
    number, port, waiting, _mode, _range, full, lost, seen, *_ = map(int, line.split())
    return QueueStatistics(number, port, waiting, dropped_full=full, dropped_socket=lost, seen=seen)
