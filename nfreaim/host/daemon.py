"""Daemon: made of its parts, in one process or several, and unmade in reverse order whatever ends it."""

from __future__ import annotations

import logging
import os
import socket
from contextlib import ExitStack

from nfreaim.config import Config
from nfreaim.core.engine import Engine
from nfreaim.errors import BackendError
from nfreaim.host.check import capabilities
from nfreaim.host.control import ControlPlane
from nfreaim.host.loop import Loop, clock, stop_signals
from nfreaim.host.netfilter.names import CHAIN
from nfreaim.host.netfilter.packet_queue import PacketQueue
from nfreaim.host.reader import Reader
from nfreaim.host.report.journal import Journal
from nfreaim.host.report.metrics import Readers
from nfreaim.host.rules import script
from nfreaim.host.rules.background import BackgroundProgram
from nfreaim.host.state.state_files import remove_other_parts

log = logging.getLogger("nfreaim")


def serve(config: Config, shown: BackgroundProgram) -> None:
    """Be the ALG until SIGTERM, SIGINT or SIGHUP. SIGUSR1 logs the counters, and the kernel's drops.

    shown  the rules script, started with `show`

    Raises BackendError if the daemon cannot begin. Then, as at its end, nothing of it stays behind.
    """
    capabilities.require()
    with ExitStack() as stack:
        signals = stack.enter_context(stop_signals())
        try:
            rules_go_with_us, installed = _install_rules(config, shown, stack)
            if config.workers == 1:
                control, loop = _alone(config, rules_go_with_us, signals, stack)
            else:  # imported here, because a daemon of one process starts sooner without it
                from nfreaim.host.workers.build import build

                control, loop = build(config, rules_go_with_us, signals, stack)
            control.watch_rules(installed, stack)
        except OSError as error:  # of a socket or a file
            reason = os.strerror(error.errno) if error.errno else type(error).__name__
            raise BackendError(f"the daemon cannot begin: {reason} ({error})") from error
        log.info("ready: serving queue %s for ports %s", _queues(config), _ports(config))
        loop.run()


def _queues(config: Config) -> str:
    return "-".join(map(str, sorted({config.queue, config.reading[-1]})))


def _ports(config: Config) -> str:
    """The ports of each protocol, for the log."""
    return ", ".join(f"{' '.join(map(str, ports))} ({name})" for name, ports in config.ports.items())


def _install_rules(
    config: Config, asked: BackgroundProgram, stack: ExitStack
) -> tuple[bool, script.Settings | None]:
    """Install the static rules, unless they are complete.

    Returns whether no rules were installed before, so that they are removed at the end; and the settings that
    they are installed with, or None if these cannot be told. Raises BackendError.
    """
    shown, complete = script.shown(asked)
    wanted = script.Settings.of(config)
    interfaces = bool(config.lan and config.wan)
    if complete:
        if found := script.difference(shown, wanted):
            raise BackendError(found)
        return False, script.settings(shown) or (wanted if interfaces else None)
    if not interfaces:
        raise BackendError(
            "the rules are not installed and the interfaces are not known: run make install-rules "
            "LAN=... WAN=..., or name them with --lan and --wan or in the configuration"
        )
    absent = CHAIN not in shown
    if absent:
        stack.callback(script.remove, force=True)  # readers have reset skewed flows before
    script.install(wanted)
    return absent, wanted


def _alone(
    config: Config, rules_go_with_us: bool, signals: socket.socket, stack: ExitStack
) -> tuple[ControlPlane, Loop]:
    """Make all parts in this process. Peer gate and engine share one queue."""
    journal = Journal()
    control = ControlPlane(config, journal, lambda: Readers(engine.stats()), stack)
    engine = Engine(config.helpers(), control.pinholes, control.backend.for_engine(), journal, config.engine)
    queue = PacketQueue(config.queue, engine, clock, control.gate)
    reader = Reader(engine, control.backend, queue)
    stack.callback(control.log_counters)
    # From here on packets wait for this process, so all that is needed to answer them has been made before.
    queue.open()
    stack.callback(reader.close, rules_go_with_us)
    remove_other_parts(config.state_dir, 1)
    reader.restore()
    control.begin(stack)
    reader.follow()
    loop = Loop(signals, control.log_everything)
    reader.attach(loop)
    control.attach(loop)
    return control, loop
