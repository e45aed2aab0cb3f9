"""Divided: the daemon where several processes read: the owner of everything else, and its workers.

What a worker is made of stands in host.workers.worker.
"""

from __future__ import annotations

import logging
import socket
from contextlib import ExitStack
from typing import Any, Final

from nfreaim.config import Config
from nfreaim.core.verdict import ACCEPT, DROP, Verdicts
from nfreaim.errors import BackendError
from nfreaim.host.control import ControlPlane, Greetings, PinholeReaper
from nfreaim.host.loop import TICK, Every, Loop, clock
from nfreaim.host.netfilter.packet_queue import PacketQueue
from nfreaim.host.report.metrics import Metrics
from nfreaim.host.state.layout import forget_others
from nfreaim.host.workers.shared_page import SharedPage
from nfreaim.host.workers.supervisor import PublishingJournal, RequestHandlers, Supervisor
from nfreaim.host.workers.worker import WorkerConfig

log = logging.getLogger("nfreaim")

_SUPERVISE: Final = 0.2  # between looks at the workers; one that is gone is noticed at once by its link


def build(
    config: Config,
    greetings: Greetings,
    temporary: bool,
    signals: socket.socket,
    stack: ExitStack,
) -> tuple[ControlPlane, Loop]:
    """The control connections in workers, everything else here; the gate has a queue of its own."""
    page = SharedPage.make()
    stack.callback(page.close)

    def figures() -> tuple[Metrics, list[dict[str, Any]]]:
        return workers.figures()

    owner = ControlPlane(config, PublishingJournal(page), figures, stack)
    answers = RequestHandlers(owner.pinholes, owner.kernel, page)

    def welcome(number: int) -> WorkerConfig:
        return WorkerConfig(config, config.reading[number - 1])

    workers = Supervisor(config.reading, answers, page, welcome, temporary, ("--log-level", config.log_level))
    queue = PacketQueue(config.queue, _Nobody(), clock, owner.gate)
    stack.callback(owner.report_counters)
    queue.open()
    stack.callback(_close, owner, queue, temporary)
    forget_others(config.state_dir, config.workers)
    owner.kernel.prepare()
    owner.begin(greetings, stack)
    answers.publish()
    stack.callback(workers.stop)

    def gate() -> None:
        queue.serve()  # no longer than a turn: workers wait for answers

    workers.start(queue.fileno(), gate)
    warden = PinholeReaper(owner.pinholes, owner.kernel, config.engine.poll, config.engine.grace)

    def tick() -> None:
        warden.tick()
        answers.publish()

    loop = Loop(signals, owner.report)
    loop.serve(queue, gate)
    owner.attach(loop, answers.publish)
    workers.attach(loop.selector)
    loop.chore("tick", Every(lambda: TICK, tick))
    loop.must(Every(lambda: _SUPERVISE, workers.tick))
    return owner, loop


class _Nobody:
    """In place of an engine: who reads a queue that no control connection comes by."""

    def passes(self, raw: bytes, from_inside: bool, now: float) -> bool:
        return False

    def consider(self, raw: bytes, token: Any, from_inside: bool, now: float, skewed: bool) -> Verdicts:
        # Rules of an earlier installation may hand us some, until they are replaced.
        return [(token, DROP if skewed else ACCEPT)]


def _close(owner: ControlPlane, queue: PacketQueue, temporary: bool) -> None:
    """The workers have ended: close the pinholes, and what they left open."""
    queue.serve()
    owner.pinholes.close_all("daemon stopped")
    queue.close()
    try:
        if temporary:
            owner.kernel.forget_all()
        owner.kernel.take_back()
    except BackendError as error:  # somebody removed the rules meanwhile
        log.warning("%s", error)
