"""ControlPlane: the parts that exist once per daemon, whether one or several processes read packets.

These are the firewall with its pinholes, the events of connection tracking, the peer gate, the watch over
the rules, and the status.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, Final

from nfreaim.config import Config
from nfreaim.core.counters import Counters
from nfreaim.core.firewall.peer_gate import PeerGate
from nfreaim.core.firewall.pinhole import Observer
from nfreaim.core.firewall.policy import Forward
from nfreaim.core.firewall.table import PinholeTable
from nfreaim.core.greeting import Greeting
from nfreaim.core.guarded import GuardedKernel
from nfreaim.core.lost import LostFlows
from nfreaim.errors import BackendError
from nfreaim.host.linux_backend import LinuxBackend
from nfreaim.host.loop import TICK, Every, Loop, clock
from nfreaim.host.netfilter import queue_stats
from nfreaim.host.netfilter.conntrack import PinholeEvents
from nfreaim.host.netfilter.ipset import LAN_SET, OFFLOAD_SET, PIN_SET, SERVER_SET, SKEW_SET
from nfreaim.host.netfilter.iptables import PINHOLE_MARK, UNVERIFIED_MARK
from nfreaim.host.pinholes.foreign_forwards import ForeignForwards
from nfreaim.host.pinholes.gate_host import LinuxGateHost
from nfreaim.host.pinholes.ipset_firewall import IpsetFirewall
from nfreaim.host.report.metrics import Metrics
from nfreaim.host.report.status import of_daemon
from nfreaim.host.report.status_server import StatusServer
from nfreaim.host.rules import script
from nfreaim.host.rules.watch import Watch
from nfreaim.host.state.state_directory import StateDirectory

log = logging.getLogger("nfreaim")

_BUSY_TICK: Final = 0.1  # while the watch waits for a program
_DEAF: Final = 0.02  # after events of connections: small files may follow one another by thousands a second
_CHORES: Final = 30.0  # seconds between looks at other programs' forwards and at the kernel's drop counters

Greetings = Callable[[str], tuple[Greeting, ...]]
"""What a service's peers say first."""


class ControlPlane:
    """Made before anything is served, and unmade by *stack* after it.

    figures   what the readers tell, and a document about each of several, for the status
    """

    def __init__(
        self,
        config: Config,
        observer: Observer,
        figures: Callable[[], tuple[Metrics, Sequence[dict[str, Any]]]],
        stack: ExitStack,
    ) -> None:
        self._config, self._began = config, clock()
        self._figures = figures
        self._watch: Watch | None = None
        self._status = StatusServer(config.status_socket, config.status_group, self._tell, clock, stack)
        self.kernel = kernel = LinuxBackend(StateDirectory(config.state_dir), stack)
        self._events = PinholeEvents(PINHOLE_MARK, UNVERIFIED_MARK)
        stack.callback(self._events.close)
        self._forwards = ForeignForwards()
        self._firewall = firewall = IpsetFirewall(self._forwards, clock)
        stack.callback(firewall.close)
        self.pinholes = PinholeTable(config.pinholes, firewall, observer)
        self._counters = Counters()
        self.gate = PeerGate(LinuxGateHost(self.pinholes, kernel, clock), self._counters, clock())
        self._dropped = (0, 0)

    def begin(self, greetings: Greetings, stack: ExitStack) -> None:
        """Take over what an earlier life left open, and tell the status from now on. Raises BackendError."""
        forwards = self._config.pinholes.forwards
        self._forwards.refresh()
        stack.callback(_clear, self._firewall)
        self._firewall.forward(forwards)
        for forward in forwards:
            if taken := [port for port in forward.ports if self._forwards.covers(port)]:
                log.warning(
                    "forward %s: somebody else's rules have port %d and come first", forward, taken[0]
                )
        self.pinholes.adopt(self.kernel.alive, clock(), greetings)
        self._status.open()

    def watch_rules(self, installed: script.Settings | None, stack: ExitStack) -> None:
        """From now on put back what somebody else takes away from the rules and sets.

        installed  what the rules are installed with
        """
        if installed is None:
            log.warning(
                "the installed rules name no interfaces: nobody will restore them if they are removed"
            )
            return
        names = (LAN_SET, OFFLOAD_SET, SKEW_SET, SERVER_SET, PIN_SET)
        kernel = self.kernel
        entries = (kernel.put_back_skewed, kernel.put_back_diverted, self._open_again)
        serves = (self._config.ports, self._config.queue, self._config.workers)
        self._watch = Watch(
            *(installed, serves, names, kernel.networks()),
            *(entries, self._forward_again, self.gate.unwatched, clock()),
        )
        stack.callback(self._watch.close)

    def attach(self, loop: Loop, changed: Callable[[], None] = lambda: None) -> None:
        """Be served by *loop*. *changed* is called when events may have changed what is open."""

        def read() -> None:
            self._read_events()
            changed()

        loop.read(self._events, "read_events", read, _DEAF)
        self._status.attach(loop.selector)
        loop.chore("look", Every(self._pace, self._look))
        loop.chore("chores", Every(lambda: _CHORES, self._chores))

    def report(self) -> None:
        """Log the counters, and what the kernel dropped."""
        self._report_drops()
        self.report_counters()

    def report_counters(self) -> None:
        """Log the counters of all that read."""
        log.info("counters: %s", self._total()[0].counted())

    def _pace(self) -> float:
        return _BUSY_TICK if self._watch and self._watch.busy else TICK

    def _look(self) -> None:
        self._status.expire()
        if self._watch is not None:
            self._watch.tick(clock())

    def _chores(self) -> None:
        self.gate.expire(clock())
        self._forwards.refresh()
        self._report_drops()

    def _report_drops(self) -> None:
        ours = {self._config.queue, *self._config.reading}
        queues = [queue for queue in queue_stats.queues() if queue.number in ours]
        dropped = sum(queue.dropped_full for queue in queues), sum(queue.dropped_socket for queue in queues)
        if dropped != self._dropped:
            log.warning(
                "packets dropped by the kernel since the start: %d queue full, %d socket full", *dropped
            )
            self._dropped = dropped

    def _read_events(self) -> None:
        now = clock()
        for connection in self._events.read():
            self.pinholes.claimed(connection.outside, connection.peer, now)

    def _tell(self) -> dict[str, Any]:
        now = clock()
        figures, workers = self._total()
        forwards = self._config.pinholes.forwards
        return of_daemon(self.pinholes, figures, forwards, now - self._began, now, workers)

    def _total(self) -> tuple[Metrics, Sequence[dict[str, Any]]]:
        """What all readers tell together, and the gate."""
        told, each = self._figures()
        return Metrics.total([told, Metrics(0, (), self._counters.as_dict())]), each

    def _open_again(self) -> list[str]:
        return [f"{pinhole.outside} -> {pinhole.inside}" for pinhole in self.pinholes.reinstall()]

    def _forward_again(self) -> list[Forward]:
        wanted = self._config.pinholes.forwards
        if not wanted or self._firewall.forwards() == list(wanted):
            return []
        self._firewall.forward(wanted)
        return list(wanted)


class PinholeReaper:
    """Ends pinholes in time where the engines are other processes': what Engine.tick does for its own."""

    def __init__(self, pinholes: PinholeTable, kernel: LinuxBackend, poll: float, grace: float) -> None:
        self._pinholes = pinholes
        self._liveness = LostFlows(GuardedKernel(kernel), grace)
        self._poll = poll
        self._next = 0.0

    def tick(self) -> None:
        """Close what is past its deadline, or whose control connection is gone."""
        now = clock()
        if now >= self._next:
            self._next = now + self._poll
            for owner, _ in self._liveness.lost(self._pinholes.tended(), now):
                self._pinholes.close_owner(owner, "control connection lost")
        self._pinholes.expire(now)


def _clear(firewall: IpsetFirewall) -> None:
    """Take our rules out of the nat table; else the next start or the rules' removal does it."""
    try:
        firewall.clear()
    except BackendError as error:
        log.warning("forwards and destinations stay in the nat table: %s", error)
