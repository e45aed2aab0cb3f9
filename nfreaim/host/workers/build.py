"""The daemon with several workers: its main process has everything but the control connections.

A daemon with one process is made in host.daemon; a worker in host.workers.worker.
"""

from __future__ import annotations

import logging
import socket
from contextlib import ExitStack
from typing import Any, Final

from nfreaim.config import Config
from nfreaim.core.verdict import ACCEPT, DROP, Verdicts
from nfreaim.errors import BackendError
from nfreaim.host.control import ControlPlane, PinholeReaper
from nfreaim.host.loop import TICK_S, Every, Loop, clock
from nfreaim.host.netfilter.packet_queue import PacketQueue
from nfreaim.host.report.metrics import Readers
from nfreaim.host.state.state_files import remove_other_parts
from nfreaim.host.workers.shared_page import SharedPage
from nfreaim.host.workers.supervisor import PublishingJournal, RequestHandlers, Supervisor

log = logging.getLogger("nfreaim")

_SUPERVISE_EVERY_S: Final = 0.2  # a worker that ends is noticed at once, because its socket closes


def build(
    config: Config, rules_go_with_us: bool, signals: socket.socket, stack: ExitStack
) -> tuple[ControlPlane, Loop]:
    """Start the workers; returns the main process's parts. The peer gate has a queue of its own.

    rules_go_with_us  the rules are removed when the daemon ends
    """
    page = SharedPage.make()
    stack.callback(page.close)

    def readers() -> Readers:
        return workers.readers()

    control = ControlPlane(config, PublishingJournal(page), readers, stack)
    backend = control.backend
    handlers = RequestHandlers(control.pinholes, backend.queue, page)
    workers = Supervisor(config, handlers, page, rules_go_with_us)
    queue = PacketQueue(config.queue, _NoReader(), clock, control.gate)
    stack.callback(control.log_counters)
    queue.open()
    stack.callback(_close, control, queue, rules_go_with_us)
    remove_other_parts(config.state_dir, config.workers)
    backend.prepare()
    control.begin(stack)
    handlers.publish()
    if backend.queue.load():
        handlers.publish_followed()
    stack.callback(workers.stop)

    def serve_gate() -> None:
        queue.serve()  # no longer than a turn, because workers wait for answers

    workers.start(queue.fileno(), serve_gate)
    reaper = PinholeReaper(control.pinholes, backend.conntrack, config.engine)

    def tick() -> None:
        reaper.tick()
        handlers.publish()

    loop = Loop(signals, control.log_everything)
    loop.serve(queue, serve_gate)
    control.attach(loop, handlers.publish)
    workers.attach(loop.selector)
    loop.chore("tick", Every(lambda: TICK_S, tick))
    loop.must(Every(lambda: _SUPERVISE_EVERY_S, workers.tick))
    return control, loop


class _NoReader:
    """In place of an engine, for a queue that gets no control connections."""

    def passes(self, raw: bytes, from_inside: bool, now: float) -> bool:
        return False

    def process_slow(self, raw: bytes, token: Any, from_inside: bool, now: float, skewed: bool) -> Verdicts:
        # Rules of an earlier installation may queue some here until they are replaced.
        return [(token, DROP if skewed else ACCEPT)]


def _close(control: ControlPlane, queue: PacketQueue, rules_go_with_us: bool) -> None:
    """After the workers have ended: close the pinholes, and leave queue and sets as they have to be."""
    queue.serve()
    control.pinholes.close_all("daemon stopped")
    queue.close()
    try:
        if rules_go_with_us:
            control.backend.store.forget_all()
        control.backend.queue.queue_everything()
    except BackendError as error:  # another program removed the rules meanwhile
        log.warning("%s", error)
