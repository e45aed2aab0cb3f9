"""LossLog: warns of what was dropped, forgotten or closed early because a limit was reached."""

from __future__ import annotations

import logging

from nfreaim.config import Config
from nfreaim.core.counters import Counters
from nfreaim.core.firewall.table import PinholeTable
from nfreaim.host.events import DROPS, noted
from nfreaim.host.netfilter import queue_stats

log = logging.getLogger("nfreaim")


class LossLog:
    """One line for each kind of loss that has grown since the last look. *counters* are the gate's."""

    def __init__(self, config: Config, pinholes: PinholeTable, counters: Counters) -> None:
        self._config, self._pinholes, self._counters = config, pinholes, counters
        self._dropped = (0, 0)
        self._forgotten = 0
        self._gave_way = 0

    def look(self) -> None:
        """Log what has grown."""
        self.look_at_drops()
        self._look_at_pinholes()
        self._look_at_half_open()

    def look_at_drops(self) -> None:
        """Log the number of packets that the kernel dropped, if it has grown."""
        queues = [queue for queue in queue_stats.queues() if queue.number in self._config.queues]
        full = sum(queue.dropped_full for queue in queues)
        socket = sum(queue.dropped_socket for queue in queues)
        if (full, socket) == self._dropped:
            return
        sessions = [queue for queue in queues if queue.number in self._config.reading]
        log.warning(
            "packets dropped by the kernel since the start: %d queue full, %d socket full; "
            "%d of them of known connections",
            full,
            socket,
            sum(queue.dropped_full + queue.dropped_socket for queue in sessions),
            extra=noted(DROPS, {"queue_full": str(full), "socket_full": str(socket)}),
        )
        self._dropped = full, socket

    def _look_at_pinholes(self) -> None:
        gave_way = self._pinholes.gave_way
        if gave_way != self._gave_way:
            log.warning(
                "all pinholes or ports are taken: %d gave way to hosts with fewer since the start; remedy:"
                " see with `nfreaim status` which host has so many",
                gave_way,
            )
        self._gave_way = gave_way

    def _look_at_half_open(self) -> None:
        forgotten = self._counters.evicted_half_open
        if forgotten != self._forgotten:
            log.warning(
                "%d connections through pinholes that no peer had completed were forgotten since the start: "
                "somebody floods an open port with SYNs",
                forgotten,
            )
            self._forgotten = forgotten
