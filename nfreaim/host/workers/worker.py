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
from nfreaim.host.loop import Every, Loop, clock, stop_signals
from nfreaim.host.netfilter.packet_queue import PacketQueue
from nfreaim.host.reader import Reader
from nfreaim.host.report.journal import Journal
from nfreaim.host.state.state_files import part
from nfreaim.host.workers.remote import RemoteFollowed, RemotePinholes, RemoteQueueControl
from nfreaim.host.workers.rpc import RpcClient, allow_large_messages
from nfreaim.host.workers.shared_page import SharedPage

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
        config: Config = rpc.request("config", patience=_CONFIG_TIMEOUT_S)
        self._rpc = rpc
        self._stack = stack
        self._backend = LinuxBackend(part(config.state_dir, number, config.workers), stack, alone=False)
        self._engine = Engine(
            helpers=config.helpers(),
            pinholes=RemotePinholes(config.pinholes, rpc, page),
            backend=self._backend.for_engine(RemoteQueueControl(self._backend.queue, rpc)),
            watcher=Journal(),
            settings=config.engine,
            news=RemoteFollowed(rpc, page),
        )
        self._reader = Reader(self._engine, self._backend, _bound(config.reading[number - 1], self._engine))

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
        loop.chore("look", Every(lambda: _LOOK_EVERY_S, self._backend.store.put_back))
        loop.chore("tell", Every(lambda: _STATS_EVERY_S, self._send_stats))
        self._rpc.notify("ready")
        loop.run()

    def _send_stats(self) -> None:
        self._rpc.notify("stats", self._engine.stats(), keep=False)

    def _close(self) -> None:
        try:
            last = bool(self._rpc.request("last"))
        except BackendError:  # the main process has gone; the rules stay for the next daemon
            last = False
        self._reader.close(reset_skewed=last)
        self._send_stats()


def _bound(number: int, engine: Engine) -> PacketQueue:
    """The queue, bound as soon as an earlier process has left it. Raises BackendError if it stays."""
    until = time.monotonic() + _BIND_TIMEOUT_S
    while True:
        queue = PacketQueue(number, engine, clock)
        try:
            queue.open()
            return queue
        except BackendError:
            if time.monotonic() >= until:
                raise
        time.sleep(_BIND_RETRY_S)
