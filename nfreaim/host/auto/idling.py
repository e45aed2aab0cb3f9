"""The daemon before it serves: with interfaces that nobody named it takes those that are found, or waits.

Forwarding, the default route and the firewall may all come after us, at a boot or when the operator sets up
the router. So the daemon looks again as long as nobody is served. It begins when they are there, or when the
configuration names interfaces, which it reads again each time.
"""

from __future__ import annotations

import logging
import select
import signal
import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from nfreaim.config import Config
from nfreaim.errors import BackendError, ConfigError
from nfreaim.host.auto.auto_interfaces import Interfaces, look
from nfreaim.host.loop import stop_signals
from nfreaim.host.rules import script
from nfreaim.host.service_manager import ServiceManager

log = logging.getLogger("nfreaim")

_LOOK_EVERY_S: Final = 5.0


def named(config: Config, rules_first: bool) -> tuple[Config, str]:
    """*config* with interfaces, and "", or why there are none.

    Interfaces that the configuration names count. Otherwise those that are found do, and those that rules
    are installed for: connections go on if the daemon is restarted, or the rules are made anew, while an
    uplink is down. *rules_first*: the rules are not made anew, so theirs count more. Raises BackendError.
    """
    if config.lan or config.wan:
        return config, ""
    if rules_first and (installed := _installed(config)):
        return installed, ""
    config, why = _found(config)
    if why and not rules_first and (installed := _installed(config)):
        return installed, ""
    return config, why


def found_or_told(config: Config) -> tuple[Config, str | None]:
    """For a command beside the daemon: ``named``, with None in place of "" if interfaces are named.

    Raises nothing: what the machine does not tell is in the text.
    """
    if config.lan or config.wan:
        return config, None
    try:
        return named(config, rules_first=True)
    except BackendError as error:
        return config, str(error)


def until_named(settings: Callable[[], Config], manager: ServiceManager) -> Config | None:
    """What *settings* returns, with interfaces, as soon as there are any; None if a signal asks to end first.

    Raises ConfigError if the settings are wrong at the first look, later only logs it.
    """
    config, said, wrong = settings(), "", ""
    with stop_signals() as signals:
        while True:
            try:
                # Nobody installs rules meanwhile without a restart, and to look at them takes programs long.
                config, why = _later(config) if said else named(config, rules_first=True)
                if not why:
                    return config
            except BackendError as error:
                why = str(error)
            if why != said:
                log.warning("%s", why)
                manager.status(f"Idle: {why}")
            said = why
            manager.ready()
            manager.alive(lambda seconds: "")
            if _asked_to_end(signals, _pause_s(manager)):
                return None
            try:
                config, wrong = settings(), ""
            except ConfigError as error:
                if str(error) != wrong:
                    log.error("%s", error)
                wrong = str(error)


def _later(config: Config) -> tuple[Config, str]:
    return (config, "") if config.lan or config.wan else _found(config)


def _found(config: Config) -> tuple[Config, str]:
    found = look()
    if isinstance(found, Interfaces):
        return replace(config, lan=found.lan, wan=(found.wan,)), ""
    return config, found.told(config.file)


def _installed(config: Config) -> Config | None:
    shown, _ = script.shown(script.start(["show"]))
    found = script.settings(shown)
    return None if found is None else replace(config, lan=found.lan, wan=found.wan)


def _pause_s(manager: ServiceManager) -> float:
    return min(_LOOK_EVERY_S, manager.watchdog_s / 4) if manager.watchdog_s else _LOOK_EVERY_S


def _asked_to_end(signals: socket.socket, seconds: float) -> bool:
    """Wait for so long, or until a signal comes. One that does not ask to end has us look at once."""
    ready, _, _ = select.select([signals], [], [], seconds)
    return bool(ready) and bool({signal.SIGTERM, signal.SIGINT} & {*signals.recv(64)})
