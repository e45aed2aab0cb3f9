"""`nfreaim reload`: has the daemon read its configuration again, and reads in the status what came of it.

SIGHUP asks for that. A daemon that waits for interfaces looks for them at once, and may begin to serve.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import struct
import time
from pathlib import Path
from typing import Final

from nfreaim.errors import AbsentError, BackendError, ConfigError
from nfreaim.exit_status import Exit
from nfreaim.host.loop import clock
from nfreaim.host.report import status
from nfreaim.host.report.status import Document

_PATIENCE_S: Final = 20.0  # for a busy daemon to answer
_BEGINNING_S: Final = 60.0  # for one that waited to install rules, too; systemd ends a reload after 90 s
_ASK_EVERY_S: Final = 0.2
_CREDENTIALS: Final = struct.Struct("=iii")  # struct ucred: process, user, group


def main(path: Path) -> int:
    """Ask the daemon at the status socket *path*, and print what came of it.

    Raises AbsentError if no daemon answers, ConfigError if it says that the configuration is wrong,
    BackendError if it does not say what came of it.
    """
    process = _process(path)
    waits = _waits(status.fetch(path))
    document = _asked(path, process, waits)
    if waits and not _waits(document):
        # It may have read the file before the last change of it, so it is asked as one that serves.
        document = _asked(path, process, False)
        there = document.get("interfaces") or {"lan": [], "wan": []}
        inside, outside = ", ".join(there["lan"]), ", ".join(there["wan"])
        print(f"the daemon serves now: {inside} towards clients, {outside} towards the Internet")
    if idle := document.get("idle"):
        lines = "".join(f"\n    {line}" for line in status.lines_to_write(idle))
        print(f"nobody is served yet: {idle['why']}; if this is a router, write into {idle['file']}:{lines}")
    for key in document["reload"]["restart"]:
        print(f"{key}: in force only after a restart (systemctl restart {unit_of(key)})")
    return Exit.FINE


def unit_of(key: str) -> str:
    """The systemd unit whose restart puts *key* in force."""
    return "nfreaim-metrics" if key == "metrics_listen" else "nfreaim"


def _asked(path: Path, process: int, waits: bool) -> Document:
    """The document of the daemon after it has read the configuration again.

    waits  it serves nobody yet; then its document counts, too, if it has begun to serve meanwhile
    """
    began = clock()
    patience_s = _BEGINNING_S if waits else _PATIENCE_S
    try:
        os.kill(process, signal.SIGHUP)
    except OSError as error:
        raise BackendError(f"process {process}, the daemon: {error.strerror}; run it as root") from error
    while clock() < began + patience_s:
        document = _fetched(path, waits) or {}
        told = document.get("reload") or {}
        if (told.get("at") or 0.0) >= began:
            if told["error"]:
                raise ConfigError(told["error"])
            return document
        if waits:
            if document and not _waits(document):
                return document
            if not document and not _lives(process):
                raise BackendError("the daemon found interfaces and ended; its log says why")
        time.sleep(_ASK_EVERY_S)
    raise BackendError(f"the daemon did not say within {patience_s:.0f} s what it did; its log tells")


def _fetched(path: Path, waits: bool) -> Document | None:
    try:
        return status.fetch(path)
    except BackendError:
        if waits:  # it closed its socket in mid-answer, because it begins to serve
            return None
        raise


def _waits(document: Document | None) -> bool:
    return bool((document or {}).get("idle"))


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError:
        return False
    return True


def _process(path: Path) -> int:
    """The process that listens at *path*."""
    with socket.socket(socket.AF_UNIX) as link:
        try:
            link.connect(str(path))
            found = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ECONNREFUSED):
                raise AbsentError(
                    f"no daemon listens at {path}; start it: systemctl start nfreaim"
                ) from error
            raise BackendError(f"{path}: {error.strerror}; run it as root") from error
    return int(_CREDENTIALS.unpack(found)[0])
