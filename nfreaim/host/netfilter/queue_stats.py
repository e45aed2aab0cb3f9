"""QueueStatistics: the kernel's counters of the packet queues in this network namespace; who serves them."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path
from typing import Final, NamedTuple

from nfreaim.errors import BackendError
from nfreaim.host.netfilter.netlink import ACKNOWLEDGE, NETFILTER, REQUEST, Netlink, attribute, message

# linux/netfilter/nfnetlink_queue.h
_QUEUE_SUBSYSTEM: Final = 3
_CONFIG: Final = 2
_CONFIG_COMMAND: Final = 1
_FAMILY_BIND: Final = 3

PATH: Final = Path("/proc/net/netfilter/nfnetlink_queue")
"""Exists once the kernel's module is loaded, as the first bind does, and no rule. One line per bound queue:
number, netlink port of the socket that serves it, packets that wait, copy mode, copy range, the two counts of
dropped packets, number of the last packet, 1."""


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


def available() -> bool:
    """Whether the kernel has queues; its module is loaded, as a bind would do it. Raises OSError."""
    if not PATH.exists():
        netlink = Netlink(patience_s=5.0)
        try:
            # A command that every kernel since 3.8 takes and ignores: nfnetlink loads what it is for.
            command = attribute(_CONFIG_COMMAND, struct.pack("!BBH", _FAMILY_BIND, 0, socket.AF_INET))
            netlink.ask(message(_QUEUE_SUBSYSTEM << 8 | _CONFIG, REQUEST | ACKNOWLEDGE, command))
        finally:
            netlink.close()
    return PATH.exists()


def server_of(queue: QueueStatistics) -> tuple[int, str]:
    """Process id and command line of who serves *queue*; (0, "") if it cannot be told."""
    # Columns: sk, protocol, port id, groups, rmem, wmem, dump, locks, drops, inode
    rows = [line.split() for line in Path("/proc/net/netlink").read_text().splitlines()[1:]]
    links = {f"socket:[{row[9]}]" for row in rows if (row[1], row[2]) == (str(NETFILTER), str(queue.port))}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.readlink(fd) in links for fd in (process / "fd").iterdir()):
                words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                return int(process.name), words.strip()
        except OSError:  # the process has ended, or another user's is not readable
            continue
    return 0, ""


def is_ours(command: str) -> bool:
    """Whether a command line is that of nfreaim."""
    return any(Path(word).name == "nfreaim" for word in command.split())


def queues() -> list[QueueStatistics]:
    """The queues that are bound. Raises BackendError."""
    try:
        text = PATH.read_text()
    except FileNotFoundError:  # the kernel's module is not loaded, so nobody has bound a queue
        return []
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
