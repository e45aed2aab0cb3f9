"""Daemon: one loop over the queue, the events of connection tracking, signals and the clock.

No threads and no asyncio: there is one thing to wait for at a time. Everything that is made here is unmade
in the opposite order, whatever ends the loop.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Final

from nfreaim.config import Config
from nfreaim.core.engine import Engine
from nfreaim.core.gate import PeerGate
from nfreaim.core.greeting import Greeting
from nfreaim.core.helper import HelperFactory
from nfreaim.core.pinhole import Forward, PinholeTable
from nfreaim.errors import BackendError
from nfreaim.host import privilege, rules
from nfreaim.host.conntrack import PinholeEvents
from nfreaim.host.forwards import Forwards
from nfreaim.host.gate import Doorman
from nfreaim.host.ipset import LAN_SET, OFFLOAD_SET, PIN_SET, SERVER_SET, SKEW_SET
from nfreaim.host.iptables import PINHOLE_MARK, UNVERIFIED_MARK
from nfreaim.host.journal import Journal
from nfreaim.host.kernel import LinuxKernel
from nfreaim.host.pins import Pins
from nfreaim.host.queue import PacketQueue
from nfreaim.host.state import StateDirectory
from nfreaim.host.status import of_daemon
from nfreaim.host.status_server import StatusServer
from nfreaim.host.watch import Watch

log = logging.getLogger("nfreaim")

_TICK: Final = 1.0
_DEAF: Final = 0.02  # after events of connections: small files may follow one another by thousands a second
# So long packets have the loop to themselves, as long as they come without a pause. It is also how late a
# signal, an event or the status may be noticed meanwhile.
_STAY: Final = 0.05
# Where flows stand is written down when no packet waits, and so often if there is always one: of thousands of
# busy flows that takes as long as their packets do. What a crash finds outdated costs a longer search only.
_KEEP: Final = 0.25
_EFFORT: Final = 512  # places at once: 3 ms
_BUSY_TICK: Final = 0.1  # while the watch waits for a program
_FAILURES: Final = 5  # in a row, of one part of the loop; then the daemon ends, and is started anew
_CHORES: Final = 30.0  # seconds between looks at other programs' forwards and at the kernel's drop counters
_STOPPING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


clock: Final[Callable[[], float]] = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
"""Seconds since boot, suspend included: deadlines in the kernel survive a restart and any clock step."""


Greetings = Callable[[str], tuple[Greeting, ...]]
"""What a service's peers say first."""


def serve(config: Config, helper: HelperFactory, greetings: Greetings) -> None:
    """Be the ALG until SIGTERM, SIGINT or SIGHUP. SIGUSR1 logs the counters, and what the kernel dropped.

    Raises BackendError if it cannot begin; then, as in the end, nothing of it is left behind.
    """
    privilege.require()
    with ExitStack() as stack:
        signals = stack.enter_context(_signals())
        try:
            temporary, installed = _install_rules(config, stack)
            daemon = Daemon(config, helper, greetings, temporary, stack)
            daemon.watch_rules(installed, stack)
        except OSError as error:  # whatever is made here is a socket or a file
            reason = os.strerror(error.errno) if error.errno else type(error).__name__
            raise BackendError(f"the daemon cannot begin: {reason} ({error})") from error
        log.info("ready: serving queue %d for ports %s", config.queue, " ".join(map(str, config.ports)))
        daemon.loop(signals)


def _install_rules(config: Config, stack: ExitStack) -> tuple[bool, rules.Settings | None]:
    """Complete the static rules: whether there were none before, and they go again in the end; and what they
    are installed with, None if nobody can tell."""
    shown, complete = rules.shown()
    wanted = rules.named(config.lan, config.wan, config.ports, config.queue)
    interfaces = bool(config.lan and config.wan)
    if complete:
        if found := rules.difference(shown, config.ports, config.queue):
            raise BackendError(found)
        return False, rules.settings(shown) or (wanted if interfaces else None)
    if not interfaces:
        raise BackendError(
            "the rules are not installed and the interfaces are not known: run make install-rules "
            "LAN=... WAN=..., or name them with --lan and --wan or in the configuration"
        )
    temporary = rules.CHAIN not in shown
    if temporary:
        stack.callback(rules.remove, force=True)  # what waits for us was reset before
    rules.install(*wanted)
    return temporary, wanted


class Daemon:
    """The parts of the running ALG; *stack* unmakes them. *temporary*: the rules end with it."""

    def __init__(
        self,
        config: Config,
        helper: HelperFactory,
        greetings: Greetings,
        temporary: bool,
        stack: ExitStack,
    ) -> None:
        self._config, self._began = config, clock()
        self._watch: Watch | None = None
        self._failures: dict[str, int] = {}
        self._keep_at = 0.0
        self._status = StatusServer(config.status_socket, config.status_group, self._tell, clock, stack)
        self._kernel = LinuxKernel(StateDirectory(config.state_dir), stack)
        self._events = PinholeEvents(PINHOLE_MARK, UNVERIFIED_MARK)
        stack.callback(self._events.close)
        self._forwards = Forwards()
        journal = Journal()
        self._firewall = firewall = Pins(self._forwards, clock)
        stack.callback(firewall.close)
        self._pinholes = PinholeTable(config.pinholes, firewall, journal)
        self._temporary = temporary
        helpers = dict.fromkeys(config.ports, helper)
        self._engine = Engine(helpers, self._pinholes, self._kernel, journal, config.engine)
        doorman = Doorman(self._pinholes, self._kernel, clock)
        self._gate = PeerGate(doorman, self._engine.counters, clock())
        self._queue = PacketQueue(config.queue, self._engine, clock, self._gate)
        self._dropped = (0, 0)
        # From here on packets wait for us: what else is needed to answer them has to be there.
        self._queue.open()
        stack.callback(self._close)
        self._restore()
        self._forwards.refresh()
        stack.callback(_clear, firewall)
        firewall.forward(config.pinholes.forwards)
        for forward in config.pinholes.forwards:
            if taken := [port for port in forward.ports if self._forwards.covers(port)]:
                log.warning(
                    "forward %s: somebody else's rules have port %d and come first", forward, taken[0]
                )
        self._pinholes.adopt(self._kernel.alive, clock(), greetings)
        self._status.open()

    def watch_rules(self, installed: rules.Settings | None, stack: ExitStack) -> None:
        """From now on put back what somebody else takes away from the rules and sets.

        installed  what the rules are installed with
        """
        if installed is None:
            log.warning(
                "the installed rules name no interfaces: nobody will restore them if they are removed"
            )
            return
        names = (LAN_SET, OFFLOAD_SET, SKEW_SET, SERVER_SET, PIN_SET)
        kernel = self._kernel
        entries = (kernel.put_back_skewed, kernel.put_back_diverted, self._open_again)
        serves = (self._config.ports, self._config.queue)
        self._watch = Watch(
            *(installed, serves, names, kernel.networks()),
            *(entries, self._forward_again, self._gate.unwatched, clock()),
        )
        stack.callback(self._watch.close)

    def _open_again(self) -> list[str]:
        return [f"{pinhole.outside} -> {pinhole.inside}" for pinhole in self._pinholes.reinstall()]

    def _forward_again(self) -> list[Forward]:
        wanted = self._config.pinholes.forwards
        if not wanted or self._firewall.forwards() == list(wanted):
            return []
        self._firewall.forward(wanted)
        return list(wanted)

    def loop(self, signals: socket.socket) -> None:
        """Serve packets, events and the clock until a signal ends it.

        A part that fails is tried again; if it goes on failing the daemon ends, because it would do harm
        half alive: pinholes that nobody closes. Without it packets pass, and it is started anew.
        """
        read_events = partial(self._try, self._read_events)
        with selectors.DefaultSelector() as selector:
            selector.register(self._queue, selectors.EVENT_READ, self._serve)
            selector.register(self._events, selectors.EVENT_READ, read_events)
            selector.register(signals, selectors.EVENT_READ)
            self._status.attach(selector)
            tick = chores = clock()
            deaf = 0.0  # until when no events are read, or 0
            while True:
                hold = self._engine.wakeup()
                due = tick if hold is None else min(tick, hold)
                if self._engine.sessions.moved:
                    due = min(due, self._keep_at)
                for key, _ in selector.select(max(0.0, min(due, deaf or due) - clock())):
                    if key.fileobj is signals:
                        if self._signalled(signals):
                            return
                    else:
                        key.data()
                        if key.fileobj is self._events:
                            selector.unregister(self._events)
                            deaf = clock() + _DEAF
                now = clock()
                if deaf and now >= deaf:
                    selector.register(self._events, selectors.EVENT_READ, read_events)
                    deaf = 0.0
                if now >= self._keep_at:
                    self._engine.sessions.keep(_EFFORT)
                    self._keep_at = 0.0 if self._engine.sessions.moved else now + _KEEP
                if now >= due:
                    self._try(self._tick)
                    tick = now + (_BUSY_TICK if self._watch and self._watch.busy else _TICK)
                if now >= chores:
                    self._try(self._chores)
                    chores = now + _CHORES

    def _serve(self) -> None:
        held = self._engine.wakeup() is not None
        if self._queue.serve(0.0 if held else _STAY):
            self._keep_at = 0.0

    def _try(self, part: Callable[[], None]) -> None:
        name = part.__name__.strip("_")
        try:
            part()
        except Exception as error:
            failures = self._failures[name] = self._failures.get(name, 0) + 1
            log.error("%s failed", name, exc_info=error if failures == 1 else None)
            if failures >= _FAILURES:
                raise
        else:
            self._failures.pop(name, None)

    def _tick(self) -> None:
        self._queue.apply(self._engine.tick(clock()))
        self._status.expire()
        if self._watch is not None:
            self._watch.tick(clock())

    def _signalled(self, signals: socket.socket) -> bool:
        """Whether one of the signals that came asks to stop."""
        for number in signals.recv(64):
            if number in _STOPPING:
                log.info("stopping: %s", signal.Signals(number).name)
                return True
            self._report_drops()
            log.info("counters: %s", self._engine.counters)
        return False

    def _read_events(self) -> None:
        now = clock()
        for connection in self._events.read():
            self._pinholes.claimed(connection.outside, connection.peer, now)

    def _tell(self) -> dict[str, Any]:
        now = clock()
        return of_daemon(self._engine, self._config.pinholes.forwards, now - self._began, now)

    def _chores(self) -> None:
        self._gate.expire(clock())
        self._forwards.refresh()
        self._report_drops()

    def _report_drops(self) -> None:
        dropped = self._queue.dropped()
        if dropped != self._dropped:
            log.warning(
                "packets dropped by the kernel since the start: %d queue full, %d socket full", *dropped
            )
            self._dropped = dropped

    def _restore(self) -> None:
        """Go on with the flows of an earlier life; a damaged record counts as lost."""
        for key, record in self._kernel.begin().items():
            try:
                self._engine.sessions.restore(record, clock())
            except (ValueError, KeyError, TypeError) as error:
                log.warning("a connection cannot go on: its record is damaged (%s)", type(error).__name__)
                self._kernel.abandon(key)

    def _close(self) -> None:
        """Answer what waits, let go what is held, close what is open, leave the queue, empty the set.

        Skewed flows wait for the next daemon, as long as the rules stay, and known sessions are kept for it.
        If the rules go, too, nobody could ever translate them again: both ends are told, nothing is kept.
        """
        self._queue.serve()
        self._queue.apply(self._engine.shutdown("daemon stopped"))
        if not self._temporary:
            self._engine.sessions.keep()
        else:
            for flow in list(self._engine.flows.skewed.values()):
                self._kernel.cut(flow)
            self._kernel.forget_all()
        self._queue.close()
        try:
            self._kernel.take_back()
        except BackendError as error:  # somebody removed the rules meanwhile
            log.warning("%s", error)
        log.info("counters: %s", self._engine.counters)


def _clear(firewall: Pins) -> None:
    """Take our rules out of the nat table; else the next start or the rules' removal does it."""
    try:
        firewall.clear()
    except BackendError as error:
        log.warning("forwards and destinations stay in the nat table: %s", error)


@contextmanager
def _signals() -> Iterator[socket.socket]:
    """A socket that the numbers of our signals arrive on, one byte each; handlers as found afterwards."""
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    numbers = (*_STOPPING, signal.SIGUSR1)
    found = {number: signal.getsignal(number) for number in numbers}
    earlier = signal.set_wakeup_fd(writer.fileno())
    try:
        for number in numbers:
            signal.signal(number, _ignore)
        yield reader
    finally:
        for number, handler in found.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(earlier)
        reader.close()
        writer.close()


def _ignore(number: int, frame: object) -> None:
    """Python needs a handler for the signal's number to be written to the socket."""
