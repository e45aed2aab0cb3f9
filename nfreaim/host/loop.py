"""Loop: reads the descriptors that are ready and does the chores that are due, until a signal ends it.

It needs neither threads nor asyncio, because one selector waits for everything.
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

from nfreaim.host.events import STOPPING, noted

log = logging.getLogger("nfreaim")

_MOST_FAILURES: Final = 5  # of one part in a row; then the process ends, and is restarted
_STOPPING: Final = (signal.SIGTERM, signal.SIGINT)

TICK_S: Final = 1.0
"""Between two calls of the parts that let things expire."""

clock: Final[Callable[[], float]] = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
"""Seconds since boot, suspend included: deadlines in the kernel survive a restart and any clock step."""


class Readable(Protocol):
    """A source that a selector can wait for."""

    def fileno(self) -> int: ...


class Chore(Protocol):
    """Work that is done at times of its own."""

    def due(self) -> float:
        """The time of the next call of ``work``, on ``clock``."""

    def work(self, now: float) -> None:
        """Do the work, which is due."""


class Every:
    """Calls *part* at once, and again whenever *interval_s* seconds have passed."""

    def __init__(self, interval_s: Callable[[], float], part: Callable[[], object]) -> None:
        self._interval_s = interval_s
        self._part = part
        self._next = 0.0

    def due(self) -> float:
        return self._next

    def work(self, now: float) -> None:
        self._next = now + self._interval_s()
        self._part()


class _Paced:
    """Reads *source*, unregisters it, and as a chore registers it again after *pause_s* seconds."""

    def __init__(
        self, selector: selectors.BaseSelector, source: Readable, part: Callable[[], None], pause_s: float
    ) -> None:
        self._selector = selector
        self._source = source
        self._part = part
        self._pause_s = pause_s
        self.work(0.0)

    def due(self) -> float:
        return self._again

    def work(self, now: float) -> None:
        self._again = math.inf
        self._selector.register(self._source.fileno(), selectors.EVENT_READ, self._read)

    def _read(self) -> None:
        self._selector.unregister(self._source.fileno())
        self._again = clock() + self._pause_s
        self._part()


class Loop:
    """One loop over descriptors, chores and signals.

    signals  the socket on which the numbers of signals arrive
    report   called at SIGUSR1
    reload   called at SIGHUP

    A part that fails is tried again. If it fails too often in a row the process ends, because a daemon
    without one of its parts does harm: pinholes would stay open. Without the process packets pass, and it is
    restarted.
    """

    def __init__(
        self,
        signals: socket.socket,
        report: Callable[[], None],
        reload: Callable[[], None] = lambda: None,
    ) -> None:
        self.selector = selectors.DefaultSelector()
        self.stopped = False
        """Set to end the loop with this turn."""
        self._signals = signals
        self._report, self._reload = report, reload
        self._chores: list[tuple[str, Chore]] = []  # a chore without a name ends the loop if it raises
        self._failures: dict[str, int] = {}
        self._afterwards: list[Callable[[], None]] = []
        self.selector.register(signals, selectors.EVENT_READ, self._signalled)

    def serve(self, source: Readable, part: Callable[[], None]) -> None:
        """Call *part* whenever *source* is readable. An exception ends the loop."""
        self.selector.register(source.fileno(), selectors.EVENT_READ, part)

    def read(self, source: Readable, name: str, part: Callable[[], None], pause_s: float) -> None:
        """The same, but *part* may fail, and is not called for *pause_s* seconds after a call."""
        self.must(_Paced(self.selector, source, lambda: self.attempt(name, part), pause_s))

    def chore(self, name: str, chore: Chore) -> None:
        """Do *chore* whenever it is due."""
        self._chores.append((name, chore))

    def must(self, chore: Chore) -> None:
        """The same, but an exception ends the loop."""
        self._chores.append(("", chore))

    def afterwards(self, part: Callable[[], None]) -> None:
        """Call *part* after each source that was read: what a packet need not wait for. It must not raise."""
        self._afterwards.append(part)

    def run(self) -> None:
        """Serve until a signal asks to stop."""
        chores = self._chores
        with self.selector as selector:
            while not self.stopped:
                due = min([chore.due() for _, chore in chores])
                for key, _ in selector.select(max(0.0, due - clock())):
                    key.data()
                    for part in self._afterwards:
                        part()
                now = clock()
                for name, chore in chores:
                    if now >= chore.due():
                        if name:
                            self.attempt(name, partial(chore.work, now))
                        else:
                            chore.work(now)

    def attempt(self, name: str, part: Callable[[], None]) -> None:
        """Call *part*. Logs its exceptions, and raises the last of too many in a row."""
        try:
            part()
        except Exception as error:
            failures = self._failures[name] = self._failures.get(name, 0) + 1
            log.error("%s failed", name, exc_info=error if failures == 1 else None)
            if failures >= _MOST_FAILURES:
                raise
        else:
            self._failures.pop(name, None)

    def _signalled(self) -> None:
        for number in self._signals.recv(64):
            if number in _STOPPING:
                log.info("stopping: %s", signal.Signals(number).name, extra=noted(STOPPING))
                self.stopped = True
                return
            if number == signal.SIGHUP:
                self._reload()
            else:
                self._report()


@contextmanager
def stop_signals() -> Iterator[socket.socket]:
    """A socket on which the numbers of our signals arrive, one byte each; restores the handlers after it."""
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    numbers = (*_STOPPING, signal.SIGHUP, signal.SIGUSR1)
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


@contextmanager
def unasked() -> Iterator[None]:
    """Meanwhile the signals that ask a daemon for something, which would end this process, do nothing."""
    numbers = signal.SIGHUP, signal.SIGUSR1
    found = [signal.signal(number, _ignore) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, found, strict=True):
            signal.signal(number, handler)


def _ignore(number: int, frame: object) -> None:
    """Does nothing: Python writes a signal's number to the socket only if the signal has a handler."""
