"""StatusServer: writes one JSON document to each connection to the status socket, and closes it.

It reads nothing from a connection. The number of connections, their duration, and how often the document is
made are bounded. It never waits, because the loop that it lives in serves packets.
"""

from __future__ import annotations

import errno
import grp
import json
import logging
import os
import selectors
import socket
import stat
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

from nfreaim.errors import BackendError, ConfigError

log = logging.getLogger("nfreaim")

_MOST_CLIENTS: Final = 16  # at once; others wait in the backlog
_PATIENCE_S: Final = 5.0  # for a client to read the whole document
_FRESH_S: Final = 0.5  # that a document is given out again, because packets wait while one is made
_LONGEST_PATH: Final = 107  # bytes, sockaddr_un


class StatusServer:
    """The socket at *path*; *stack* closes it. *document* makes the document, *clock* gives seconds.

    Only the daemon's own user, root and the members of *group* ("" for none) may connect: mode 0600 or 0660.
    Raises ConfigError if the group does not exist, BackendError if the socket's directory cannot be made.
    """

    def __init__(
        self,
        path: Path,
        group: str,
        document: Callable[[], dict[str, Any]],
        clock: Callable[[], float],
        stack: ExitStack,
    ) -> None:
        self._path, self._document, self._clock = path, document, clock
        self._group = _group_id(group)
        self._group_name = group
        if len(os.fsencode(path)) > _LONGEST_PATH:
            raise ConfigError(
                f"status_socket = {str(path)!r}: a socket's path has at most {_LONGEST_PATH} bytes"
            )
        self._selector: selectors.BaseSelector | None = None
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._bound = self._made_directory = False
        self._clients: dict[socket.socket, tuple[float, memoryview]] = {}
        self._text, self._since = b"", -_FRESH_S
        stack.callback(self._close)
        try:
            path.parent.mkdir(mode=0o700, parents=True)
            self._made_directory = True
            path.parent.chmod(0o755)  # the mode of the socket decides who may connect
        except FileExistsError:
            pass
        except OSError as error:
            raise BackendError(f"status_socket {path}: {error}; choose another") from error

    def open(self) -> None:
        """Listen, in place of the socket of a daemon that was killed. Raises BackendError."""
        try:
            self._replace_stale()
            found = os.umask(0o177)
            try:
                self._socket.bind(str(self._path))
            finally:
                os.umask(found)
            self._bound = True
            if self._group is not None:
                self._give_to_group(self._group)
            self._socket.listen(_MOST_CLIENTS)
        except OSError as error:
            raise BackendError(f"status_socket {self._path}: {error}; choose another") from error

    def attach(self, selector: selectors.BaseSelector) -> None:
        """Be served by a loop that calls the data of each ready key."""
        self._selector = selector
        selector.register(self._socket, selectors.EVENT_READ, self._accept)

    def expire(self) -> None:
        """Close the connections that are past their deadline. Call it about every second."""
        now = self._clock()
        for client, (deadline, _) in list(self._clients.items()):
            if now >= deadline:
                self._leave(client)

    def _replace_stale(self) -> None:
        try:
            kind = self._path.lstat().st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(kind):
            raise BackendError(
                f"status_socket {self._path} exists and is no socket; choose another, or remove it"
            )
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
            # A full backlog (EAGAIN) also shows that a program listens.
            if (code := probe.connect_ex(str(self._path))) not in (errno.ECONNREFUSED, errno.ENOENT):
                reason = "another nfreaim serves it" if code in (0, errno.EAGAIN) else os.strerror(code)
                raise BackendError(
                    f"status_socket {self._path}: {reason}; stop that one, or give each a status_socket and "
                    "a state_dir of its own"
                )
        self._path.unlink(missing_ok=True)

    def _give_to_group(self, group: int) -> None:
        if group != self._path.stat().st_gid:
            try:
                os.chown(self._path, -1, group)
            except PermissionError as error:
                raise BackendError(
                    f"status_group {self._group_name}: only root can give a file to it; in the unit, make it "
                    f"the daemon's own (systemctl edit nfreaim: [Service] Group={self._group_name})"
                ) from error
        self._path.chmod(0o660)

    def _accept(self) -> None:
        try:
            client, _ = self._socket.accept()
        except OSError:  # the client has gone, or the process has no descriptor left
            return
        client.setblocking(False)
        now = self._clock()
        if now - self._since >= _FRESH_S:
            try:
                self._text = json.dumps(self._document()).encode() + b"\n"
            except Exception:  # packets matter more than an answer
                log.exception("the status cannot be told")
                client.close()
                return
            self._since = now
        self._clients[client] = now + _PATIENCE_S, memoryview(self._text)
        assert self._selector is not None
        self._selector.register(client, selectors.EVENT_WRITE, partial(self._write, client))
        if len(self._clients) >= _MOST_CLIENTS:
            self._selector.unregister(self._socket)

    def _write(self, client: socket.socket) -> None:
        deadline, rest = self._clients[client]
        try:
            rest = rest[client.send(rest) :]
        except BlockingIOError:
            return
        except OSError:  # the client has closed the connection
            rest = rest[:0]
        self._clients[client] = deadline, rest
        if not rest:
            self._leave(client)

    def _leave(self, client: socket.socket) -> None:
        assert self._selector is not None
        if len(self._clients) >= _MOST_CLIENTS:
            self._selector.register(self._socket, selectors.EVENT_READ, self._accept)
        del self._clients[client]
        self._selector.unregister(client)
        client.close()

    def _close(self) -> None:
        for client in self._clients:
            client.close()
        self._socket.close()
        with suppress(OSError):
            if self._bound:
                self._path.unlink()
            # One of our name was made by an earlier daemon, which left connections in it that are over now.
            if self._made_directory or self._path.parent.name == "nfreaim":
                self._path.parent.rmdir()


def _group_id(name: str) -> int | None:
    if not name:
        return None
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError as error:
        raise ConfigError(
            f"status_group = {name!r}: there is no such group; name one that exists (groupadd {name} makes "
            "it), or leave it out: then only root may read the status"
        ) from error
