"""ControlPlane: the parts that exist once per daemon, whether one process reads packets or several.

These are the firewall with its pinholes, the events of connection tracking, the peer gate, the watch over
the rules, and the status.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any, Final

from nfreaim.config import Config
from nfreaim.config_values import NFT
from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.counters import Counters
from nfreaim.core.firewall.peer_gate import PeerGate
from nfreaim.core.firewall.policy import Forward
from nfreaim.core.firewall.table import PinholeTable
from nfreaim.core.guarded import (
    GuardedConnections,
    GuardedFirewall,
    GuardedMachine,
    GuardedObserver,
)
from nfreaim.errors import BackendError
from nfreaim.host.events import COUNTERS, Event, noted
from nfreaim.host.home.home_servers import LinuxHomeServers
from nfreaim.host.linux_backend import LinuxBackend
from nfreaim.host.loop import TICK_S, Every, Loop, clock
from nfreaim.host.netfilter.conntrack import LinuxConntrack
from nfreaim.host.netfilter.conntrack_events import Ends, PinholeEnds, PinholeEvents
from nfreaim.host.netfilter.inside_networks import InsideNetworks
from nfreaim.host.netfilter.names import SHUT_SET, TEST_CLIENT
from nfreaim.host.outside_name import OutsideName
from nfreaim.host.pinholes.chosen_firewall import kernel_firewall
from nfreaim.host.pinholes.closing import ClosingFirewall
from nfreaim.host.pinholes.gate_host import LinuxGateHost
from nfreaim.host.pinholes.known_services import KnownServices
from nfreaim.host.pinholes.ledger import Ledger
from nfreaim.host.reload import Reload
from nfreaim.host.report.history_file import kept_history
from nfreaim.host.report.journal import Journal
from nfreaim.host.report.log_limit import tick_all
from nfreaim.host.report.losses import LossLog
from nfreaim.host.report.metrics import NOTHING, Readers, log_line, total
from nfreaim.host.report.status import Seen, of_daemon
from nfreaim.host.report.status_server import StatusServer
from nfreaim.host.rules.native_drops import NativeDrops
from nfreaim.host.rules.restoring import Refills, Restoring
from nfreaim.host.rules.script import Settings
from nfreaim.host.rules.watch import Watch
from nfreaim.host.state.state_files import StateDirectory
from nfreaim.host.upstream.reserve import Upstream

log = logging.getLogger("nfreaim")

_BUSY_TICK_S: Final = 0.1  # while a program is waited for
_EVENTS_PAUSE_S: Final = 0.02  # after events were read, because thousands of small files may make as many
_HISTORY_EVERY_S: Final = 10.0  # between two times that sums are written into the history
_RECENT: Final = 50  # events that the status tells
_CHORES_EVERY_S: Final = 30.0  # between two looks at what was lost


class ControlPlane:
    """Made before any packet is served; *stack* closes it after the last one.

    readers  returns the statistics of the processes that read packets
    silent   names a process that has not answered for so many seconds, or is ""
    changed  tells how the router's set-up differs from the interfaces that are served, or is ""
    """

    def __init__(
        self,
        config: Config,
        journal: Journal,
        readers: Callable[[], Readers],
        stack: ExitStack,
        reload: Reload,
    ) -> None:
        self._config, self._began, self._reload = config, clock(), reload
        self.silent: Callable[[float], str] = lambda seconds: ""
        self.changed: Callable[[], str] = lambda: ""
        reload.obeyers.append(self._obey)
        self._readers = readers
        self._watch: Restoring | None = None
        self._networks: InsideNetworks | None = None
        self._status = StatusServer(config.status_socket, config.status_group, self._document, clock, stack)
        self.backend = LinuxBackend(
            StateDirectory(config.state_dir),
            stack,
            check=config.check_senders,
            isolated=config.isolated_lans,
            marks=config.marks,
        )
        self.home = LinuxHomeServers(config, clock)
        stack.callback(self.home.close)
        marks = config.marks
        self._events = PinholeEvents(marks.pinhole, marks.unverified)
        stack.callback(self._events.close)
        self._answers = PinholeEvents(marks.pinhole | marks.unverified, 0)
        stack.callback(self._answers.close)
        self._ends = PinholeEnds(marks.pinhole)
        stack.callback(self._ends.close)
        self._recent: deque[Event] = deque(maxlen=_RECENT)
        self._history = kept_history(config, stack)
        self._ledger = Ledger(self._history.write)
        stack.callback(self._close_ledger)
        journal.hear = self._hear
        journal.late = True
        self._journal = journal
        stack.callback(self._tell)
        self._services = KnownServices(config.helpers().values())
        sets = self.backend.sets
        self._firewall = ClosingFirewall(
            kernel_firewall(clock, marks, sets.kind),
            sets.endpoints(SHUT_SET),
            *(clock, marks, self._closed, self._services.quiet_end),
        )
        stack.callback(self._firewall.close_sockets)
        connections = GuardedConnections(_Connections(self._read_events, self.backend.conntrack))
        machine_of = self.backend.neighbours.machine  # wherever senders are compared
        self.pinholes = PinholeTable(
            config.pinholes,
            GuardedFirewall(self._firewall),
            GuardedObserver(journal),
            GuardedMachine(lambda address: machine_of(address) or address),
            connections,
        )
        self._upstream: Upstream | None = None
        if config.pinholes.upstream != "off":
            self._upstream = Upstream(config, self.pinholes, connections.carries, clock)
            stack.callback(self._upstream.close)
        self._outside = OutsideName(self.pinholes.reach, clock)
        self._outside.look()  # it asks while the rest is made
        self._drops = [NativeDrops(config.wan, clock, partial(setattr, journal, "barred"))]
        if config.local_clients:
            here = partial(setattr, journal, "barred_here")
            self._drops.append(NativeDrops(config.wan, clock, here, "input"))
        for drops in self._drops:
            stack.callback(drops.close)
            drops.look()
        self._counters = Counters()
        self.gate = PeerGate(LinuxGateHost(self.pinholes, self.backend), self._counters, clock())
        self._unread_forwards = self._unguarded = ""
        self._losses = LossLog(config, self.pinholes, self._counters)

    def begin(self, stack: ExitStack) -> None:
        """Take over the pinholes of an earlier daemon, and begin to serve the status. Raises BackendError."""
        forwards = self._config.pinholes.forwards
        self._outside.look()
        self._firewall.foreign.refresh()
        self._firewall.foreign_marks.begin()
        stack.callback(_clear, self._firewall)
        self._firewall.set_forwards(forwards)
        for forward in forwards:
            if (taken := self._shadow(forward)) is not None:
                log.warning("forward %s: somebody else's rules have port %d and come first", forward, taken)
        self.pinholes.adopt(self.backend.conntrack.alive, clock(), self._services.greetings)
        if self._upstream is not None:
            self._upstream.begin()
        self._status.open()

    def watch_rules(self, installed: Settings | None, loop: Loop, stack: ExitStack) -> None:
        """From now on restore rules and set entries that other programs remove, and follow inside networks.

        installed  the settings that the rules are installed with; None: unknown
        """
        if installed is None:
            log.warning(
                "the installed rules name no interfaces: nobody will restore them if they are removed"
            )
            return
        entries = (self.backend.store.put_back, self._follow_again, self._open_again)
        refills = Refills(entries, self._forward_again, self._unwatched, self.unguarded)
        served = Settings.of(self._config)
        self._networks = InsideNetworks(self.backend.inside, installed.lan, clock)
        stack.callback(self._networks.close)
        self._networks.tick(clock())
        loop.read(self._networks, "read_networks", self._networks.noticed, _EVENTS_PAUSE_S)
        if installed.firewall == NFT:
            from nfreaim.host.rules.nft_watch import NftWatch  # it needs what a kernel may not have

            nft_watch = NftWatch(installed, served, self._networks, refills, clock)
            loop.read(nft_watch, "read_nft", nft_watch.noticed, _EVENTS_PAUSE_S)
            self._watch = nft_watch
        else:
            self._watch = Watch(installed, served, self._networks, refills, clock())
        stack.callback(self._watch.close)

    def unguarded(self, reason: str) -> None:
        """Connections may get into a flowtable for this *reason*; "": none can.

        Of a connection in a flowtable the gate sees nothing, so it verifies nothing while one may get there.
        """
        if reason == self._unguarded:
            return
        self._unguarded = reason
        self.pinholes.verify(not reason)
        if reason:
            log.warning(
                "peers' first bytes are not verified, because flowtables of nftables may take their"
                " connections, and those to servers, from nfreaim: %s; remedy: see what `nfreaim check` says",
                reason,
            )
        else:
            log.info("peers' first bytes are verified again: no flowtable can take their connections")

    @property
    def interfaces(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Those towards the inside clients, and those towards the Internet, for which the rules are now."""
        there = Settings.of(self._config) if self._watch is None else self._watch.settings
        return there.lan, there.wan

    def attach(self, loop: Loop, changed: Callable[[], None] = lambda: None) -> None:
        """Be served by *loop*. *changed* is called after events, which may have changed pinholes."""

        def read() -> None:
            self._read_events()
            changed()

        loop.afterwards(self._tell)
        loop.read(self._events, "read_events", read, _EVENTS_PAUSE_S)
        loop.read(self._answers, "read_answers", self._read_answers, _EVENTS_PAUSE_S)
        loop.read(self._ends, "read_ends", self._read_ends, _EVENTS_PAUSE_S)
        self._status.attach(loop.selector)
        if self._upstream is not None:
            self._upstream.attach(loop.selector, changed)
        loop.chore("look", Every(self._look_interval_s, self._look))
        loop.chore("sums", Every(lambda: TICK_S, tick_all))
        loop.chore("history", Every(lambda: _HISTORY_EVERY_S, self._write_history))
        loop.chore("chores", Every(lambda: _CHORES_EVERY_S, self._losses.look))

    def log_everything(self) -> None:
        """Log the counters, and the number of packets that the kernel dropped."""
        self._losses.look_at_drops()
        self.log_counters()

    def log_counters(self) -> None:
        """Log the counters of all readers and of the gate."""
        stats = self._total().stats
        values = {name: str(value) for name, value in stats.counters.items()}
        log.info("counters: %s", log_line(stats), extra=noted(COUNTERS, values))

    def _look_interval_s(self) -> float:
        busy = self._firewall.foreign.busy or self._firewall.foreign_marks.busy
        busy = busy or (self._watch is not None and self._watch.busy)
        return _BUSY_TICK_S if busy else TICK_S

    def _look(self) -> None:
        self._status.expire()
        self._outside.look()
        for drops in self._drops:
            drops.look()
        if self._upstream is not None:
            self._upstream.look()
        self.home.look()
        self.gate.expire(clock())
        self._look_at_forwards()
        if self._networks is not None:
            self._networks.tick(clock())
        if self._watch is not None:
            self._watch.tick(clock())

    def _look_at_forwards(self) -> None:
        """Close the pinholes whose ports another program forwards now: their peers would end up elsewhere."""
        try:
            self._firewall.foreign_marks.look()
            changed = self._firewall.foreign.look()
        except BackendError as error:
            if str(error) != self._unread_forwards:
                log.warning("the rules of other programs cannot be read: %s", error)
            self._unread_forwards = str(error)
            return
        self._unread_forwards = ""
        if not changed:
            return
        lan = self._config.lan
        self.pinholes.close_taken(
            lambda outside: self._firewall.foreign.takes(outside, lan),
            "another program forwards its port (UPnP, PCP or the firewall), and comes first",
        )

    def _write_history(self) -> None:
        self._ledger.flush()
        self._history.tell()

    def _read_events(self) -> None:
        self._tell()  # the ledger hears that a pinhole was opened before it hears of its connections
        now = clock()
        for outside, peer in self._events.ends():
            self._ledger.began(Ends(outside, peer))
            self.pinholes.claimed(outside, peer.address, now, peer.port)

    def _read_ends(self) -> None:
        """Connections through pinholes are over; that they began is read before."""
        self._read_events()
        for ends, traffic in self._ends.ended():
            self._ledger.ended(ends, traffic)

    def _hear(self, event: Event) -> None:
        self._recent.append(event)
        if not event.values.get("client", "").startswith(f"{TEST_CLIENT}:"):
            self._ledger.hear(event)

    def _tell(self) -> None:
        try:
            self._journal.tell()
        except Exception:
            log.exception("what was opened could not be told")

    def _close_ledger(self) -> None:
        self._ledger.close(self.backend.conntrack.traffic)

    def _read_answers(self) -> None:
        """Peers have answered SYN/ACKs of connections whose first bytes have to be verified."""
        now = clock()
        for outside, peer in self._answers.ends():
            inside = self._firewall.behind(outside)
            if inside is not None:
                self.gate.completed(peer, inside, now)

    def _closed(self, inside: Endpoint) -> None:
        if not self.pinholes.expected(inside):
            self.gate.closed(inside)

    def _document(self) -> dict[str, Any]:
        """The document that the status socket gives."""
        self._tell()
        carried = self._ledger.told(self.backend.conntrack.traffic)
        seen = Seen(carried, self._ledger.total(), self._recent)
        forwards = self._config.pinholes.forwards
        told = of_daemon(self.pinholes, forwards, self._total(), self._began, clock(), seen)
        lan, wan = self.interfaces
        return {
            **told,
            "upstream": self.pinholes.reach.in_front,
            "shadowed": [str(forward) for forward in forwards if self._shadow(forward) is not None],
            "reload": self._reload.as_dict(),
            "idle": None,
            "interfaces": {"lan": [*lan], "wan": [*wan], "changed": self.changed()},
        }

    def _shadow(self, forward: Forward) -> int | None:
        """The first port of *forward* that another program's rules forward, which come first."""
        return next((port for port in forward.ports if self._firewall.foreign.has(port)), None)

    def _obey(self, config: Config) -> None:
        """The operator has changed the settings to these. Raises BackendError."""
        self._config = config
        self.home.obey(config)
        self.pinholes.obey(config.pinholes)
        self._firewall.set_forwards(config.pinholes.forwards)

    def _total(self) -> Readers:
        """The statistics of all readers and of the gate, added up."""
        told = self._readers()
        self._counters.evicted_pinholes = self.pinholes.gave_way
        gate = NOTHING._replace(counters=self._counters.as_dict())
        return told._replace(stats=total([told.stats, gate]))

    # --- refills of the watch ---

    def _follow_again(self) -> list[str]:
        return [f"{followed.client} > {followed.server}" for followed in self.backend.queue.put_back()]

    def _unwatched(self, until: float) -> None:
        self.gate.unwatched(until)
        self.backend.was_unwatched(until)

    def _open_again(self) -> list[str]:
        return [f"{pinhole.outside} -> {pinhole.inside}" for pinhole in self.pinholes.reinstall(clock())]

    def _forward_again(self) -> list[Forward]:
        wanted = self._config.pinholes.forwards
        if not wanted or self._firewall.forwards() == list(wanted):
            return []
        self._firewall.set_forwards(wanted)
        return list(wanted)


class _Connections:
    """core.firewall.carrying.Connections, whose events are read by *look*."""

    def __init__(self, look: Callable[[], None], conntrack: LinuxConntrack) -> None:
        self.look, self._conntrack = look, conntrack

    def carries(self, connection: FlowId) -> bool:
        return self._conntrack.carries(connection, server_inside=True)


def _clear(firewall: ClosingFirewall) -> None:
    """Take out of the kernel what needs a daemon; the next start, or the rules' removal, repeats it."""
    try:
        firewall.clear()
    except BackendError as error:
        log.warning("forwards stay in the kernel: %s", error)
