"""Tap: a packet socket on one interface, with a filter in the kernel that passes what is asked for."""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from nfreaim.errors import BackendError

_ETH_P_ALL: Final = 3  # with it alone packets that leave are seen, too
_ETH_P_IP: Final = 0x0800
_SO_TIMESTAMPNS: Final = 35
_SO_ATTACH_FILTER: Final = 26
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_BUFFER: Final = 8 << 20
_LONGEST: Final = 65536
_MOST_AT_ONCE: Final = 512

# linux/filter.h: an instruction is code, jump if true, jump if false, operand.
_INSTRUCTION: Final = struct.Struct("=HBBI")
_BYTE, _HALF = 0x30, 0x28  # load at a fixed offset
_BYTE_X, _HALF_X = 0x50, 0x48  # load behind the IPv4 header
_HEADER_LENGTH: Final = 0xB1  # into X
_EQUAL, _ANY_BIT = 0x15, 0x45
_RETURN: Final = 0x06
_PROTOCOL: Final = 0xFFFFF000  # SKF_AD_OFF + SKF_AD_PROTOCOL
_TCP, _FRAGMENT, _SYN = 6, 0x1FFF, 2
_BRIDGED: Final = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
_INTERFACES: Final = Path("/sys/class/net")
MOST_PORTS: Final = 900
"""At most as many ports, because a filter has 4,096 instructions (BPF_MAXINSNS) and a port takes four."""


def program(ports: Iterable[int]) -> bytes:
    """The filter: TCP in whole packets of IPv4 with one of *ports* at either end, and every SYN.

    SYNs pass whatever their port, because a peer may be quicker than the message that says where it connects.
    """
    known = sorted(set(ports))[:MOST_PORTS]
    accept = (_RETURN, 0, 0, _LONGEST)
    head = [(_HALF, 0, 0, _PROTOCOL), (_EQUAL, 1, 0, _ETH_P_IP), (_RETURN, 0, 0, 0)]
    head += [(_BYTE, 0, 0, 9), (_EQUAL, 1, 0, _TCP), (_RETURN, 0, 0, 0)]
    head += [(_HALF, 0, 0, 6), (_ANY_BIT, 0, 1, _FRAGMENT), (_RETURN, 0, 0, 0)]
    head += [(_HEADER_LENGTH, 0, 0, 0), (_BYTE_X, 0, 0, 13), (_ANY_BIT, 0, 1, _SYN), accept]
    for offset in (0, 2):
        head.append((_HALF_X, 0, 0, offset))
        for port in known:
            head += [(_EQUAL, 0, 1, port), accept]
    head.append((_RETURN, 0, 0, 0))
    return b"".join(_INSTRUCTION.pack(*one) for one in head)


def places(name: str) -> list[str]:
    """The interfaces to tap so that packets of *name* are seen as they come from its hosts.

    Where iptables sees bridged packets (br_netfilter), what enters a bridge has passed the rules already when
    it gets to the bridge's own interface. Then its ports are tapped.
    """
    try:
        passes = _BRIDGED.read_text().strip() == "1"
        ports = sorted(port.name for port in (_INTERFACES / name / "brif").iterdir())
    except OSError:
        return [name]
    return ports if passes and ports else [name]


class Tap:
    """What passes the interface *name*, in both directions. Raises BackendError if it cannot be opened."""

    def __init__(self, name: str, ports: Iterable[int]) -> None:
        self.name, self.lost = name, 0
        try:
            # No protocol at first: nothing comes before the filter is there.
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        except PermissionError as error:
            raise BackendError(f"packets of {name} cannot be seen: {error}; run it as root") from error
        try:
            self._socket.setblocking(False)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            self.filter(ports)
            self._socket.bind((name, _ETH_P_ALL))
        except OSError as error:
            self._socket.close()
            raise BackendError(f"packets of {name} cannot be seen: {error}") from error

    def fileno(self) -> int:
        """The socket, to wait for."""
        return self._socket.fileno()

    def filter(self, ports: Iterable[int]) -> None:
        """From now on packets of these *ports* pass."""
        text = program(ports)
        buffer = ctypes.create_string_buffer(text, len(text))
        address = ctypes.addressof(buffer)
        what = struct.pack("HP", len(text) // _INSTRUCTION.size, address)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, what)

    def read(self) -> Iterator[tuple[float, bytes]]:
        """The packets that wait, from the IPv4 header on, each with the time at which it passed."""
        for _ in range(_MOST_AT_ONCE):
            try:
                data, extra, _, _ = self._socket.recvmsg(_LONGEST, 64)
            except BlockingIOError:
                return
            except OSError:  # the interface is down; it may come back
                return
            if extra:
                seconds, nanoseconds = struct.unpack("=qq", extra[0][2][:16])
                yield seconds + nanoseconds / 1e9, data

    def close(self) -> None:
        """Close the socket; *lost* says how many packets the kernel dropped because it was full."""
        counts = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        self.lost = struct.unpack("=II", counts)[1]
        self._socket.close()
