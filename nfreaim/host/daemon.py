"""Daemon: made of its parts, in one process or several, and unmade in reverse order whatever ends it."""

from __future__ import annotations

import logging
import os
import socket
from contextlib import ExitStack
from dataclasses import replace
from typing import Final

from nfreaim.config import Config
from nfreaim.core.engine import Engine
from nfreaim.errors import BackendError, ConfigError
from nfreaim.host.auto.set_up_watch import SetUpWatch
from nfreaim.host.check import capabilities
from nfreaim.host.control import ControlPlane
from nfreaim.host.events import READY, noted
from nfreaim.host.loop import Every, Loop, clock, stop_signals
from nfreaim.host.netfilter import firewall_kind
from nfreaim.host.netfilter.firewall_kind import FirewallKind
from nfreaim.host.netfilter.interfaces import existing
from nfreaim.host.netfilter.nft_generation import leave_own_changes_out
from nfreaim.host.pinholes import chosen_firewall
from nfreaim.host.reader import Reader
from nfreaim.host.reload import Reload
from nfreaim.host.report.journal import Journal
from nfreaim.host.report.metrics import Readers
from nfreaim.host.rules import script, self_test_rules
from nfreaim.host.rules.background import BackgroundProgram
from nfreaim.host.service_manager import ServiceManager
from nfreaim.host.state.state_files import remove_other_parts
from nfreaim.host.turns import Turns, gate_queue

log = logging.getLogger("nfreaim")

_LIFE_SIGNS: Final = 4  # within the time after which the service manager takes the daemon for dead


def serve(
    config: Config,
    shown: BackgroundProgram,
    reload: Reload,
    manager: ServiceManager,
    rules_stay: bool = False,
    unnamed: bool = False,
) -> None:
    """Be the ALG until SIGTERM or SIGINT. SIGHUP reads the configuration again, SIGUSR1 logs the counters.

    shown    the rules script, started with `show`
    manager  is told when packets are served, and from then on that all parts live
    rules_stay  rules that have to be installed are not removed at the end
    unnamed  nobody names the interfaces, so a change of the router's set-up is looked for and told

    Raises BackendError if the daemon cannot begin. Then, as at its end, nothing of it stays behind.
    """
    capabilities.require()
    chosen_firewall.maker(_kind_for(config))
    with ExitStack() as stack:
        signals = stack.enter_context(stop_signals())
        try:
            rules_go_with_us, installed, unguarded = _install_rules(config, shown, stack, rules_stay)
            kind = firewall_kind.settle()
            chosen_firewall.maker(kind)
            if installed is not None:  # the script decided where the configuration did not
                installed = replace(installed, firewall=str(kind))
            if kind is FirewallKind.NFT:
                leave_own_changes_out()
            if config.workers == 1:
                control, loop = _alone(config, rules_go_with_us, signals, stack, reload)
            else:  # imported here, because a daemon of one process starts sooner without it
                from nfreaim.host.workers.build import build

                control, loop = build(config, rules_go_with_us, signals, stack, reload)
            control.unguarded(unguarded)
            control.watch_rules(installed, loop, stack)
            if unnamed:
                watch = SetUpWatch(config.file, lambda: control.interfaces, clock())
                stack.callback(watch.close)
                loop.chore("set-up", watch)
                control.changed = watch.told
                reload.obeyers.append(lambda config: watch.look_now())
        except OSError as error:  # of a socket or a file
            reason = os.strerror(error.errno) if error.errno else type(error).__name__
            raise BackendError(f"the daemon cannot begin: {reason} ({error})") from error
        log.info("ready: serving queue %s for ports %s", _queues(config), _ports(config), extra=noted(READY))
        manager.ready()
        inside, outside = map(", ".join, control.interfaces)
        manager.status(f"Serving {inside} towards clients, {outside} towards the Internet")
        if manager.watchdog_s:
            interval_s = manager.watchdog_s / _LIFE_SIGNS
            loop.chore("watchdog", Every(lambda: interval_s, lambda: manager.alive(control.silent)))
        loop.run()
        manager.stopping()


def _kind_for(config: Config) -> FirewallKind:
    """The kind whose rules are there, or will be. The library for the other one may be missing."""
    return firewall_kind.installed() or FirewallKind(script.chosen(script.Settings.of(config)))


def _queues(config: Config) -> str:
    return "-".join(map(str, sorted({config.queue, config.reading[-1]})))


def _ports(config: Config) -> str:
    """The ports of each protocol, for the log."""
    return ", ".join(f"{' '.join(map(str, ports))} ({name})" for name, ports in config.ports.items())


def _install_rules(
    config: Config, asked: BackgroundProgram, stack: ExitStack, stay: bool
) -> tuple[bool, script.Settings | None, str]:
    """Install the static rules, unless they are complete.

    Returns whether no rules were installed before, so that they are removed at the end unless they shall
    *stay*; the settings that they are installed with, or None if these cannot be told; and what
    ``script.unguarded`` says.
    Raises BackendError.
    """
    shown, complete = script.shown(asked)
    if self_test_rules.are_in(shown):
        self_test_rules.remove()
    wanted = script.Settings.of(config)
    interfaces = bool(config.lan and config.wan)
    if complete:
        if found := script.difference(shown, wanted):
            raise BackendError(found)
        found_settings = script.settings(shown)
        _tell_of_interfaces(found_settings, wanted)
        if found_settings is not None:
            completed = found_settings.completed(wanted)
            if completed != found_settings:
                shown = script.install(completed)
            found_settings = completed
        return False, found_settings or (wanted if interfaces else None), script.unguarded(shown)
    if not interfaces:
        raise ConfigError(
            "the rules are not installed and the interfaces are not known: run make install-rules "
            "LAN=... WAN=..., or name them with --lan and --wan or in the configuration"
        )
    ours = not script.firewall(shown) and not stay
    if ours:
        stack.callback(script.remove, force=True)  # readers have reset skewed flows before
    return ours, wanted, script.unguarded(script.install(wanted))


def _tell_of_interfaces(installed: script.Settings | None, wanted: script.Settings) -> None:
    """Log what is amiss with the interfaces that the daemon was told, though the rules are complete."""
    for option, names in (("--lan", wanted.lan), ("--wan", wanted.wan)):
        theirs = getattr(installed, option[2:]) if installed is not None else names
        if names and theirs != names:
            log.warning(
                "the rules are for %s %s, which counts, and not for %s; install them again to change that",
                *(option, ",".join(theirs), ",".join(names)),
            )
        for name in names:
            if not existing([name]):
                log.warning("no interface %s exists (yet): is the name right?", name)


def _alone(
    config: Config, rules_go_with_us: bool, signals: socket.socket, stack: ExitStack, reload: Reload
) -> tuple[ControlPlane, Loop]:
    """Make all parts in this process."""
    journal = Journal()
    control = ControlPlane(config, journal, lambda: Readers(engine.stats()), stack, reload)
    backend = control.backend.for_engine(control.home, users=config.local_clients)
    engine = Engine(config.helpers(), control.pinholes, backend, journal, config.engine)
    turns = Turns(
        config.queue,
        engine,
        control.backend.store.is_skewed,
        gate_queue(config.queue, control.gate, config.marks),
    )
    reader = Reader(engine, control.backend, turns)
    stack.callback(control.log_counters)
    # From here on packets wait for this process, so all that is needed to answer them has been made before.
    turns.open()
    stack.callback(reader.close, rules_go_with_us)
    remove_other_parts(config.state_dir, 1)
    reader.restore()
    control.begin(stack)
    reader.follow()
    loop = Loop(signals, control.log_everything, reload.work)
    reader.attach(loop)
    control.attach(loop)
    return control, loop
