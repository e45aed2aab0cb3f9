"""LinuxGateHost: answers the peer gate on this machine (core.firewall.peer_gate.GateHost)."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.firewall.table import PinholeTable
from nfreaim.core.greeting import Greeting
from nfreaim.errors import BackendError
from nfreaim.host.events import REFUSED, noted
from nfreaim.host.linux_backend import LinuxBackend
from nfreaim.host.netfilter.interfaces import is_own

log = logging.getLogger("nfreaim")


class LinuxGateHost:
    """Answers from the pinhole table and the set of inside networks; sends resets; logs refused peers."""

    def __init__(self, pinholes: PinholeTable, backend: LinuxBackend) -> None:
        self._pinholes = pinholes
        self._conntrack = backend.conntrack
        self._resets = backend.resets

    def expected(self, inside: Endpoint) -> Sequence[Greeting]:
        return self._pinholes.expected(inside)

    def is_inside_host(self, address: str) -> bool:
        try:
            return self._conntrack.is_inside_host(address) or is_own(address)
        except BackendError as error:
            log.warning("cannot tell whether %s is inside: %s", address, error)
            return False

    def reset(self, key: bytes, seq: int, ack: int) -> None:
        self._resets.send(key, seq, ack)

    def refused(self, flow: FlowId, reason: str) -> None:
        inside = flow.server
        values = {"inside": str(inside), "peer": str(flow.client), "reason": reason}
        # Strangers have any number of addresses.
        extra = {"source": inside.address, **noted(REFUSED, values)}
        log.info("peer refused: %s to %s %s", flow.client, inside, reason, extra=extra)

    def claimed(self, flow: FlowId, now: float) -> None:
        try:
            outside = self._conntrack.reached(flow)
        except BackendError as error:
            log.warning("who claimed the pinhole to %s is not known: %s", flow.server, error)
            return
        self._pinholes.claimed(outside, flow.client.address, now, flow.client.port)
