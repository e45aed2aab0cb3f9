"""Makes the main process of a daemon with several workers: it has everything but the control connections.

host.daemon makes a daemon of one process, host.workers.worker a worker.
"""

from __future__ import annotations

import logging
import socket
from contextlib import ExitStack
from typing import Final

from nfreaim.config import Config
from nfreaim.core.followed import FollowedServers, adopt_all
from nfreaim.errors import BackendError
from nfreaim.host.control import ControlPlane
from nfreaim.host.loop import TICK_S, Every, Loop, clock
from nfreaim.host.netfilter.packet_queue import PacketQueue
from nfreaim.host.reload import Reload
from nfreaim.host.report.metrics import Readers
from nfreaim.host.state.state_files import remove_other_parts
from nfreaim.host.turns import gate_queue
from nfreaim.host.workers.reaper import PinholeReaper
from nfreaim.host.workers.shared_page import SharedPage
from nfreaim.host.workers.supervisor import PublishingJournal, RequestHandlers, Supervisor

log = logging.getLogger("nfreaim")

_SUPERVISE_EVERY_S: Final = 0.2  # between two looks for restarts; the end of a worker closes its socket


def build(
    config: Config, rules_go_with_us: bool, signals: socket.socket, stack: ExitStack, reload: Reload
) -> tuple[ControlPlane, Loop]:
    """Start the workers, and return the main process's parts. The peer gate has a queue of its own.

    rules_go_with_us  the rules are removed when the daemon ends
    """
    page = SharedPage.make()
    stack.callback(page.close)

    def readers() -> Readers:
        return workers.readers()

    control = ControlPlane(config, PublishingJournal(page), readers, stack, reload)
    backend = control.backend
    followed = FollowedServers(backend.queue)
    handlers = RequestHandlers(control.pinholes, followed, control.home, page)
    workers = Supervisor(config, handlers, page, rules_go_with_us)
    control.silent = workers.silent
    backend.tell_unwatched = page.set_unwatched
    reload.obeyers.append(workers.obey)
    queue = gate_queue(config.queue, control.gate, config.marks)
    stack.callback(control.log_counters)
    queue.open()
    stack.callback(_close, control, queue, rules_go_with_us)
    remove_other_parts(config.state_dir, config.workers)
    backend.prepare()
    control.begin(stack)
    adopt_all(followed, backend.queue.load(), clock())
    handlers.publish()
    stack.callback(workers.stop)

    def serve_gate() -> None:
        queue.serve()  # for one short turn, because workers wait for answers

    workers.start(queue.fileno(), serve_gate)
    reaper = PinholeReaper(control.pinholes, backend.conntrack, config.engine)

    def tick() -> None:
        reaper.tick()
        followed.expire(clock())
        handlers.publish()

    loop = Loop(signals, control.log_everything, reload.work)
    loop.serve(queue, serve_gate)
    control.attach(loop, handlers.publish)
    workers.attach(loop.selector)
    loop.chore("tick", Every(lambda: TICK_S, tick))
    loop.must(Every(lambda: _SUPERVISE_EVERY_S, workers.tick))
    return control, loop


def _close(control: ControlPlane, queue: PacketQueue, rules_go_with_us: bool) -> None:
    """After the workers have ended: close pinholes and queue, and clear the sets that need a process."""
    queue.serve()
    control.pinholes.close_all("daemon stopped")
    queue.close()
    try:
        if rules_go_with_us:
            control.backend.store.forget_all()
        control.backend.queue.queue_everything(stopping=True)
    except BackendError as error:  # another program removed the rules meanwhile
        log.warning("%s", error)
