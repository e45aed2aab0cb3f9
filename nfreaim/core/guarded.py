"""Seams: firewall, kernel and observers as the core reaches them, so that they fail as they are declared to.

Whatever else an implementation raises is a mistake in it, or something nobody thought of. It must not cost a
packet its verdict, nor the daemon its life: it counts as the machine's refusal, and its traceback is logged
once for each place and kind. Nothing is decided here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.flow import Flow
from nfreaim.core.helper import Report
from nfreaim.core.tcp.segment import Segment
from nfreaim.errors import BackendError

if TYPE_CHECKING:
    from nfreaim.core.backend import Kernel, Record, Watcher
    from nfreaim.core.firewall.pinhole import Firewall, Observer, Pinhole

log = logging.getLogger(__name__)

T = TypeVar("T")


class _Seam:
    """Remembers what was logged."""

    def __init__(self) -> None:
        self._known: set[tuple[str, type[Exception]]] = set()

    def _hard(self, place: str, call: Callable[[], T]) -> T:
        """What *call* returns. Raises BackendError and nothing else."""
        try:
            return call()
        except BackendError:
            raise
        except Exception as error:
            self._log(place, error)
            raise BackendError(f"{place} failed: {type(error).__name__}") from error

    def _soft(self, place: str, call: Callable[[], T], otherwise: T) -> T:
        """What *call* returns, or *otherwise* if it fails. Raises nothing."""
        try:
            return call()
        except Exception as error:
            self._log(place, error)
            return otherwise

    def _log(self, place: str, error: Exception) -> None:
        kind = (place, type(error))
        known = kind in self._known
        self._known.add(kind)
        if isinstance(error, BackendError):
            log.log(logging.DEBUG if known else logging.WARNING, "%s", error)
        else:
            log.error("%s failed unexpectedly", place, exc_info=None if known else error)


class GuardedFirewall(_Seam):
    """A core.firewall.pinhole.Firewall."""

    def __init__(self, firewall: Firewall) -> None:
        super().__init__()
        self._firewall = firewall

    def put(self, pinhole: Pinhole, earlier: Pinhole | None) -> None:
        self._hard("firewall.put", lambda: self._firewall.put(pinhole, earlier))

    def drop(self, pinhole: Pinhole) -> None:
        self._hard("firewall.drop", lambda: self._firewall.drop(pinhole))

    def busy(self, outside: Endpoint) -> bool:
        return self._soft("firewall.busy", lambda: self._firewall.busy(outside), True)

    def list(self) -> list[Pinhole]:
        return self._hard("firewall.list", self._firewall.list)

    def prepare(self, host: str) -> None:
        self._soft("firewall.prepare", lambda: self._firewall.prepare(host), None)

    def upkeep(self) -> None:
        self._soft("firewall.upkeep", self._firewall.upkeep, None)


class GuardedObserver(_Seam):
    """A core.firewall.pinhole.Observer."""

    def __init__(self, observer: Observer) -> None:
        super().__init__()
        self._observer = observer

    def opened(self, pinhole: Pinhole) -> None:
        self._soft("observer.opened", lambda: self._observer.opened(pinhole), None)

    def claimed(self, pinhole: Pinhole, peer: str) -> None:
        self._soft("observer.claimed", lambda: self._observer.claimed(pinhole, peer), None)

    def closed(self, pinhole: Pinhole, reason: str) -> None:
        self._soft("observer.closed", lambda: self._observer.closed(pinhole, reason), None)


class GuardedWatcher(GuardedObserver):
    """A core.nat.Watcher."""

    def __init__(self, watcher: Watcher) -> None:
        super().__init__(watcher)
        self._watcher = watcher

    def reported(self, flow: Flow, report: Report) -> None:
        self._soft("watcher.reported", lambda: self._watcher.reported(flow, report), None)


class GuardedKernel(_Seam):
    """A core.nat.Kernel."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__()
        self._kernel = kernel
        self._protecting = True

    def outside_address(self, owner: FlowId) -> str:
        return self._hard("kernel.outside_address", lambda: self._kernel.outside_address(owner))

    def reached(self, owner: FlowId) -> Endpoint:
        return self._hard("kernel.reached", lambda: self._kernel.reached(owner))

    def lan(self, address: str) -> bool:
        return self._soft("kernel.lan", lambda: self._kernel.lan(address), False)

    def alive(self, owner: FlowId) -> bool:
        return self._hard("kernel.alive", lambda: self._kernel.alive(owner))

    def ended(self, owner: FlowId) -> bool:
        return self._hard("kernel.ended", lambda: self._kernel.ended(owner))

    def offload(self, owner: FlowId) -> None:
        self._hard("kernel.offload", lambda: self._kernel.offload(owner))

    def reclaim(self, owner: FlowId) -> None:
        self._hard("kernel.reclaim", lambda: self._kernel.reclaim(owner))

    def divert(self, server: Endpoint) -> None:
        self._hard("kernel.divert", lambda: self._kernel.divert(server))

    def protect(self, key: bytes, record: Record) -> None:
        """As declared; a refusal is logged here, once until it works again: a full disk refuses all edits."""
        try:
            self._hard("kernel.protect", lambda: self._kernel.protect(key, record))
        except BackendError as error:
            if self._protecting:
                log.error("edits that change lengths are not made, as long as this fails: %s", error)
            self._protecting = False
            raise
        if not self._protecting:
            log.info("edits that change lengths are made again")
        self._protecting = True

    def unprotect(self, key: bytes) -> None:
        self._soft("kernel.unprotect", lambda: self._kernel.unprotect(key), None)

    def keep(self, key: bytes, record: Record) -> None:
        self._hard("kernel.keep", lambda: self._kernel.keep(key, record))

    def note(self, key: bytes, place: bytes) -> None:
        self._hard("kernel.note", lambda: self._kernel.note(key, place))

    def drop(self, key: bytes, skewed: bool) -> None:
        self._soft("kernel.drop", lambda: self._kernel.drop(key, skewed), None)

    def reset(self, segment: Segment) -> None:
        self._soft("kernel.reset", lambda: self._kernel.reset(segment), None)
