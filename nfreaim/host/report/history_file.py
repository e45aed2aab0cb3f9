"""HistoryFile: appends JSON lines to a file that is renamed once it is full, so that two are kept.

A thread of its own writes, because a slow disk may take seconds and packets would wait meanwhile.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from nfreaim.config import Config

log = logging.getLogger("nfreaim")

DIRECTORY: Final = Path("/var/lib/nfreaim")
"""Where systemd has it, by StateDirectory= of the unit."""

NAME: Final = "history.jsonl"
EARLIER: Final = "history.1.jsonl"
MOST_BYTES: Final = 5_000_000
"""Of one file. It has some 15,000 lines then, three or four for a pinhole."""

_MOST_WAITING: Final = 4096  # lines that wait for a slow disk; further ones are lost
_PATIENCE_S: Final = 5.0  # at the end of the daemon, for the disk


class HistoryFile:
    """The files in *directory*. Raises OSError if it cannot be made.

    error  what the disk said last, or ""
    lost   how many lines were lost because it was too slow
    """

    def __init__(self, directory: Path, most: int = MOST_BYTES) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path, self._earlier, self._most = directory / NAME, directory / EARLIER, most
        self._waiting: queue.Queue[str] = queue.Queue(_MOST_WAITING)
        self._thread: threading.Thread | None = None
        self.error = ""
        self.lost = 0
        self._told = "", 0

    def write(self, document: dict[str, Any]) -> None:
        """Append *document* soon. Never waits."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="history", daemon=True)
            self._thread.start()
        try:
            self._waiting.put_nowait(json.dumps(document) + "\n")
        except queue.Full:
            self.lost += 1

    def tell(self) -> None:
        """Log what keeps lines from being written, once. Called now and then."""
        error, lost = self.error, self.lost
        if error and error != self._told[0]:
            log.warning("the history is not written: %s: %s", self._path, error)
        if lost != self._told[1]:
            log.warning("%d lines of the history were lost since the start: the disk is too slow", lost)
        self._told = error, lost

    def close(self) -> None:
        """Write what waits, if the disk takes it within some seconds."""
        if self._thread is not None:
            try:
                self._waiting.put("", timeout=_PATIENCE_S)
            except queue.Full:
                return
            self._thread.join(_PATIENCE_S)
            self._thread = None

    def _serve(self) -> None:
        while line := self._waiting.get():
            try:
                self._append(line)
                self.error = ""
            except OSError as error:
                self.error = os.strerror(error.errno) if error.errno else str(error)

    def _append(self, line: str) -> None:
        with open(self._path, "a", encoding="utf-8", opener=_for_the_owner) as file:
            if file.tell() and file.tell() + len(line) > self._most:
                os.replace(self._path, self._earlier)
                self._append(line)
            else:
                file.write(line)


class NoHistory:
    """Stands where no history is kept."""

    def write(self, document: dict[str, Any]) -> None:
        """Do nothing."""

    def tell(self) -> None:
        """Do nothing."""


def kept_history(config: Config, stack: ExitStack) -> HistoryFile | NoHistory:
    """The history of a daemon with these settings; *stack* closes it.

    It is kept in ``history_dir``, or else in the directory that systemd gives to the daemon.
    """
    given = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    directory = config.history_dir or (Path(given) if given else None)
    if directory is None or not config.history:
        return NoHistory()
    try:
        file = HistoryFile(directory)
    except OSError as error:
        log.warning("no history is kept: %s; choose another history_dir, or set history = false", error)
        return NoHistory()
    stack.callback(file.close)
    return file


def _for_the_owner(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
