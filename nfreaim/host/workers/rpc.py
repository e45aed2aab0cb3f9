"""RPC: requests of a worker to the main process, which has the pinholes, over a pair of sockets.

Each message is one datagram of a SOCK_SEQPACKET pair. A request is (number, name, arguments), its answer
(number, outcome, value); number 0 asks for no answer. A late answer is recognised by its number.

Messages are pickles, and a sender of pickles can run code in the receiver. This gives the sender no new
power: both ends are the same program with the same user and capabilities, one has started the other, and no
other process has the socket. A compromised worker could change the firewall without the socket.
"""

from __future__ import annotations

import logging
import pickle
import socket
import time
from collections import deque
from contextlib import suppress
from typing import Any, Final

from nfreaim.core.helper import Refused
from nfreaim.errors import BackendError

log = logging.getLogger("nfreaim")

PATIENCE_S: Final = 2.0
"""At most as long a request waits for its answer; the worker's packets wait meanwhile."""

_IMPATIENCE_S: Final = 0.02  # the same after a request without an answer

ONE_WAY: Final = 0
DONE, REFUSED, FAILED = "done", "refused", "failed"

LARGEST_MESSAGE: Final = 4 << 20
"""Bytes of the largest message. Statistics of 16384 edited connections have 1 MiB, as many endpoints less."""

_MOST_BACKLOG: Final = 4096  # at most as many notifications wait for room in the socket
_SO_SNDBUFFORCE: Final = 32


class Gone(BackendError):
    """The other end has closed the connection."""


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """The two ends of a connection."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        allow_large_messages(end)
    return ends


def allow_large_messages(end: socket.socket) -> None:
    """Make the socket's buffer large enough for the largest message."""
    with suppress(OSError):  # smaller messages still work
        end.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, LARGEST_MESSAGE)


def receive(end: socket.socket, buffer: bytearray) -> Any:
    """The next message. Raises Gone, OSError (BlockingIOError or TimeoutError if there is none)."""
    try:
        size = end.recv_into(buffer)
    except ConnectionError as error:
        raise Gone("the other process has ended") from error
    if not size:
        raise Gone("the other process has ended")
    return pickle.loads(memoryview(buffer)[:size])


def reply(end: socket.socket, number: int, outcome: str, value: Any) -> None:
    """Answer request *number*. Raises OSError."""
    end.send(pickle.dumps((number, outcome, value)))


class RpcClient:
    """The worker's end. No call waits for longer than its patience."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._buffer = bytearray(LARGEST_MESSAGE)
        self._number = 0
        self._backlog: deque[bytes] = deque()
        self._lost = self._silent = False

    def fileno(self) -> int:
        """For a selector: readable when the other end has closed, or a late answer has come."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def request(self, name: str, *arguments: Any, patience: float = PATIENCE_S) -> Any:
        """The answer. Raises Refused if it is a refusal, BackendError if it is an error or does not come."""
        self._number += 1
        # After a request without an answer packets wait for a short time only.
        first = min(patience, _IMPATIENCE_S) if self._silent else patience
        until = time.monotonic() + first
        try:
            self._send_backlog(first)
            self._socket.settimeout(first)
            self._socket.send(pickle.dumps((self._number, name, arguments)))
            while True:
                self._socket.settimeout(max(0.001, until - time.monotonic()))
                number, outcome, value = receive(self._socket, self._buffer)
                if number == self._number:
                    break
                until = time.monotonic() + patience
            self._silent = False
        except OSError as error:
            self._silent = True
            raise BackendError(f"the daemon's first process does not answer ({name}: {error})") from error
        if outcome == REFUSED:
            raise Refused(value)
        if outcome == FAILED:
            raise BackendError(value)
        return value

    def notify(self, name: str, *arguments: Any, keep: bool = True) -> None:
        """Send a message without an answer: at once or, with *keep*, when there is room. Raises nothing."""
        data = pickle.dumps((ONE_WAY, name, arguments))
        if keep:
            self._backlog.append(data)
        try:
            self._send_backlog(0.0)
            if not keep:
                self._socket.settimeout(0.0)
                self._socket.send(data)
        except OSError:
            if len(self._backlog) > _MOST_BACKLOG:
                self._backlog.popleft()
                if not self._lost:
                    log.warning("the daemon's first process does not listen: it will notice by itself")
                self._lost = True

    def flush(self) -> None:
        """Send the messages that found no room before, if there is room now. Raises nothing."""
        with suppress(OSError):
            self._send_backlog(0.0)

    def gone(self) -> bool:
        """Whether the other end has closed. Reads late answers and discards them."""
        self._socket.settimeout(0.0)
        try:
            while True:
                receive(self._socket, self._buffer)
                self._silent = False
        except Gone:
            return True
        except OSError:
            return False

    def _send_backlog(self, patience: float) -> None:
        if self._backlog:
            self._socket.settimeout(patience)
            while self._backlog:
                self._socket.send(self._backlog[0])
                self._backlog.popleft()
