"""ControlPlane: the parts that exist once per daemon, whether one process reads packets or several.

These are the firewall with its pinholes, the events of connection tracking, the peer gate, the watch over
the rules, and the status.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any, Final

from nfreaim.config import Config
from nfreaim.core.backend import Conntrack
from nfreaim.core.counters import Counters
from nfreaim.core.firewall.peer_gate import PeerGate
from nfreaim.core.firewall.pinhole import Observer
from nfreaim.core.firewall.policy import Forward
from nfreaim.core.firewall.table import PinholeTable
from nfreaim.core.greeting import Greeting
from nfreaim.core.guarded import GuardedConntrack, GuardedFirewall, GuardedObserver
from nfreaim.core.helper import HelperSpec
from nfreaim.core.lost import LostFlows
from nfreaim.core.settings import EngineSettings
from nfreaim.errors import BackendError
from nfreaim.host.linux_backend import LinuxBackend
from nfreaim.host.loop import TICK_S, Every, Loop, clock
from nfreaim.host.netfilter import queue_stats
from nfreaim.host.netfilter.conntrack_events import PinholeEvents
from nfreaim.host.netfilter.names import PINHOLE_MARK, UNVERIFIED_MARK
from nfreaim.host.pinholes.gate_host import LinuxGateHost
from nfreaim.host.pinholes.ipset_firewall import IpsetFirewall
from nfreaim.host.report.metrics import NOTHING, Readers, log_line, total
from nfreaim.host.report.status import of_daemon
from nfreaim.host.report.status_server import StatusServer
from nfreaim.host.rules.script import Settings
from nfreaim.host.rules.watch import Refills, Watch
from nfreaim.host.state.state_files import StateDirectory

log = logging.getLogger("nfreaim")

_BUSY_TICK_S: Final = 0.1  # while the watch waits for a program
_EVENTS_PAUSE_S: Final = 0.02  # after events were read, because thousands of small files may make as many
_CHORES_EVERY_S: Final = 30.0  # between two looks at other programs' forwards and the kernel's drop counters


class ControlPlane:
    """Made before any packet is served; *stack* closes it after the last one.

    readers  returns the statistics of the processes that read packets
    """

    def __init__(
        self, config: Config, observer: Observer, readers: Callable[[], Readers], stack: ExitStack
    ) -> None:
        self._config, self._began = config, clock()
        self._readers = readers
        self._watch: Watch | None = None
        self._status = StatusServer(config.status_socket, config.status_group, self._document, clock, stack)
        self.backend = LinuxBackend(StateDirectory(config.state_dir), stack)
        self._events = PinholeEvents(PINHOLE_MARK, UNVERIFIED_MARK)
        stack.callback(self._events.close)
        self._firewall = IpsetFirewall(clock)
        stack.callback(self._firewall.close_sockets)
        self.pinholes = PinholeTable(
            config.pinholes, GuardedFirewall(self._firewall), GuardedObserver(observer)
        )
        self._counters = Counters()
        self.gate = PeerGate(LinuxGateHost(self.pinholes, self.backend, clock), self._counters, clock())
        self._dropped = (0, 0)

    def begin(self, stack: ExitStack) -> None:
        """Take over the pinholes of an earlier daemon, and begin to serve the status. Raises BackendError."""
        forwards = self._config.pinholes.forwards
        self._firewall.refresh_foreign_forwards()
        stack.callback(_clear, self._firewall)
        self._firewall.set_forwards(forwards)
        for forward in forwards:
            taken = next((port for port in forward.ports if self._firewall.forwarded_by_others(port)), None)
            if taken is not None:
                log.warning("forward %s: somebody else's rules have port %d and come first", forward, taken)
        greetings = _Greetings(self._config.helpers().values())
        self.pinholes.adopt(self.backend.conntrack.alive, clock(), greetings.of)
        self._status.open()

    def watch_rules(self, installed: Settings | None, stack: ExitStack) -> None:
        """From now on restore rules and set entries that other programs remove.

        installed  the settings that the rules are installed with; None: unknown
        """
        if installed is None:
            log.warning(
                "the installed rules name no interfaces: nobody will restore them if they are removed"
            )
            return
        entries = (self.backend.store.put_back, self._follow_again, self._open_again)
        refills = Refills(entries, self._forward_again, self.gate.unwatched)
        served = Settings.of(self._config)
        self._watch = Watch(installed, served, self.backend.inside, refills, clock())
        stack.callback(self._watch.close)

    def attach(self, loop: Loop, changed: Callable[[], None] = lambda: None) -> None:
        """Be served by *loop*. *changed* is called after events, which may have changed pinholes."""

        def read() -> None:
            self._read_events()
            changed()

        loop.read(self._events, "read_events", read, _EVENTS_PAUSE_S)
        self._status.attach(loop.selector)
        loop.chore("look", Every(self._look_interval_s, self._look))
        loop.chore("chores", Every(lambda: _CHORES_EVERY_S, self._chores))

    def log_everything(self) -> None:
        """Log the counters, and the number of packets that the kernel dropped."""
        self._log_drops()
        self.log_counters()

    def log_counters(self) -> None:
        """Log the counters of all readers and of the gate."""
        log.info("counters: %s", log_line(self._total().stats))

    def _look_interval_s(self) -> float:
        return _BUSY_TICK_S if self._watch and self._watch.busy else TICK_S

    def _look(self) -> None:
        self._status.expire()
        if self._watch is not None:
            self._watch.tick(clock())

    def _chores(self) -> None:
        self.gate.expire(clock())
        self._firewall.refresh_foreign_forwards()
        self._log_drops()

    def _log_drops(self) -> None:
        ours = {self._config.queue, *self._config.reading}
        queues = [queue for queue in queue_stats.queues() if queue.number in ours]
        full = sum(queue.dropped_full for queue in queues)
        socket = sum(queue.dropped_socket for queue in queues)
        if (full, socket) != self._dropped:
            log.warning(
                "packets dropped by the kernel since the start: %d queue full, %d socket full", full, socket
            )
            self._dropped = full, socket

    def _read_events(self) -> None:
        now = clock()
        for connection in self._events.read():
            self.pinholes.claimed(connection.outside, connection.peer, now)

    def _document(self) -> dict[str, Any]:
        """The document that the status socket gives."""
        return of_daemon(self.pinholes, self._config.pinholes.forwards, self._total(), self._began, clock())

    def _total(self) -> Readers:
        """The statistics of all readers and of the gate, added up."""
        told = self._readers()
        gate = NOTHING._replace(counters=self._counters.as_dict())
        return told._replace(stats=total([told.stats, gate]))

    # --- refills of the watch ---

    def _follow_again(self) -> list[str]:
        return [f"{followed.client} > {followed.server}" for followed in self.backend.queue.put_back()]

    def _open_again(self) -> list[str]:
        return [f"{pinhole.outside} -> {pinhole.inside}" for pinhole in self.pinholes.reinstall()]

    def _forward_again(self) -> list[Forward]:
        wanted = self._config.pinholes.forwards
        if not wanted or self._firewall.forwards() == list(wanted):
            return []
        self._firewall.set_forwards(wanted)
        return list(wanted)


class PinholeReaper:
    """Closes pinholes in time if the engines are in other processes: Engine.tick cannot do it there."""

    def __init__(self, pinholes: PinholeTable, conntrack: Conntrack, settings: EngineSettings) -> None:
        self._pinholes = pinholes
        self._lost_flows = LostFlows(GuardedConntrack(conntrack), settings.grace)
        self._poll_s = settings.poll
        self._next = 0.0

    def tick(self) -> None:
        """Close the pinholes that are past their deadline, and those of control connections that are lost."""
        now = clock()
        if now >= self._next:
            self._next = now + self._poll_s
            for flow, _ in self._lost_flows.lost(self._pinholes.tended(), now):
                self._pinholes.close_flow(flow, "control connection lost", now)
        self._pinholes.expire(now)


class _Greetings:
    """The greetings of each protocol's services."""

    def __init__(self, specs: Iterable[HelperSpec]) -> None:
        self._services = {spec.name: spec.services for spec in specs}

    def of(self, protocol: str, service: str) -> tuple[Greeting, ...]:
        found = self._services.get(protocol, {}).get(service)
        return () if found is None else found.greetings


def _clear(firewall: IpsetFirewall) -> None:
    """Take our rules out of the nat table. If that fails, the next start or the rules' removal does it."""
    try:
        firewall.clear()
    except BackendError as error:
        log.warning("forwards and destinations stay in the nat table: %s", error)
