"""LinuxGateHost: the surroundings of the peer gate on this machine (core.firewall.peer_gate.GateHost).."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.firewall.table import PinholeTable
from nfreaim.core.greeting import Greeting
from nfreaim.errors import BackendError
from nfreaim.host.linux_backend import LinuxBackend

log = logging.getLogger("nfreaim")

_LINES: Final = 10  # log lines about refused connections in a minute: a scan must not fill the disk
_MINUTE: Final = 60.0


class LinuxGateHost:
    """Answers for the pinhole table, the set of inside networks, the raw socket and the log."""

    def __init__(self, pinholes: PinholeTable, kernel: LinuxBackend, clock: Callable[[], float]) -> None:
        self._pinholes = pinholes
        self._kernel = kernel
        self._clock = clock
        self._minute = 0.0
        self._lines = 0

    def expected(self, inside: Endpoint) -> Sequence[Greeting]:
        return self._pinholes.expected(inside)

    def inside(self, address: str) -> bool:
        try:
            return self._kernel.lan(address)
        except BackendError as error:
            log.warning("cannot tell whether %s is inside: %s", address, error)
            return False

    def reset(self, key: bytes, seq: int, ack: int) -> None:
        self._kernel.reset_peer(key, seq, ack)

    def refused(self, connection: FlowId, reason: str) -> None:
        now = self._clock()
        if now >= self._minute + _MINUTE:
            if self._lines > _LINES:
                log.info("%d more peers were refused", self._lines - _LINES)
            self._minute, self._lines = now, 0
        self._lines += 1
        if self._lines <= _LINES:
            log.info("peer refused: %s to %s %s", connection.client, connection.server, reason)
