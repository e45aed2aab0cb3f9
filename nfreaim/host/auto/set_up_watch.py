"""SetUpWatch: notices that this router's set-up no longer shows the interfaces that are served.

Nobody named them, so a second LAN, a moved or renamed uplink or a lost masquerade would change nothing and
leave no trace. Taking them over is left to the operator: interfaces decide whose packets are queued and whose
ports are opened, and what changes often (an uplink, a network of guests) is mostly back in a minute. So the
watch tells what it sees, once, with what takes it over.

A program of its own looks, because to read a large firewall takes longer than packets may wait.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, Final

from nfreaim import same_program
from nfreaim.errors import BackendError
from nfreaim.host.netfilter.interfaces import is_named
from nfreaim.host.rules.background import BackgroundProgram

log = logging.getLogger("nfreaim")

TAKE_OVER: Final = "systemctl reload nfreaim-rules && systemctl restart nfreaim"
"""Makes the rules for what the set-up shows, which the daemon then serves."""

_LOOK_EVERY_S: Final = 120.0
_ASK_EVERY_S: Final = 0.5  # while the program runs
_TIMEOUT_S: Final = 100.0

Sides = tuple[Sequence[str], Sequence[str]]
"""Interfaces towards the inside clients, and those towards the Internet."""


class SetUpWatch:
    """A chore of the loop.

    file    the configuration
    served  returns the interfaces that are served
    """

    def __init__(self, file: str, served: Callable[[], Sides], now: float) -> None:
        self._file, self._served = file, served
        self._next = now + _LOOK_EVERY_S
        self._running: BackgroundProgram | None = None
        self._asked = self._again = False
        self._seen = self._told = ""

    def due(self) -> float:
        """When ``work`` has to be called."""
        return self._next

    def work(self, now: float) -> None:
        """Begin to look, or read what was seen. Raises nothing."""
        self._next = now + _LOOK_EVERY_S
        try:
            if self._running is None:
                self._running = BackgroundProgram(self._words(), _TIMEOUT_S)
            elif (done := self._running.result()) is not None:
                self._running = None
                if self._again:
                    self._again, self._next = False, now
                else:
                    self._read(done)
        except (BackendError, ValueError, KeyError) as error:  # of an answer that is none, too
            self._running = None
            log.debug("the router's set-up cannot be looked at: %s", error)
        if self._running is not None:
            self._next = now + _ASK_EVERY_S

    def look_now(self) -> None:
        """The operator asks: look at once, and tell what is seen without a second look."""
        self._asked, self._next = True, 0.0
        self._again = self._running is not None  # it may have looked before what the operator changed

    def told(self) -> str:
        """What was told of the set-up and is so still; "": nothing."""
        return self._told

    def close(self) -> None:
        """Wait for the program that runs."""
        if self._running is not None:
            self._running.end()

    def _words(self) -> list[str]:
        named = ["--config", self._file] if Path(self._file).exists() else []
        path = f"{same_program.PYTHON_PATH}={same_program.python_path()}"
        return ["env", path, *same_program.command("interfaces", *named)]

    def _read(self, done: CompletedProcess[str]) -> None:
        if done.returncode:
            raise BackendError(done.stderr.strip())
        difference = _difference(json.loads(done.stdout), self._served(), self._file)
        # What a restarting firewall or a short loss of the uplink shows is gone at the next look.
        lasts, self._seen = difference == self._seen or self._asked, difference
        self._asked = False
        if not lasts or difference == self._told:
            return
        if difference:
            log.warning("%s", difference)
        else:
            log.info("this router's set-up shows the interfaces that are served again")
        self._told = difference


def _difference(shown: dict[str, Any], served: Sides, file: str) -> str:
    """In words, how what is shown differs from what is served; "" if it does not.

    shown  what ``served_interfaces.as_document`` returns

    Inside interfaces that are not there are no difference: their rules do nothing, and they may come again.
    """
    if shown["named"]:
        return ""
    if shown["why"]:
        lan, wan = (json.dumps([*names]) for names in served)
        return (
            f"this router's set-up no longer shows whom to serve: {shown['why']}; served as before:"
            f" {_told(served)}; if that is as it should be, write into {file}: lan = {lan} and wan = {wan}"
        )
    sides = zip((shown["lan"], shown["wan"]), served, strict=True)
    if all(is_named(name, written) for names, written in sides for name in names):
        return ""
    found = _told((shown["lan"], shown["wan"]))
    return f"this router's set-up shows {found}, served are {_told(served)}; remedy: {TAKE_OVER}"


def _told(sides: Sides) -> str:
    lan, wan = (", ".join(names) for names in sides)
    return f"{lan} towards clients and {wan} towards the Internet"
