"""LinuxGateHost: answers the peer gate on this machine (core.firewall.peer_gate.GateHost)."""

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

_MOST_LINES: Final = 10  # about refused peers in a period, because a port scan must not fill the disk
_PERIOD_S: Final = 60.0


class LinuxGateHost:
    """Answers from the pinhole table and the set of inside networks; sends resets; logs refused peers."""

    def __init__(self, pinholes: PinholeTable, backend: LinuxBackend, clock: Callable[[], float]) -> None:
        self._pinholes = pinholes
        self._conntrack = backend.conntrack
        self._resets = backend.resets
        self._clock = clock
        self._began = 0.0
        self._lines = 0

    def expected(self, inside: Endpoint) -> Sequence[Greeting]:
        return self._pinholes.expected(inside)

    def is_inside_host(self, address: str) -> bool:
        try:
            return self._conntrack.is_inside_host(address)
        except BackendError as error:
            log.warning("cannot tell whether %s is inside: %s", address, error)
            return False

    def reset(self, key: bytes, seq: int, ack: int) -> None:
        self._resets.send(key, seq, ack)

    def refused(self, flow: FlowId, reason: str) -> None:
        now = self._clock()
        if now >= self._began + _PERIOD_S:
            if self._lines > _MOST_LINES:
                log.info("%d more peers were refused", self._lines - _MOST_LINES)
            self._began, self._lines = now, 0
        self._lines += 1
        if self._lines <= _MOST_LINES:
            log.info("peer refused: %s to %s %s", flow.client, flow.server, reason)
