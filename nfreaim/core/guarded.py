"""Guards: wrappers that turn any exception of a back end into BackendError, logged once per method and type.

A back end that raises anything else has a defect. That must not cost a packet its verdict, nor the daemon its
life. Methods that are declared to raise nothing return a harmless value instead.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.backend import (
    Backend,
    Conntrack,
    FlowStore,
    Followed,
    HomeServers,
    LocalClients,
    QueueControl,
    Record,
    Reset,
    Sender,
    Senders,
    SendPacket,
    Watcher,
)
from nfreaim.core.firewall.carrying import Connections
from nfreaim.core.firewall.fairness import MachineOf
from nfreaim.core.firewall.pinhole import Firewall, Observer, Pinhole
from nfreaim.core.helper import Report
from nfreaim.core.tcp.segment import Segment
from nfreaim.errors import BackendError

log = logging.getLogger(__name__)

T = TypeVar("T")


class _Guard:
    """Remembers what was logged. *name* is that of the back end in the log."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._logged: set[tuple[str, type[Exception]]] = set()

    def raising(self, method: str, call: Callable[[], T]) -> T:
        """What *call* returns. Raises BackendError and nothing else."""
        try:
            return call()
        except BackendError:
            raise
        except Exception as error:
            self._log(method, error)
            raise BackendError(f"{self._name}.{method} failed: {type(error).__name__}") from error

    def quiet(self, method: str, call: Callable[[], T], otherwise: T) -> T:
        """What *call* returns, or *otherwise* if it fails. Raises nothing."""
        try:
            return call()
        except Exception as error:
            self._log(method, error)
            return otherwise

    def _log(self, method: str, error: Exception) -> None:
        kind = (method, type(error))
        known = kind in self._logged
        self._logged.add(kind)
        if isinstance(error, BackendError):
            log.log(logging.DEBUG if known else logging.WARNING, "%s", error)
        else:
            log.error("%s.%s failed unexpectedly", self._name, method, exc_info=None if known else error)


class GuardedFirewall(_Guard):
    """A core.firewall.pinhole.Firewall."""

    def __init__(self, firewall: Firewall) -> None:
        super().__init__("firewall")
        self._firewall = firewall

    def open(self, pinhole: Pinhole, earlier: Pinhole | None) -> None:
        self.raising("open", lambda: self._firewall.open(pinhole, earlier))

    def close(self, pinhole: Pinhole) -> None:
        self.raising("close", lambda: self._firewall.close(pinhole))

    def renew(self, pinholes: Sequence[Pinhole]) -> Sequence[Pinhole]:
        return self.raising("renew", lambda: self._firewall.renew(pinholes))

    def busy(self, outside: Endpoint) -> bool:
        return self.quiet("busy", lambda: self._firewall.busy(outside), True)

    def forwarded(self, outside: Endpoint) -> bool:
        return self.quiet("forwarded", lambda: self._firewall.forwarded(outside), False)

    def list(self) -> list[Pinhole]:
        return self.raising("list", self._firewall.list)

    def prepare(self, host: str) -> None:
        self.quiet("prepare", lambda: self._firewall.prepare(host), None)

    def upkeep(self) -> None:
        self.quiet("upkeep", self._firewall.upkeep, None)


class GuardedMachine(_Guard):
    """A core.firewall.fairness.MachineOf: if it fails, an address is a machine of its own."""

    def __init__(self, machine: MachineOf) -> None:
        super().__init__("neighbours")
        self._machine = machine

    def __call__(self, address: str) -> str:
        return self.quiet("machine", lambda: self._machine(address), address)


class GuardedConnections(_Guard):
    """A core.firewall.carrying.Connections: what cannot be told is taken for a connection that is open."""

    def __init__(self, connections: Connections) -> None:
        super().__init__("conntrack")
        self._connections = connections

    def look(self) -> None:
        self.quiet("look", self._connections.look, None)

    def carries(self, connection: FlowId) -> bool:
        return self.quiet("carries", lambda: self._connections.carries(connection), True)


class GuardedObserver(_Guard):
    """A core.firewall.pinhole.Observer."""

    def __init__(self, observer: Observer) -> None:
        super().__init__("observer")
        self._observer = observer

    def opened(self, pinhole: Pinhole) -> None:
        self.quiet("opened", lambda: self._observer.opened(pinhole), None)

    def claimed(self, pinhole: Pinhole, peer: str) -> None:
        self.quiet("claimed", lambda: self._observer.claimed(pinhole, peer), None)

    def closed(self, pinhole: Pinhole, reason: str) -> None:
        self.quiet("closed", lambda: self._observer.closed(pinhole, reason), None)


class GuardedWatcher(GuardedObserver):
    """A core.backend.Watcher."""

    def __init__(self, watcher: Watcher) -> None:
        super().__init__(watcher)
        self._watcher = watcher

    def reported(self, flow: FlowId, protocol: str, report: Report) -> None:
        self.quiet("reported", lambda: self._watcher.reported(flow, protocol, report), None)


class GuardedConntrack(_Guard):
    """A core.backend.Conntrack."""

    def __init__(self, conntrack: Conntrack) -> None:
        super().__init__("conntrack")
        self._conntrack = conntrack

    def outside_address(self, flow: FlowId) -> str:
        return self.raising("outside_address", lambda: self._conntrack.outside_address(flow))

    def reached(self, flow: FlowId) -> Endpoint:
        return self.raising("reached", lambda: self._conntrack.reached(flow))

    def is_inside_host(self, address: str) -> bool:
        return self.quiet("is_inside_host", lambda: self._conntrack.is_inside_host(address), False)

    def may_meet(self, one: str, other: str) -> bool:
        return self.quiet("may_meet", lambda: self._conntrack.may_meet(one, other), False)

    def handshake_seen(self, flow: FlowId) -> bool:
        return self.raising("handshake_seen", lambda: self._conntrack.handshake_seen(flow))

    def alive(self, flow: FlowId) -> bool:
        return self.raising("alive", lambda: self._conntrack.alive(flow))

    def ended(self, flow: FlowId) -> bool:
        return self.raising("ended", lambda: self._conntrack.ended(flow))

    def by_pinhole(self, flow: FlowId) -> bool:
        return self.raising("by_pinhole", lambda: self._conntrack.by_pinhole(flow))


class _GuardedHome(_Guard):
    """A core.backend.HomeServers."""

    def __init__(self, home: HomeServers) -> None:
        super().__init__("home servers")
        self._home = home

    def met(self, flow: FlowId) -> None:
        self.quiet("met", lambda: self._home.met(flow), None)

    def why_not(self, flow: FlowId, reached: Endpoint, host: str) -> str | None:
        return self.raising("why_not", lambda: self._home.why_not(flow, reached, host))

    def port_of(self, server: Endpoint, address: str) -> int | None:
        return self.raising("port_of", lambda: self._home.port_of(server, address))


class _GuardedQueue(_Guard):
    """A core.backend.QueueControl."""

    def __init__(self, queue: QueueControl) -> None:
        super().__init__("queue")
        self._queue = queue

    def offload(self, flow: FlowId) -> None:
        self.raising("offload", lambda: self._queue.offload(flow))

    def undo_offload(self, flow: FlowId) -> None:
        self.raising("undo_offload", lambda: self._queue.undo_offload(flow))

    def know(self, flow: FlowId) -> None:
        self.raising("know", lambda: self._queue.know(flow))

    def forget(self, flow: FlowId) -> None:
        self.raising("forget", lambda: self._queue.forget(flow))

    def queue_server(self, followed: Followed) -> None:
        self.raising("queue_server", lambda: self._queue.queue_server(followed))

    def unqueue_server(self, followed: Followed) -> None:
        self.raising("unqueue_server", lambda: self._queue.unqueue_server(followed))


class _GuardedStore(_Guard):
    """A core.backend.FlowStore."""

    def __init__(self, store: FlowStore) -> None:
        super().__init__("store")
        self._store = store
        self._protecting = True

    def protect(self, key: bytes, record: Record) -> None:
        """A refusal is logged here, once until it works again: a full disk refuses all edits."""
        try:
            self.raising("protect", lambda: self._store.protect(key, record))
        except BackendError as error:
            if self._protecting:
                log.error("edits that change lengths are not made, as long as this fails: %s", error)
            self._protecting = False
            raise
        if not self._protecting:
            log.info("edits that change lengths are made again")
        self._protecting = True

    def unprotect(self, key: bytes) -> None:
        self.quiet("unprotect", lambda: self._store.unprotect(key), None)

    def save_session(self, key: bytes, record: Record) -> None:
        self.raising("save_session", lambda: self._store.save_session(key, record))

    def save_position(self, key: bytes, position: bytes) -> None:
        self.raising("save_position", lambda: self._store.save_position(key, position))

    def forget_session(self, key: bytes, skewed: bool) -> None:
        self.quiet("forget_session", lambda: self._store.forget_session(key, skewed), None)


class _GuardedReset(_Guard):
    """A core.backend.Reset."""

    def __init__(self, reset: Reset) -> None:
        super().__init__("reset")
        self._reset = reset

    def __call__(self, segment: Segment) -> None:
        self.quiet("send", lambda: self._reset(segment), None)


class _GuardedSend(_Guard):
    """A core.backend.SendPacket."""

    def __init__(self, send: SendPacket) -> None:
        super().__init__("packets")
        self._send = send

    def __call__(self, raw: bytes) -> None:
        self.quiet("send", lambda: self._send(raw), None)


class _GuardedSenders(_Guard):
    """A core.backend.Senders. A sender that cannot be told is nobody that may be believed."""

    def __init__(self, senders: Senders) -> None:
        super().__init__("senders")
        self._senders = senders

    def hardware(self, token: Any) -> bytes | None:
        try:  # not by ``quiet``: each packet whose bytes are read gets here
            return self._senders.hardware(token)
        except Exception as error:
            self._log("hardware", error)
            return None

    def sent(self, address: str, hardware: bytes | None) -> Sender:
        return self.quiet("sent", lambda: self._senders.sent(address, hardware), Sender.UNKNOWN)


class _GuardedLocals(_Guard, LocalClients):
    """A core.backend.LocalClients."""

    def __init__(self, clients: LocalClients) -> None:
        super().__init__("local clients")
        self._clients = clients

    def serves(self, address: str) -> bool:
        return self.quiet("serves", lambda: self._clients.serves(address), False)

    def why_not(self, flow: FlowId, inside: Endpoint) -> str | None:
        return self.raising("why_not", lambda: self._clients.why_not(flow, inside))


def guarded(backend: Backend) -> Backend:
    """*backend*, each part behind a guard."""
    return Backend(
        GuardedConntrack(backend.conntrack),
        _GuardedQueue(backend.queue),
        _GuardedStore(backend.store),
        _GuardedReset(backend.reset),
        _GuardedHome(backend.home),
        _GuardedSenders(backend.senders),
        _GuardedSend(backend.send),
        backend.cpu,
        _GuardedLocals(backend.locals),
        backend.unwatched,
    )
