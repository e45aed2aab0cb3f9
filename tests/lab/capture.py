"""Packets as they pass an interface of the lab, taken with an AF_PACKET socket of that node.

The kernel stamps each packet where it passes, so stamps of two interfaces can be compared.
"""

from __future__ import annotations

import math
import socket
import struct
import threading
import time
from dataclasses import dataclass
from types import TracebackType

from tests.lab.namespace import socket_in
from tests.lab.net import Lab
from tests.tcp.packets import Packet

_ETH_P_ALL, _PACKET_OUTGOING = 3, 4
_SO_TIMESTAMPNS = 35


@dataclass(frozen=True, slots=True)
class Passed(Packet):
    """A TCP packet, when it passed, and whether it was leaving by that interface."""

    time: float
    leaving: bool


class Capture:
    """Collects the TCP packets of one interface until it is closed; a context manager."""

    def __init__(self, lab: Lab, node: str, interface: str) -> None:
        self.packets: list[Passed] = []
        self._socket = socket_in(lab, node, socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._socket.bind((interface, _ETH_P_ALL))
        self._socket.settimeout(0.05)  # what closing may take
        self._end = math.inf
        self._reader = threading.Thread(target=self._read)

    def __enter__(self) -> Capture:
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end = time.time()
        self._reader.join()
        self._socket.close()

    def _read(self) -> None:
        while True:
            try:
                data, extra, _, address = self._socket.recvmsg(65535, 64)
            except TimeoutError:
                if self._end < math.inf:
                    return
                continue
            if data[:1] and data[0] >> 4 == 4 and data[9] == socket.IPPROTO_TCP:
                seconds, nanoseconds = struct.unpack("=qq", extra[0][2][:16])
                size = int.from_bytes(data[2:4])
                stamp = seconds + nanoseconds / 1e9
                if stamp > self._end:
                    return
                self.packets.append(Passed(data[:size], stamp, address[2] == _PACKET_OUTGOING))
