"""ServiceManager: tells systemd that the daemon is ready, lives, or why it cannot begin; see sd_notify(3).

A message is one datagram of a line KEY=value to the socket in NOTIFY_SOCKET. Without that variable, as under
any other supervisor, nothing is sent. No library is used, because Python's have to be compiled or are no
longer kept, and this datagram is the whole protocol.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from typing import Final

log = logging.getLogger("nfreaim")

_VARIABLES: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class ServiceManager:
    """Takes its variables out of *environment*, because programs that the daemon starts are not the service.

    watchdog_s  the service is ended if it says nothing for so many seconds; 0: it is not watched
    """

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        address, interval, watched = (environment.pop(name, "") for name in _VARIABLES)
        self._address = "\0" + address[1:] if address.startswith("@") else address
        ours = interval.isdecimal() and watched in ("", str(os.getpid()))
        self.watchdog_s = int(interval) / 1e6 if address and ours else 0.0
        self._silent = ""

    def ready(self) -> None:
        """The service serves."""
        self._tell("READY=1")

    def stopping(self) -> None:
        """The service is about to end."""
        self._tell("STOPPING=1")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._tell("STATUS=" + text.replace("\n", " "))

    def alive(self, silent: Callable[[float], str]) -> None:
        """The loop turns. *silent* names a part that has not answered for so many seconds, or is ""."""
        found = silent(self.watchdog_s / 2)
        if not found:
            self._tell("WATCHDOG=1")
        elif found != self._silent:
            log.error("%s does not answer: systemd restarts the daemon unless it does so soon", found)
        self._silent = found

    def _tell(self, line: str) -> None:
        if not self._address:
            return
        with (
            suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as link,
        ):
            link.sendto(line.encode(), self._address)
