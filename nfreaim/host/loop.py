"""Loop: what is readable is served, what is due is done, until a signal ends it.

No threads and no asyncio: there is one thing to wait for at a time. Knows nothing of what it serves.
"""

from __future__ import annotations

import logging
import math
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final, Protocol

log = logging.getLogger("nfreaim")

_FAILURES: Final = 5  # in a row, of one part of the loop; then the process ends, and is started anew
_STOPPING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

TICK: Final = 1.0
"""Seconds between two calls of whatever expires."""

clock: Final[Callable[[], float]] = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
"""Seconds since boot, suspend included: deadlines in the kernel survive a restart and any clock step."""


class Readable(Protocol):
    """What a selector can wait for."""

    def fileno(self) -> int: ...


class Chore(Protocol):
    """Something that has its own times."""

    def due(self) -> float:
        """When it is to be done next."""

    def work(self, now: float) -> None:
        """Do it: it is due."""


class Every:
    """*part*, every so many *seconds*, at once for the first time."""

    def __init__(self, seconds: Callable[[], float], part: Callable[[], object]) -> None:
        self._seconds = seconds
        self._part = part
        self._next = 0.0

    def due(self) -> float:
        return self._next

    def work(self, now: float) -> None:
        self._next = now + self._seconds()
        self._part()


class _Paced:
    """Reads *source*, and then not for so many seconds; a chore that looks at it again."""

    def __init__(
        self, selector: selectors.BaseSelector, source: Readable, part: Callable[[], None], pause: float
    ) -> None:
        self._selector = selector
        self._source = source
        self._part = part
        self._pause = pause
        self.work(0.0)

    def due(self) -> float:
        return self._again

    def work(self, now: float) -> None:
        self._again = math.inf
        self._selector.register(self._source.fileno(), selectors.EVENT_READ, self._read)

    def _read(self) -> None:
        self._selector.unregister(self._source.fileno())
        self._again = clock() + self._pause
        self._part()


class Loop:
    """One loop over descriptors, chores and *signals*, a socket that their numbers arrive on.

    report  SIGUSR1 came

    A part that fails is tried again; if it goes on failing the process ends, because it would do harm half
    alive: pinholes that nobody closes. Without it packets pass, and it is started anew.
    """

    def __init__(self, signals: socket.socket, report: Callable[[], None]) -> None:
        self.selector = selectors.DefaultSelector()
        self.stopped = False
        """Set it, and the loop ends with this turn."""
        self._signals = signals
        self._report = report
        self._chores: list[tuple[str, Chore]] = []  # without a name: what it raises ends the loop
        self._failures: dict[str, int] = {}
        self.selector.register(signals, selectors.EVENT_READ, self._signalled)

    def serve(self, source: Readable, part: Callable[[], None]) -> None:
        """Call *part* whenever *source* is readable. What it raises ends the loop."""
        self.selector.register(source.fileno(), selectors.EVENT_READ, part)

    def read(self, source: Readable, name: str, part: Callable[[], None], pause: float) -> None:
        """The same, but it may fail, and *source* is not looked at for *pause* seconds afterwards."""
        self.must(_Paced(self.selector, source, lambda: self.attempt(name, part), pause))

    def chore(self, name: str, chore: Chore) -> None:
        """Do *chore* whenever it is due."""
        self._chores.append((name, chore))

    def must(self, chore: Chore) -> None:
        """The same, and what it raises ends the loop."""
        self._chores.append(("", chore))

    def run(self) -> None:
        """Until a signal asks to stop."""
        chores = self._chores
        with self.selector as selector:
            while not self.stopped:
                due = min([chore.due() for _, chore in chores])
                for key, _ in selector.select(max(0.0, due - clock())):
                    key.data()
                now = clock()
                for name, chore in chores:
                    if now >= chore.due():
                        if name:
                            self.attempt(name, partial(chore.work, now))
                        else:
                            chore.work(now)

    def attempt(self, name: str, part: Callable[[], None]) -> None:
        """Call *part*. Raises what it raises if that has happened too often in a row."""
        try:
            part()
        except Exception as error:
            failures = self._failures[name] = self._failures.get(name, 0) + 1
            log.error("%s failed", name, exc_info=error if failures == 1 else None)
            if failures >= _FAILURES:
                raise
        else:
            self._failures.pop(name, None)

    def _signalled(self) -> None:
        for number in self._signals.recv(64):
            if number in _STOPPING:
                log.info("stopping: %s", signal.Signals(number).name)
                self.stopped = True
                return
            self._report()


@contextmanager
def stop_signals() -> Iterator[socket.socket]:
    """A socket that the numbers of our signals arrive on, one byte each; handlers as found afterwards."""
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    numbers = (*_STOPPING, signal.SIGUSR1)
    found = {number: signal.getsignal(number) for number in numbers}
    earlier = signal.set_wakeup_fd(writer.fileno())
    try:
        for number in numbers:
            signal.signal(number, _ignore)
        yield reader
    finally:
        for number, handler in found.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(earlier)
        reader.close()
        writer.close()


def _ignore(number: int, frame: object) -> None:
    """Python needs a handler for the signal's number to be written to the socket."""
