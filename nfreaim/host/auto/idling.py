"""A daemon that serves nobody yet, because no interfaces are named and the machine shows none.

It looks again every few seconds, and at once at SIGHUP, and reads the configuration again each time. It
begins when there are interfaces. Meanwhile its status socket says that it waits, and for what.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final

from nfreaim.config import Config
from nfreaim.errors import BackendError, ConfigError
from nfreaim.host.auto.auto_interfaces import Unclear
from nfreaim.host.auto.served_interfaces import named, shown
from nfreaim.host.loop import TICK_S, Every, Loop, clock, stop_signals
from nfreaim.host.report import status
from nfreaim.host.report.status_server import StatusServer
from nfreaim.host.service_manager import ServiceManager

log = logging.getLogger("nfreaim")

_LOOK_EVERY_S: Final = 5.0


def until_named(settings: Callable[[], Config], manager: ServiceManager) -> Config | None:
    """What *settings* returns, with interfaces, as soon as there are any; None if a signal asks to end first.

    Raises ConfigError if the settings are wrong at the first look, later only tells it; BackendError if the
    status socket cannot be served, which the daemon needs later, too.
    """
    waiting = _Waiting(settings, manager)
    with stop_signals() as signals, ExitStack() as stack:
        waiting.begin()
        if waiting.found is None:
            config = waiting.config
            answering = StatusServer(
                *(config.status_socket, config.status_group), waiting.document, clock, stack
            )
            answering.open()
            loop = Loop(signals, report=lambda: None, reload=lambda: waiting.reload(loop))
            answering.attach(loop.selector)
            loop.must(Every(lambda: TICK_S, answering.expire))
            loop.must(Every(waiting.pause_s, lambda: waiting.turn(loop)))
            loop.run()
    if waiting.found is not None:
        inside, outside = (", ".join(names) for names in (waiting.found.lan, waiting.found.wan))
        log.info("interfaces: %s towards clients, %s towards the Internet", inside, outside)
    return waiting.found


class _Waiting:
    """What is known so far. *found*: the settings to serve with; None: there are none yet."""

    def __init__(self, settings: Callable[[], Config], manager: ServiceManager) -> None:
        self._settings, self._manager = settings, manager
        self.config = settings()
        self.found: Config | None = None
        self._began = clock()
        self._unclear = Unclear("")
        self._said = self._wrong = ""
        self._reloaded: float | None = None

    def begin(self) -> None:
        """Look for the first time."""
        self._look(lambda config: named(config, rules_first=True))

    def turn(self, loop: Loop) -> None:
        """Tell the service manager that we live, and look again."""
        self._manager.ready()
        self._manager.alive(lambda seconds: "")
        self._look_again(loop)

    def reload(self, loop: Loop) -> None:
        """Look at once, because the operator asks."""
        self._look_again(loop)
        self._reloaded = clock()

    def pause_s(self) -> float:
        """Seconds between two looks, each of which is a sign of life."""
        watched = self._manager.watchdog_s
        return min(_LOOK_EVERY_S, watched / 4) if watched else _LOOK_EVERY_S

    def document(self) -> dict[str, Any]:
        """The status. Raises BackendError."""
        lan, wan = self._unclear.named()
        idle = {"why": self._unclear.why, "file": self.config.file, "lan": lan, "wan": wan}
        reload: dict[str, Any] = {"at": self._reloaded, "error": self._wrong, "restart": []}
        return {**status.of_idle(self._began, clock(), idle), "reload": reload}

    def _look_again(self, loop: Loop) -> None:
        try:
            self.config, self._wrong = self._settings(), ""
        except ConfigError as error:
            if str(error) != self._wrong:
                log.error("%s", error)
            self._wrong = str(error)
        # Nobody installs rules meanwhile without a restart.
        self._look(shown)
        loop.stopped = loop.stopped or self.found is not None

    def _look(self, at: Callable[[Config], Config | Unclear]) -> None:
        try:
            found = at(self.config)
        except BackendError as error:
            found = Unclear(str(error))
        if not isinstance(found, Unclear):
            self.found = found
            return
        self._unclear = found
        why = found.told(self.config.file)
        if why != self._said:
            log.warning("%s", why)
            self._manager.status(f"Idle: {why}")
        self._said = why
