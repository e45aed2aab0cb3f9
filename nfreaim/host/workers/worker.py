"""Worker: one of several processes that read, from its first request to its end.

It serves one queue with an engine of its own. Pinholes, followed servers and everything else of which there
is one belong to the owner, who is asked by the link. When the owner is gone it ends as by SIGTERM: what is
signed on is kept for the next life.
"""

from __future__ import annotations

import logging
import socket
import time
from contextlib import ExitStack
from typing import Final, NamedTuple

from nfreaim.config import Config
from nfreaim.core.address import Endpoint
from nfreaim.core.engine import Engine
from nfreaim.core.helper import HelperFactory
from nfreaim.errors import BackendError
from nfreaim.host.check import capabilities
from nfreaim.host.linux_backend import LinuxBackend
from nfreaim.host.loop import Every, Loop, clock, stop_signals
from nfreaim.host.netfilter.packet_queue import PacketQueue
from nfreaim.host.reader import Reader
from nfreaim.host.report.journal import Journal
from nfreaim.host.report.metrics import Metrics
from nfreaim.host.state.layout import part
from nfreaim.host.state.state_directory import StateDirectory
from nfreaim.host.workers.remote import RemotePinholes, RemoteServers
from nfreaim.host.workers.rpc import RpcClient, roomy
from nfreaim.host.workers.shared_page import SharedPage

log = logging.getLogger("nfreaim")

_WELCOME: Final = 60.0  # seconds until the owner has time for us
_BIND: Final = 2.0  # seconds for an earlier process to leave the queue
_RETRY: Final = 0.05
_TOLD: Final = 1.0  # seconds between figures
_LOOK: Final = 2.0  # seconds between looks at the entries of our skewed flows


class WorkerConfig(NamedTuple):
    """What a worker is to know: the settings, and its queue."""

    config: Config
    queue: int


class _Kernel(LinuxBackend):
    """This machine, where others read, too. Followed servers are the owner's, who is asked by *link*."""

    def __init__(self, state: StateDirectory, link: RpcClient, stack: ExitStack) -> None:
        super().__init__(state, stack, alone=False)
        self._link = link

    def divert(self, server: Endpoint) -> None:
        self._link.call("divert", server)


def serve(link_handle: int, page_handle: int, number: int, helper: HelperFactory) -> None:
    """Be worker *number*, with the inherited ends of link and page. Raises BackendError."""
    capabilities.require()
    with ExitStack() as stack:
        signals = stack.enter_context(stop_signals())
        try:
            end, page = socket.socket(fileno=link_handle), SharedPage(page_handle)
        except OSError as error:
            raise BackendError("a worker is started by nfreaim run --workers N, by nobody else") from error
        stack.callback(page.close)
        roomy(end)
        link = RpcClient(end)
        stack.callback(link.close)
        try:
            _serve(link, page, number, helper, signals, stack)
        except BackendError as error:
            link.tell("failed", str(error))
            raise


def _serve(
    link: RpcClient,
    page: SharedPage,
    number: int,
    helper: HelperFactory,
    signals: socket.socket,
    stack: ExitStack,
) -> None:
    config, queue_number = link.call("welcome", patience=_WELCOME)
    kernel = _Kernel(part(config.state_dir, number, config.workers), link, stack)
    pinholes = RemotePinholes(config.pinholes, link, page)
    helpers = dict.fromkeys(config.ports, helper)
    news = RemoteServers(link, page)
    engine = Engine(helpers, pinholes, kernel, Journal(), config.engine, news)
    reader = Reader(engine, kernel, _bound(queue_number, engine))
    loop = Loop(signals, lambda: None)

    def heard() -> None:
        if link.gone():
            log.warning("the daemon's first process has gone")
            loop.stopped = True

    def close() -> None:
        try:
            last = bool(link.call("last"))
        except BackendError:  # the rules stay, and another daemon will come
            last = False
        reader.close(cut=last)
        link.tell("figures", Metrics.of(engine), keep=False)

    stack.callback(close)
    reader.restore()
    loop.serve(link, heard)
    reader.attach(loop)
    loop.chore("look", Every(lambda: _LOOK, kernel.put_back_skewed))
    loop.chore("tell", Every(lambda: _TOLD, lambda: link.tell("figures", Metrics.of(engine), keep=False)))
    link.tell("ready")
    loop.run()


def _bound(number: int, engine: Engine) -> PacketQueue:
    """The queue, once an earlier process that is about to end has left it."""
    until = time.monotonic() + _BIND
    while True:
        queue = PacketQueue(number, engine, clock)
        try:
            queue.open()
            return queue
        except BackendError:
            if time.monotonic() >= until:
                raise
        time.sleep(_RETRY)
