"""Supervisor: the processes that read, as their owner has them: started, answered, started anew, ended.

A worker is a program of its own, started by exec: it inherits nothing but its end of a link and the page, so
that a new one can take a dead one's place at any time. What it may ask is what ``RequestHandlers`` offers.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from selectors import EVENT_READ, BaseSelector, DefaultSelector
from typing import Any, Final, Protocol

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.firewall.pinhole import Pinhole
from nfreaim.core.firewall.table import PinholeTable
from nfreaim.core.helper import Refused
from nfreaim.errors import BackendError
from nfreaim.host.loop import clock
from nfreaim.host.report.journal import Journal
from nfreaim.host.report.metrics import Metrics
from nfreaim.host.workers.rpc import DONE, FAILED, LARGEST, ONE_WAY, REFUSED, Gone, pair, receive, reply
from nfreaim.host.workers.shared_page import SharedPage, Slot

log = logging.getLogger("nfreaim")

_START: Final = 60.0  # seconds for a process to come up, on a busy machine
_STOP: Final = 10.0  # seconds for all to end
_LAST: Final = 1.0  # seconds for one that has closed its link
_LONG: Final = 60.0  # seconds of life, then an end is no longer one of a row
_FAILURES: Final = 5  # ends in a row of one worker
_FIRST, _MOST = 0.2, 5.0  # seconds before a start, after the first such end and at most
_TURN: Final = 64  # messages of one worker, then the others and everything else have their turn


class PublishingJournal(Journal):
    """Whom the table of pinholes tells: the log, and the page, that something has changed."""

    def __init__(self, page: SharedPage) -> None:
        self._page = page

    def opened(self, pinhole: Pinhole) -> None:
        self._page[Slot.CHANGES] += 1
        super().opened(pinhole)

    def closed(self, pinhole: Pinhole, reason: str) -> None:
        self._page[Slot.CHANGES] += 1
        super().closed(pinhole, reason)


class Servers(Protocol):
    """The followed servers, as host.linux_backend has them."""

    def divert(self, server: Endpoint) -> None: ...

    def diverted(self) -> list[tuple[Endpoint, float]]: ...


class RequestHandlers:
    """What workers may ask of the owner, by name; the arguments are those of core.nat.Pinholes and Kernel."""

    def __init__(self, pinholes: PinholeTable, servers: Servers, page: SharedPage) -> None:
        self._pinholes = pinholes
        self._servers = servers
        self._page = page
        self._names: dict[str, Callable[..., Any]] = {
            "open": pinholes.open,
            "agreed": pinholes.agreed,
            "close": pinholes.close,
            "close_owner": pinholes.close_owner,
            "prepare": pinholes.prepare,
            "inside_of": pinholes.inside_of,
            "owners": self._owners,
            "insides": self._insides,
            "divert": self._divert,
            "followed": self._followed,
        }

    def to(self, name: str, arguments: tuple[Any, ...]) -> tuple[str, Any]:
        """Outcome and value, see host.workers.rpc. Raises nothing."""
        try:
            return DONE, self._names[name](*arguments)
        except Refused as refused:
            return REFUSED, str(refused)
        except BackendError as error:
            return FAILED, str(error)
        except Exception as error:
            log.exception("a worker's request failed: %s", name)
            return FAILED, f"{name} failed: {type(error).__name__}"
        finally:
            self.publish()

    def publish(self) -> None:
        """Bring the page up to date. Call it after everything that may have opened or closed a pinhole."""
        self._page[Slot.PINHOLES] = len(self._pinholes)
        self._page[Slot.SESSIONS] = int(self._pinholes.sessions())

    def _owners(self) -> frozenset[FlowId]:
        return frozenset(self._pinholes.owners())

    def _insides(self) -> frozenset[Endpoint]:
        return frozenset(self._pinholes.insides())

    def _divert(self, server: Endpoint) -> None:
        self._servers.divert(server)
        self._page[Slot.FOLLOWED] += 1

    def _followed(self) -> list[tuple[Endpoint, float]]:
        return self._servers.diverted()


@dataclass
class _Worker:
    """One of them, and its present life."""

    number: int
    queue: int
    process: subprocess.Popen[bytes] | None = None
    link: socket.socket | None = None
    began: float = 0.0
    ready: bool = False
    failures: int = 0
    start_at: float = 0.0
    why: str = ""
    figures: Metrics = field(default_factory=lambda: Metrics(0, (), {}))
    earlier: Metrics = field(default_factory=lambda: Metrics(0, (), {}))


class Supervisor:
    """The workers for *queues*, a number for each; none runs yet.

    answers  to what they ask
    welcome  what each is to know when it begins, by its number: anything that can be pickled
    temporary  the rules end with the daemon
    options  of its command line
    """

    def __init__(
        self,
        queues: Iterable[int],
        answers: RequestHandlers,
        page: SharedPage,
        welcome: Callable[[int], Any],
        temporary: bool,
        options: Iterable[str],
    ) -> None:
        self._answers = answers
        self._page = page
        self._welcome = welcome
        self._temporary = temporary
        self._options = list(options)
        self._stopping = False
        self._selector: BaseSelector = DefaultSelector()
        self._buffer = bytearray(LARGEST)
        self._workers = [_Worker(number, queue) for number, queue in enumerate(queues, 1)]

    def start(self, other: int, meanwhile: Callable[[], None]) -> None:
        """Start all, and wait until each serves its queue; *meanwhile* is called if descriptor *other* is
        readable. Raises BackendError if one cannot begin.
        """
        self._selector.register(other, EVENT_READ, meanwhile)
        for worker in self._workers:
            self._begin(worker)
        until = time.monotonic() + _START
        while not all(worker.ready for worker in self._workers):
            self._serve_some(self._selector, max(0.0, until - time.monotonic()))
            for worker in self._workers:
                if worker.process is None:
                    raise BackendError(f"worker {worker.number} cannot begin: {worker.why}")
            if time.monotonic() >= until:
                raise BackendError(
                    f"the workers did not come up within {_START:.0f} s: the machine is too busy"
                )

    def attach(self, selector: BaseSelector) -> None:
        """Be served by a loop that calls the data of each ready key."""
        for worker in self._workers:
            if worker.link is not None:
                selector.register(worker.link, EVENT_READ, partial(self._serve, worker))
        self._selector.close()
        self._selector = selector

    def tick(self) -> None:
        """Start anew who has ended. Call it often. Raises BackendError if one goes on ending."""
        now = clock()
        for worker in self._workers:
            if worker.process is not None and worker.process.poll() is not None:
                self._serve(worker)  # what it said last comes before the end of its link
            if worker.process is None and now >= worker.start_at:
                if worker.failures >= _FAILURES:
                    raise BackendError(
                        f"worker {worker.number} ended {_FAILURES} times in a row: {worker.why}"
                    )
                log.warning("worker %d has ended and is started anew: %s", worker.number, worker.why)
                self._begin(worker)

    def stop(self) -> None:
        """End all, and answer them meanwhile. Who does not end in time is killed."""
        self._stopping = True
        with DefaultSelector() as selector:
            running = [worker for worker in self._workers if worker.process is not None]
            for worker in running:
                assert worker.process is not None
                if worker.link is not None:
                    selector.register(worker.link, EVENT_READ, partial(self._serve, worker))
                worker.process.terminate()
            self._selector = selector
            until = time.monotonic() + _STOP
            while any(worker.link for worker in running) and time.monotonic() < until:
                self._serve_some(selector, until - time.monotonic())
        for worker in running:
            if worker.process is not None:
                _end(worker.process, until)

    def figures(self) -> tuple[Metrics, list[dict[str, Any]]]:
        """What they told last, together, and a document about each."""
        told = [Metrics.total([worker.figures, worker.earlier]) for worker in self._workers]
        each = [
            {
                "number": worker.number,
                "queue": worker.queue,
                "pid": worker.process.pid if worker.process is not None else None,
                "flows": worker.figures.flows,
                "packets": figures.counters.get("packets", 0),
            }
            for worker, figures in zip(self._workers, told, strict=True)
        ]
        return Metrics.total(told), each

    def _begin(self, worker: _Worker) -> None:
        ours, theirs = pair()
        ours.setblocking(False)
        words = ["worker", str(theirs.fileno()), str(self._page.view), str(worker.number), *self._options]
        # Not from the working directory, where anybody may have put a package of our name.
        paths = os.pathsep.join(path for path in sys.path if path)
        try:
            worker.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "nfreaim", *words],
                env={**os.environ, "PYTHONPATH": paths},
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), self._page.view),
                start_new_session=True,  # a terminal's Ctrl-C is for the owner, who ends us all
            )
        except OSError as error:
            ours.close()
            raise BackendError(f"worker {worker.number} cannot be started: {error}") from error
        finally:
            theirs.close()
        worker.link, worker.began, worker.ready, worker.why = ours, clock(), False, ""
        self._selector.register(ours, EVENT_READ, partial(self._serve, worker))

    def _ended(self, worker: _Worker) -> None:
        """Its process has ended, or has closed the link, which is the same."""
        self._leave(worker)
        if worker.process is not None:
            _end(worker.process, time.monotonic() + _LAST)
            worker.why = worker.why or f"exit status {worker.process.returncode}"
            worker.process = None
        # Flows and edited ones are gone with it; what it counted has happened.
        worker.earlier = Metrics.total([worker.earlier, Metrics(0, (), worker.figures.counters)])
        worker.figures = Metrics(0, (), {})
        now = clock()
        worker.failures = worker.failures + 1 if now - worker.began < _LONG else 1
        worker.start_at = now + min(_MOST, _FIRST * 2 ** (worker.failures - 1))

    def _leave(self, worker: _Worker) -> None:
        if worker.link is not None:
            with suppress(KeyError, ValueError):
                self._selector.unregister(worker.link)
            worker.link.close()
            worker.link = None

    @staticmethod
    def _serve_some(selector: BaseSelector, seconds: float) -> None:
        for key, _ in selector.select(seconds):
            key.data()

    def _serve(self, worker: _Worker) -> None:
        """Answer what *worker* has asked."""
        for _ in range(_TURN):
            if worker.link is None:
                return
            try:
                number, name, arguments = receive(worker.link, self._buffer)
            except Gone:
                self._ended(worker)
                return
            except BlockingIOError:
                return
            self._answer(worker, number, name, arguments)

    def _answer(self, worker: _Worker, number: int, name: str, arguments: tuple[Any, ...]) -> None:
        outcome: tuple[str, Any] = DONE, None
        if name == "figures":
            (worker.figures,) = arguments
        elif name == "ready":
            worker.ready = True
        elif name == "failed":
            (worker.why,) = arguments
        elif name == "welcome":
            outcome = DONE, self._welcome(worker.number)
        elif name == "last":  # it ends: whether nobody will go on with its flows
            outcome = DONE, self._stopping and self._temporary
        else:
            outcome = self._answers.to(name, arguments)
        if number == ONE_WAY or worker.link is None:
            return
        try:
            reply(worker.link, number, *outcome)
        except OSError as error:  # it has gone, or takes nothing: then it does without
            log.warning("worker %d was not answered: %s", worker.number, error)


def _end(process: subprocess.Popen[bytes], until: float) -> None:
    """Wait for *process* until the monotonic time *until*, then kill it."""
    try:
        process.wait(max(0.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        log.warning("process %d did not end and is killed", process.pid)
        process.kill()
        process.wait()
