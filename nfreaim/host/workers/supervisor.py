"""Supervisor: starts the workers, answers their requests, restarts those that end, and stops all.

A worker is a program of its own, started by exec. It inherits only its end of a socket pair and the shared
page, so a new worker can replace a dead one at any time. ``RequestHandlers`` lists the requests.
"""

from __future__ import annotations

import logging
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address
from selectors import EVENT_READ, BaseSelector, DefaultSelector
from typing import Any, Final

from nfreaim import same_program
from nfreaim.config import Config
from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.backend import HomeServers
from nfreaim.core.counters import EngineStats
from nfreaim.core.firewall.pinhole import Pinhole
from nfreaim.core.firewall.table import PinholeTable
from nfreaim.core.followed import FollowedServers
from nfreaim.core.helper import Refused
from nfreaim.errors import BackendError
from nfreaim.host.loop import clock
from nfreaim.host.report.journal import Journal
from nfreaim.host.report.metrics import NOTHING, Readers, total
from nfreaim.host.workers.program_files import ProgramFiles
from nfreaim.host.workers.rpc import (
    DONE,
    FAILED,
    LARGEST_MESSAGE,
    ONE_WAY,
    REFUSED,
    Gone,
    receive,
    reply,
    socket_pair,
)
from nfreaim.host.workers.shared_page import SharedPage, Slot

log = logging.getLogger("nfreaim")

_START_TIMEOUT_S: Final = 60.0  # for all workers to serve their queues, on a busy machine
_STOP_TIMEOUT_S: Final = 10.0  # for all workers to end
_LINK_CLOSE_GRACE_S: Final = 1.0  # for a worker to end after it closed its socket
_STABLE_AFTER_S: Final = 60.0  # that a worker has to live for its end not to count as one in a row
_MOST_FAILURES: Final = 5  # ends of one worker in a row; then the daemon ends
_BACKOFF_FIRST_S, _BACKOFF_MOST_S = 0.2, 5.0  # before a restart, doubled each time
_TURN: Final = 64  # at most as many messages of one worker are answered in a row


class PublishingJournal(Journal):
    """Logs, and counts opened and closed pinholes in the shared page, so that workers ask again."""

    def __init__(self, page: SharedPage) -> None:
        super().__init__()
        self._page = page

    def opened(self, pinhole: Pinhole) -> None:
        self._page[Slot.PINHOLE_CHANGES] += 1
        super().opened(pinhole)

    def closed(self, pinhole: Pinhole, reason: str) -> None:
        self._page[Slot.PINHOLE_CHANGES] += 1
        super().closed(pinhole, reason)


class RequestHandlers:
    """The requests of workers, by name; the arguments are those of the methods in core.backend."""

    def __init__(
        self, pinholes: PinholeTable, followed: FollowedServers, home: HomeServers, page: SharedPage
    ) -> None:
        self._pinholes = pinholes
        self._followed = followed
        self._page = page
        self._names: dict[str, Callable[..., Any]] = {
            "open": pinholes.open,
            "offered": pinholes.offered,
            "accepted": pinholes.accepted,
            "close": pinholes.close,
            "close_flow": pinholes.close_flow,
            "prepare": pinholes.prepare,
            "reserve": pinholes.reserve,
            "signed_on": pinholes.signed_on,
            "inside_of": pinholes.inside_of,
            "flows": self._flows,
            "insides": self._insides,
            "follow": lambda server: followed.follow(server, clock()),
            "used": lambda server, client: followed.used(server, client, clock()),
            "adopt": lambda server, seconds: followed.adopt(server, seconds, clock()),
            "followed": followed.all,
            "home_met": home.met,
            "home_why_not": home.why_not,
            "home_port_of": home.port_of,
        }

    def handle(self, name: str, arguments: tuple[Any, ...]) -> tuple[str, Any]:
        """Outcome and value of a request, see host.workers.rpc. Raises nothing."""
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
        """Bring the page up to date. Call it after each step that may have changed what it tells."""
        self._page[Slot.PINHOLES] = len(self._pinholes)
        self._page[Slot.STANDING] = int(self._pinholes.has_standing())
        self._page[Slot.FOLLOWED_CHANGES] = self._followed.changes
        self._page[Slot.OUTSIDE_ADDRESS] = int(IPv4Address(self._pinholes.reach.address or 0))
        self._page.set_in_front(self._pinholes.reach.in_front)

    def _flows(self) -> frozenset[FlowId]:
        return frozenset(self._pinholes.flows())

    def _insides(self) -> frozenset[Endpoint]:
        return frozenset(self._pinholes.insides())


@dataclass
class _Worker:
    """One worker, and the process that is this worker now.

    heard     when its process said something last
    failures  ends of its processes in a row
    start_at  earliest time of the next start
    stats     of the running process; *earlier*: the counters of those before it
    """

    number: int
    queue: int
    process: subprocess.Popen[bytes] | None = None
    link: socket.socket | None = None
    began: float = 0.0
    heard: float = 0.0
    ready: bool = False
    failures: int = 0
    start_at: float = 0.0
    why: str = ""
    stats: EngineStats = NOTHING
    earlier: EngineStats = NOTHING


class Supervisor:
    """The workers for *config*, one for each of its reading queues; ``start`` starts them.

    rules_go_with_us  the rules are removed when the daemon ends, so no later daemon goes on with its flows
    """

    def __init__(
        self, config: Config, handlers: RequestHandlers, page: SharedPage, rules_go_with_us: bool
    ) -> None:
        self._config = config
        self._handlers = handlers
        self._page = page
        self._rules_go_with_us = rules_go_with_us
        self._files = ProgramFiles()
        self._stopping = False
        self._selector: BaseSelector = DefaultSelector()
        self._buffer = bytearray(LARGEST_MESSAGE)
        self._workers = [_Worker(number, queue) for number, queue in enumerate(config.reading, 1)]

    def start(self, other: int, meanwhile: Callable[[], None]) -> None:
        """Start all workers, and wait until each serves its queue. Raises BackendError if one cannot begin.

        *meanwhile* is called whenever descriptor *other* is readable during the wait.
        """
        self._selector.register(other, EVENT_READ, meanwhile)
        for worker in self._workers:
            self._begin(worker)
        until = time.monotonic() + _START_TIMEOUT_S
        while not all(worker.ready for worker in self._workers):
            self._serve_some(self._selector, max(0.0, until - time.monotonic()))
            for worker in self._workers:
                if worker.process is None:
                    raise BackendError(f"worker {worker.number} cannot begin: {worker.why}")
            if time.monotonic() >= until:
                raise BackendError(
                    f"the workers did not come up within {_START_TIMEOUT_S:.0f} s: the machine is too busy"
                )

    def attach(self, selector: BaseSelector) -> None:
        """Be served by a loop that calls the data of each ready key."""
        for worker in self._workers:
            if worker.link is not None:
                selector.register(worker.link, EVENT_READ, partial(self._serve, worker))
        self._selector.close()
        self._selector = selector

    def tick(self) -> None:
        """Restart workers that have ended. Call it often.

        Raises BackendError if one ends again and again, or would be of another version.
        """
        now = clock()
        for worker in self._workers:
            if worker.process is not None and worker.process.poll() is not None:
                self._serve(worker)  # reads its last messages, and then the end of the connection
            if worker.process is None and now >= worker.start_at:
                if worker.failures >= _MOST_FAILURES:
                    raise BackendError(
                        f"worker {worker.number} ended {_MOST_FAILURES} times in a row: {worker.why}"
                    )
                self._require_same_program()
                log.warning("worker %d has ended and is started anew: %s", worker.number, worker.why)
                self._begin(worker)

    def stop(self) -> None:
        """Stop all workers, and answer them meanwhile. Workers that do not end in time are killed."""
        self._stopping = True
        with DefaultSelector() as selector:
            running = [worker for worker in self._workers if worker.process is not None]
            for worker in running:
                assert worker.process is not None
                if worker.link is not None:
                    selector.register(worker.link, EVENT_READ, partial(self._serve, worker))
                worker.process.terminate()
            self._selector = selector
            until = time.monotonic() + _STOP_TIMEOUT_S
            while any(worker.link for worker in running) and time.monotonic() < until:
                self._serve_some(selector, until - time.monotonic())
        for worker in running:
            if worker.process is not None:
                _end(worker.process, until)

    def obey(self, config: Config) -> None:
        """The settings are these now: workers ask for them when they see that, and so do those that begin."""
        self._config = config
        self._page[Slot.CONFIG_CHANGES] += 1

    def silent(self, seconds: float) -> str:
        """A worker that has said nothing for so long, by name, or "". One that begins has more time."""
        now = clock()
        for worker in self._workers:
            patience = seconds if worker.ready else max(seconds, _START_TIMEOUT_S)
            if worker.process is not None and now - worker.heard > patience:
                return f"worker {worker.number} (process {worker.process.pid})"
        return ""

    def readers(self) -> Readers:
        """The statistics that the workers sent last."""
        told = [total([worker.stats, worker.earlier]) for worker in self._workers]
        each = [
            {
                "number": worker.number,
                "queue": worker.queue,
                "pid": worker.process.pid if worker.process is not None else None,
                "flows": worker.stats.flows,
                "packets": stats.counters.get("packets", 0),
            }
            for worker, stats in zip(self._workers, told, strict=True)
        ]
        return Readers(total(told), each)

    def _begin(self, worker: _Worker) -> None:
        ours, theirs = socket_pair()
        ours.setblocking(False)
        words = ["worker", str(theirs.fileno()), str(self._page.view), str(worker.number)]
        words += ["--log-level", self._config.log_level, "--log-format", self._config.log_format]
        try:
            worker.process = subprocess.Popen(
                same_program.command(*words),
                env=same_program.environment(),
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), self._page.view),
                start_new_session=True,  # a terminal's Ctrl-C reaches the main process only, which stops all
            )
        except OSError as error:
            ours.close()
            raise BackendError(f"worker {worker.number} cannot be started: {error}") from error
        finally:
            theirs.close()
        worker.link, worker.ready, worker.why = ours, False, ""
        worker.began = worker.heard = clock()
        self._selector.register(ours, EVENT_READ, partial(self._serve, worker))

    def _require_same_program(self) -> None:
        """Raises BackendError if the files were replaced: a worker of another version may read other numbers
        in the page. The daemon's end lets the service manager start all processes of that version."""
        if not self._stopping and self._files.replaced():
            raise BackendError(
                "a worker would be of another version, because the program was replaced while the daemon ran;"
                " remedy: start the daemon again"
            )

    def _ended(self, worker: _Worker) -> None:
        """The worker's process has ended, or has closed its socket, which it does only at its end."""
        self._close_link(worker)
        if worker.process is not None:
            _end(worker.process, time.monotonic() + _LINK_CLOSE_GRACE_S)
            worker.why = worker.why or f"exit status {worker.process.returncode}"
            worker.process = None
        # Its flows are gone with the process; its counters stay true.
        worker.earlier = total([worker.earlier, NOTHING._replace(counters=worker.stats.counters)])
        worker.stats = NOTHING
        now = clock()
        worker.failures = worker.failures + 1 if now - worker.began < _STABLE_AFTER_S else 1
        worker.start_at = now + min(_BACKOFF_MOST_S, _BACKOFF_FIRST_S * 2 ** (worker.failures - 1))

    def _close_link(self, worker: _Worker) -> None:
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
        """Answer the requests of *worker*."""
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
        worker.heard = clock()
        if name == "stats":
            (worker.stats,) = arguments
        elif name == "ready":
            worker.ready = True
            self._require_same_program()
        elif name == "failed":
            (worker.why,) = arguments
        elif name == "config":
            outcome = DONE, self._config
        elif name == "last":  # asked by a worker that ends: whether no later daemon goes on with its flows
            outcome = DONE, self._stopping and self._rules_go_with_us
        else:
            outcome = self._handlers.handle(name, arguments)
        if number == ONE_WAY or worker.link is None:
            return
        try:
            reply(worker.link, number, *outcome)
        except OSError as error:  # the worker has ended, or does not read
            log.warning("worker %d was not answered: %s", worker.number, error)


def _end(process: subprocess.Popen[bytes], until: float) -> None:
    """Wait for *process* until the monotonic time *until*, then kill it."""
    try:
        process.wait(max(0.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        log.warning("process %d did not end and is killed", process.pid)
        process.kill()
        process.wait()
