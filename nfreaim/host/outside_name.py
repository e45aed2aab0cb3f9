"""OutsideName: the address that the host name in ``outside_address`` stands for, asked again and again.

A resolver may take half a minute to say that nobody answers. So a thread asks, no packet waits for it, and
the last answer is kept. The local resolver may have an answer of its own for the name, an address of the LAN:
that is no answer, because peers would be told it.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Final

from nfreaim.core.address import is_address
from nfreaim.core.reach import Reach, unreachable

log = logging.getLogger("nfreaim")

ASK_EVERY_S: Final = 30.0
"""Names of changing addresses are usually to be kept for 60 seconds by who asks for them."""

_ASK_AGAIN_S: Final = 5.0  # as long as no address is known

Resolve = Callable[[str], Sequence[str]]
"""The IPv4 addresses of a name, at least one. Raises OSError."""


def resolve(name: str) -> Sequence[str]:
    """The IPv4 addresses of *name*, by the machine's resolver. Raises OSError."""
    found = socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


def usable(addresses: Sequence[str], known: str | None) -> str:
    """Which of the addresses of a name is told: *known* if it is still one of them. Raises OSError if none is
    one that peers can reach.
    """
    reachable = [address for address in addresses if unreachable(address) is None]
    if not reachable:
        kind = unreachable(addresses[0])
        raise OSError(f"here it stands for {addresses[0]} ({kind}), which peers cannot reach")
    return known if known in reachable else reachable[0]


class OutsideName:
    """Keeps *reach* up to date, if the operator named a host; *clock* tells the time in seconds."""

    def __init__(self, reach: Reach, clock: Callable[[], float], ask: Resolve = resolve) -> None:
        self._reach = reach
        self._clock = clock
        self._ask = ask
        self._thread: threading.Thread | None = None
        self._answer: Sequence[str] | OSError = ()
        self._next = 0.0
        self._failing = False

    def look(self) -> None:
        """Take an answer that has come, and ask if it is time. Never waits; call it about every second."""
        name = self._reach.named
        if name is None or is_address(name):
            return
        if self._thread is not None:
            if self._thread.is_alive():
                return
            self._thread = None
            self._take(name)
        elif self._clock() >= self._next:
            self._thread = threading.Thread(target=self._run, args=(name,), name="resolver", daemon=True)
            self._thread.start()

    def _run(self, name: str) -> None:
        try:
            self._answer = self._ask(name)
        except (OSError, UnicodeError) as error:
            self._answer = OSError(str(error))

    def _take(self, name: str) -> None:
        known = self._reach.address
        try:
            if isinstance(self._answer, OSError):
                raise self._answer
            address = usable(self._answer, known)
        except OSError as error:
            self._next = self._clock() + (_ASK_AGAIN_S if known is None else ASK_EVERY_S)
            kept = f"{known} is kept" if known else "until it is, nothing is announced and no pinhole opened"
            if not self._failing:
                log.warning(
                    "outside_address %s cannot be resolved: %s; %s; remedy: see what `getent ahostsv4 %s`"
                    " says on this router",
                    *(name, error, kept, name),
                )
            self._failing = True
            return
        self._next = self._clock() + ASK_EVERY_S
        if self._failing or address != known:
            log.info("outside_address %s stands for %s", name, address)
        self._failing = False
        self._reach.address = address
