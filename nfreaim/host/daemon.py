"""Daemon: everything put together, in one process or in several, and unmade in the opposite order, whatever
ends the loop.
"""

from __future__ import annotations

import logging
import socket
from contextlib import ExitStack
from typing import Any, Final

from nfreaim.config import Config
from nfreaim.core.engine import Engine
from nfreaim.core.helper import HelperFactory
from nfreaim.core.verdict import ACCEPT, DROP, Verdicts
from nfreaim.errors import BackendError
from nfreaim.host import privilege, rules
from nfreaim.host.division import forget_others
from nfreaim.host.figures import Figures
from nfreaim.host.journal import Journal
from nfreaim.host.loop import Every, Loop, clock, stop_signals
from nfreaim.host.owner import Greetings, Owner, Warden
from nfreaim.host.page import Page
from nfreaim.host.queue import PacketQueue
from nfreaim.host.reader import Reader
from nfreaim.host.worker import Welcome
from nfreaim.host.workers import Answers, Told, Workers

log = logging.getLogger("nfreaim")

_TICK: Final = 1.0
_SUPERVISE: Final = 0.2  # between looks at the workers; one that is gone is noticed at once by its link


def serve(config: Config, helper: HelperFactory, greetings: Greetings) -> None:
    """Be the ALG until SIGTERM, SIGINT or SIGHUP. SIGUSR1 logs the counters, and what the kernel dropped.

    Raises BackendError if it cannot begin; then, as in the end, nothing of it is left behind.
    """
    privilege.require()
    with ExitStack() as stack:
        signals = stack.enter_context(stop_signals())
        temporary = _install_rules(config, stack)
        build = _alone if config.workers == 1 else _divided
        owner, loop = build(config, helper, greetings, temporary, signals, stack)
        owner.watch_rules(stack)
        queues = "-".join(map(str, sorted({config.queue, config.reading[-1]})))
        log.info("ready: serving queue %s for ports %s", queues, " ".join(map(str, config.ports)))
        loop.run()


def _install_rules(config: Config, stack: ExitStack) -> bool:
    """Complete the static rules; if there were none before (returns True), they go again in the end."""
    shown, complete = rules.shown()
    if complete:
        if found := rules.difference(shown, config.ports, config.queue, config.workers):
            raise BackendError(found)
        return False
    if not config.lan or not config.wan:
        raise BackendError(
            "the rules are not installed and the interfaces are not known: run make install-rules "
            "LAN=... WAN=..., or name them with --lan and --wan or in the configuration"
        )
    temporary = rules.CHAIN not in shown
    if temporary:
        stack.callback(rules.remove, force=True)  # what waits for us was reset before
    rules.install(config.lan, config.wan, config.ports, config.queue, config.workers)
    return temporary


def _alone(
    config: Config,
    helper: HelperFactory,
    greetings: Greetings,
    temporary: bool,
    signals: socket.socket,
    stack: ExitStack,
) -> tuple[Owner, Loop]:
    """All in this process; the gate has the readers' queue."""
    journal = Journal()
    owner = Owner(config, journal, lambda: (Figures.of(engine), ()), stack)
    helpers = dict.fromkeys(config.ports, helper)
    engine = Engine(helpers, owner.pinholes, owner.kernel, journal, config.engine)
    queue = PacketQueue(config.queue, engine, clock, owner.gate)
    reader = Reader(engine, owner.kernel, queue)
    stack.callback(owner.report_counters)
    # From here on packets wait for us: what else is needed to answer them has to be there.
    queue.open()
    stack.callback(reader.close, temporary)
    forget_others(config.state_dir, 1)
    reader.restore()
    owner.begin(greetings, stack)
    loop = Loop(signals, owner.report)
    reader.attach(loop)
    owner.attach(loop)
    return owner, loop


def _divided(
    config: Config,
    _: HelperFactory,
    greetings: Greetings,
    temporary: bool,
    signals: socket.socket,
    stack: ExitStack,
) -> tuple[Owner, Loop]:
    """The control connections in workers, everything else here; the gate has a queue of its own."""
    page = Page.make()
    stack.callback(page.close)

    def figures() -> tuple[Figures, list[dict[str, Any]]]:
        return workers.figures()

    owner = Owner(config, Told(page), figures, stack)
    answers = Answers(owner.pinholes, owner.kernel, page)

    def welcome(number: int) -> Welcome:
        return Welcome(config, config.reading[number - 1])

    workers = Workers(config.reading, answers, page, welcome, temporary, ("--log-level", config.log_level))
    queue = PacketQueue(config.queue, _Nobody(), clock, owner.gate)
    stack.callback(owner.report_counters)
    queue.open()
    stack.callback(_close, owner, queue, temporary)
    forget_others(config.state_dir, config.workers)
    owner.kernel.prepare()
    owner.begin(greetings, stack)
    answers.publish()
    stack.callback(workers.stop)
    workers.start()
    warden = Warden(owner.pinholes, owner.kernel, config.engine.poll, config.engine.grace)

    def gate() -> None:
        queue.serve()  # no longer than a turn: workers wait for answers

    def tick() -> None:
        warden.tick()
        answers.publish()

    loop = Loop(signals, owner.report)
    loop.serve(queue, gate)
    owner.attach(loop, answers.publish)
    workers.attach(loop.selector)
    loop.chore("tick", Every(lambda: _TICK, tick))
    loop.must(Every(lambda: _SUPERVISE, workers.tick))
    return owner, loop


class _Nobody:
    """In place of an engine: who reads a queue that no control connection comes by."""

    def passes(self, raw: bytes, from_inside: bool, now: float) -> bool:
        return False

    def consider(self, raw: bytes, token: Any, from_inside: bool, now: float, skewed: bool) -> Verdicts:
        # Rules of an earlier installation may hand us some, until they are replaced.
        return [(token, DROP if skewed else ACCEPT)]


def _close(owner: Owner, queue: PacketQueue, temporary: bool) -> None:
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
