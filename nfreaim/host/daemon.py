"""Daemon: everything put together, in one process or in several, and unmade in the opposite order, whatever
ends the loop.
"""

from __future__ import annotations

import logging
import os
import socket
from contextlib import ExitStack

from nfreaim.config import Config
from nfreaim.core.engine import Engine
from nfreaim.core.helper import HelperFactory
from nfreaim.errors import BackendError
from nfreaim.host.check import capabilities
from nfreaim.host.control import ControlPlane, Greetings
from nfreaim.host.loop import Loop, clock, stop_signals
from nfreaim.host.netfilter.packet_queue import PacketQueue
from nfreaim.host.reader import Reader
from nfreaim.host.report.journal import Journal
from nfreaim.host.report.metrics import Metrics
from nfreaim.host.rules import script
from nfreaim.host.state.layout import forget_others

log = logging.getLogger("nfreaim")


def serve(config: Config, helper: HelperFactory, greetings: Greetings) -> None:
    """Be the ALG until SIGTERM, SIGINT or SIGHUP. SIGUSR1 logs the counters, and what the kernel dropped.

    Raises BackendError if it cannot begin; then, as in the end, nothing of it is left behind.
    """
    capabilities.require()
    with ExitStack() as stack:
        signals = stack.enter_context(stop_signals())
        try:
            temporary, installed = _install_rules(config, stack)
            if config.workers == 1:
                owner, loop = _alone(config, helper, greetings, temporary, signals, stack)
            else:  # one process starts sooner without
                from nfreaim.host.workers.build import build

                owner, loop = build(config, greetings, temporary, signals, stack)
            owner.watch_rules(installed, stack)
        except OSError as error:  # whatever is made here is a socket or a file
            reason = os.strerror(error.errno) if error.errno else type(error).__name__
            raise BackendError(f"the daemon cannot begin: {reason} ({error})") from error
        queues = "-".join(map(str, sorted({config.queue, config.reading[-1]})))
        log.info("ready: serving queue %s for ports %s", queues, " ".join(map(str, config.ports)))
        loop.run()


def _install_rules(config: Config, stack: ExitStack) -> tuple[bool, script.Settings | None]:
    """Complete the static rules: whether there were none before, and they go again in the end; and what they
    are installed with, None if nobody can tell."""
    shown, complete = script.shown()
    wanted = script.named(config.lan, config.wan, config.ports, config.queue, config.workers)
    interfaces = bool(config.lan and config.wan)
    if complete:
        if found := script.difference(shown, config.ports, config.queue, config.workers):
            raise BackendError(found)
        return False, script.settings(shown) or (wanted if interfaces else None)
    if not interfaces:
        raise BackendError(
            "the rules are not installed and the interfaces are not known: run make install-rules "
            "LAN=... WAN=..., or name them with --lan and --wan or in the configuration"
        )
    temporary = script.CHAIN not in shown
    if temporary:
        stack.callback(script.remove, force=True)  # what waits for us was reset before
    script.install(*wanted)
    return temporary, wanted


def _alone(
    config: Config,
    helper: HelperFactory,
    greetings: Greetings,
    temporary: bool,
    signals: socket.socket,
    stack: ExitStack,
) -> tuple[ControlPlane, Loop]:
    """All in this process; the gate has the readers' queue."""
    journal = Journal()
    owner = ControlPlane(config, journal, lambda: (Metrics.of(engine), ()), stack)
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
