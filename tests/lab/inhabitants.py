"""Servers and clients of a lab that need no process of their own: asyncio in a thread of this process, with
sockets that belong to the lab's nodes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

from tests.lab.namespace import Network, socket_in

T = TypeVar("T")
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Place(Network, Protocol):
    """A lab, as far as it matters here."""

    def at_close(self, end: Callable[[], None]) -> None:
        """Call *end* when the lab is closed."""


class Inhabitants:
    """The loop of one lab, which ends with it and closes every connection without a word."""

    def __init__(self, lab: Place) -> None:
        self._lab = lab
        self.names: dict[str, str] = {}
        """Addresses of hosts that are called by a name."""
        self.failures: list[BaseException] = []
        """What went wrong where nobody waits for the result."""
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        self._listeners: set[asyncio.Server] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        lab.at_close(self.close)

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin with *work*, called from any other thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def run(self, work: Coroutine[Any, Any, T], seconds: float = 60.0) -> T:
        """What comes of *work*, called from any other thread."""
        return self.start(work).result(seconds)

    def keep(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Begin with *work* from within the loop, and let nobody collect it."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._over)
        return task

    def _over(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self.failures.append(error)

    async def connect(self, node: str, address: str, port: int, seconds: float = 10.0) -> Streams:
        """A connection from *node*, each of whose writes leaves as a segment of its own; OSError."""
        made = self._socket(node)
        made.setblocking(False)
        try:
            await asyncio.wait_for(
                self._loop.sock_connect(made, (self.names.get(address, address), port)), seconds
            )
        except BaseException:
            made.close()
            raise
        streams = await asyncio.open_connection(sock=made)
        self._mind(streams[1])
        return streams

    async def listen(self, node: str, address: str, port: int, serve: Serve) -> tuple[asyncio.Server, int]:
        """A listener on *node*, and its port, which the kernel chooses for 0; OSError if it is taken."""
        made = self._socket(node)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind((address, port))
        except OSError:
            made.close()
            raise

        async def mind(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._mind(writer)
            await serve(reader, writer)

        listener = await asyncio.start_server(mind, sock=made)
        self._listeners = {one for one in self._listeners if one.is_serving()} | {listener}
        return listener, made.getsockname()[1]

    def close(self) -> None:
        """End everything. What does not end in time is left to the end of this process."""
        if self._thread.is_alive():
            with contextlib.suppress(TimeoutError):
                self.start(self._end()).result(10.0)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10.0)
        if not self._thread.is_alive():
            self._loop.close()

    def _socket(self, node: str) -> socket.socket:
        return socket_in(self._lab, node)

    def _mind(self, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._writers = {one for one in self._writers if not one.is_closing()} | {writer}

    async def _end(self) -> None:
        for listener in self._listeners:
            listener.close()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)
