"""Who listens on this router: users of TCP sockets, and whether UPnP or PCP is served.

TCP sockets are asked for by sock_diag, as `ss` does: /proc/net/tcp takes 5 ms whatever it holds, because the
kernel walks through the hash table of all connections. Layouts: linux/inet_diag.h, linux/sock_diag.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from nfreaim.core.address import Endpoint, FlowId

PROC_NET: Final = Path("/proc/net")
_ON_REQUEST_PORTS: Final = (1900, 5351)  # of SSDP, which UPnP begins with; of PCP and NAT-PMP

_SOCK_DIAG: Final = 4  # the netlink protocol
_BY_FAMILY: Final = 20
_REQUEST, _DUMP = 0x001, 0x300
_ERROR, _DONE = 2, 3
_HEADER: Final = struct.Struct("=IHHII")  # length, type, flags, sequence number, port
# Family, protocol, extensions, states; ports and addresses, our own first; interface, cookie
_QUESTION: Final = struct.Struct("=BBBxI2s2s16s16sIII")
_ANSWER: Final = struct.Struct("=BBxx2s2s16s16s12x12xII")  # family, state; ...; user, inode
_ANY_COOKIE: Final = 0xFFFFFFFF
_ESTABLISHED, _CLOSE_WAIT, _LISTEN = 1, 8, 10
_ANYWHERE: Final = bytes(16)
_MAPPED: Final = bytes(10) + b"\xff\xff"
_PATIENCE_S: Final = 1.0


class _Socket(NamedTuple):
    """A TCP socket: its TCP state, its own address in four or, for IPv6, sixteen bytes, and who has it."""

    state: int
    address: bytes
    user: int
    inode: int


def listeners(port: int, address: str | None = None) -> set[int]:
    """The user ids of all listening sockets that may get a connection to *port* at *address* (None: any).

    Several may: sockets of one group (SO_REUSEPORT), or bound to an interface. Raises OSError.
    """
    own = socket.inet_aton(address or "0.0.0.0")
    wanted = {bytes(4), _ANYWHERE, own, _MAPPED + own, _MAPPED + bytes(4)}
    number = port.to_bytes(2, "big")
    found = [
        one
        for family in (socket.AF_INET, socket.AF_INET6)
        for one in _asked(_DUMP, _packed(family, 1 << _LISTEN, number))
    ]
    return {one.user for one in found if address is None or one.address in wanted}


def accepted_by(flow: FlowId) -> int | None:
    """The user id of who accepted *flow*, whose server is on this router; None without an open socket.

    A listener can be replaced by another user's while a connection of its own lives on. Raises OSError.
    """
    return user_of(flow.server, flow.client)


def user_of(own: Endpoint, peer: Endpoint) -> int | None:
    """The user id of who has the connection of *own*, an end on this router, to *peer*; None without an open
    socket. Raises OSError.
    """
    ports = [end.port.to_bytes(2, "big") for end in (own, peer)]
    ends = [socket.inet_aton(end.address) for end in (own, peer)]
    for one in _asked(0, _packed(socket.AF_INET, 0xFFF, *ports, *ends)):
        # The kernel names a listener if there is no connection. One that nobody has accepted has no inode.
        if one.state in (_ESTABLISHED, _CLOSE_WAIT) and one.inode:
            return one.user
    return None


def serves_on_request(directory: Path = PROC_NET) -> int | None:
    """The UDP port on which this router may be asked to forward ports (UPnP, PCP); None: there is none.

    Raises OSError.
    """
    for name in ("udp", "udp6"):
        for row in _rows(directory / name):
            port = int(row[1].rpartition(b":")[2], 16)
            if port in _ON_REQUEST_PORTS:
                return port
    return None


def _rows(path: Path) -> Iterator[list[bytes]]:
    try:
        with path.open("rb") as lines:
            next(lines, None)
            for line in lines:
                yield line.split()
    except FileNotFoundError:  # no IPv6
        return


def _packed(
    family: int,
    states: int,
    port: bytes,
    remote_port: bytes = bytes(2),
    address: bytes = b"",
    remote_address: bytes = b"",
) -> bytes:
    ends = port, remote_port, address, remote_address
    return _QUESTION.pack(family, socket.IPPROTO_TCP, 0, states, *ends, 0, _ANY_COOKIE, _ANY_COOKIE)


def _asked(flags: int, question: bytes) -> list[_Socket]:
    """The sockets that answer *question*, of the same port. Raises OSError."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as link:
        link.settimeout(_PATIENCE_S)
        link.send(_HEADER.pack(_HEADER.size + len(question), _BY_FAMILY, _REQUEST | flags, 1, 0) + question)
        found: list[_Socket] = []
        while True:
            data = link.recv(1 << 16)
            at = 0
            while at + _HEADER.size <= len(data):
                length, kind = _HEADER.unpack_from(data, at)[:2]
                if kind == _DONE:
                    return found
                if kind == _ERROR:
                    code = -int(struct.unpack_from("=i", data, at + _HEADER.size)[0])
                    if code == errno.ENOENT and not flags:
                        return found
                    raise OSError(code, f"sockets cannot be listed: {os.strerror(code)}")
                family, state, port, _, address, _, user, inode = _ANSWER.unpack_from(data, at + _HEADER.size)
                if port == question[8:10]:
                    size = 4 if family == socket.AF_INET else 16
                    found.append(_Socket(state, address[:size], user, inode))
                if not flags:
                    return found
                at += max(_HEADER.size, length + 3 & ~3)
