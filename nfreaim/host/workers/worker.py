"""Worker: one of several processes that read packets, from its first request to its end.

It serves one queue with an engine of its own. The main process has everything that exists once, such as
pinholes and followed servers; the worker asks it by RPC. When the main process has gone a worker ends as it
does at SIGTERM, and saves established flows for the next daemon.
"""

from __future__ import annotations

import logging
import socket
import time
from contextlib import ExitStack
from typing import Final

from nfreaim.config import Config
from nfreaim.core.engine import Engine
from nfreaim.errors import BackendError
from nfreaim.host.check import capabilities
from nfreaim.host.linux_backend import LinuxBackend
from nfreaim.host.loop import TICK_S, Every, Loop, stop_signals
from nfreaim.host.reader import Reader
from nfreaim.host.report.journal import Journal
from nfreaim.host.report.log_limit import tick_all
from nfreaim.host.state.state_files import part
from nfreaim.host.turns import Turns
from nfreaim.host.workers.remote import RemoteFollowed, RemoteHomeServers, RemotePinholes, RemoteQueueControl
from nfreaim.host.workers.rpc import RpcClient, allow_large_messages
from nfreaim.host.workers.shared_page import SharedPage, Slot

log = logging.getLogger("nfreaim")

_CONFIG_TIMEOUT_S: Final = 60.0  # for the main process to answer the first request
_BIND_TIMEOUT_S: Final = 2.0  # for an earlier process to leave the queue
_BIND_RETRY_S: Final = 0.05
_STATS_EVERY_S: Final = 1.0  # between two messages with statistics
_LOOK_EVERY_S: Final = 2.0  # between two looks at the set entries of our skewed flows


def serve(link_handle: int, page_handle: int, number: int) -> None:
    """Be worker *number*, with the inherited descriptors of socket and page. Raises BackendError."""
    capabilities.require()
    with ExitStack() as stack:
        signals = stack.enter_context(stop_signals())
        try:
            end, page = socket.socket(fileno=link_handle), SharedPage(page_handle)
        except OSError as error:
            raise BackendError("a worker is started by nfreaim run --workers N, by nobody else") from error
        stack.callback(page.close)
        allow_large_messages(end)
        rpc = RpcClient(end)
        stack.callback(rpc.close)
        try:
            _Worker(rpc, page, number, stack).run(signals)
        except BackendError as error:
            rpc.notify("failed", str(error))
            raise


class _Worker:
    """The parts of a worker; *stack* closes them."""

    def __init__(self, rpc: RpcClient, page: SharedPage, number: int, stack: ExitStack) -> None:
        self._changes = page[Slot.CONFIG_CHANGES]
        config: Config = rpc.request("config", patience=_CONFIG_TIMEOUT_S)
        self._rpc, self._page = rpc, page
        self._stack = stack
        directory = part(config.state_dir, number, config.workers)
        self._backend = LinuxBackend(
            directory,
            stack,
            alone=False,
            check=config.check_senders,
            isolated=config.isolated_lans,
            marks=config.marks,
        )
        self._pinholes = RemotePinholes(config.pinholes, rpc, page)
        self._engine = Engine(
            helpers=config.helpers(),
            pinholes=self._pinholes,
            backend=self._backend.for_engine(
                RemoteHomeServers(rpc),
                RemoteQueueControl(self._backend.queue),
                config.local_clients,
                page.unwatched,
            ),
            watcher=Journal(),
            settings=config.engine.share(config.workers),
            followed=RemoteFollowed(rpc, page),
        )
        self._reader = Reader(
            self._engine, self._backend, _opened(config.reading[number - 1], self._engine, self._backend)
        )

    def run(self, signals: socket.socket) -> None:
        """Read packets until a signal comes or the main process has gone."""
        loop = Loop(signals, lambda: None)

        def hear() -> None:
            if self._rpc.gone():
                log.warning("the daemon's first process has gone")
                loop.stopped = True

        self._stack.callback(self._close)
        self._reader.restore()
        loop.serve(self._rpc, hear)
        self._reader.attach(loop)
        loop.chore("look", Every(lambda: _LOOK_EVERY_S, self._put_back))
        loop.chore("sums", Every(lambda: TICK_S, tick_all))
        loop.chore("tell", Every(lambda: _STATS_EVERY_S, self._send_stats))
        loop.chore("obey", Every(lambda: TICK_S, self._obey))
        self._rpc.notify("ready")
        loop.run()

    def _put_back(self) -> None:
        try:
            self._backend.store.put_back()
        except BackendError as error:  # the main process restores the rules, and says so
            log.debug("edited connections are not looked after: %s", error)

    def _send_stats(self) -> None:
        self._rpc.notify("stats", self._engine.stats(), keep=False)

    def _obey(self) -> None:
        changes = self._page[Slot.CONFIG_CHANGES]
        if changes == self._changes:
            return
        config: Config = self._rpc.request("config")
        self._changes = changes
        self._pinholes.policy = config.pinholes
        log.setLevel(config.log_level.upper())
        log.debug("the settings were changed")

    def _close(self) -> None:
        try:
            last = bool(self._rpc.request("last"))
        except BackendError:  # the main process has gone; the rules stay for the next daemon
            last = False
        self._reader.close(reset_skewed=last)
        self._send_stats()


def _opened(number: int, engine: Engine, backend: LinuxBackend) -> Turns:
    """The queues, bound as soon as an earlier process has left them. Raises BackendError if it stays."""
    until = time.monotonic() + _BIND_TIMEOUT_S
    turns = Turns(number, engine, backend.store.is_skewed)
    while True:
        try:
            turns.open()
            return turns
        except BackendError:
            if time.monotonic() >= until:
                raise
        time.sleep(_BIND_RETRY_S)
