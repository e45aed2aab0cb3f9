"""Log output: lines of text or JSON on standard error, or entries with fields in the journal.

Under systemd, entries go to journald by its native protocol (https://systemd.io/JOURNAL_NATIVE_PROTOCOL): one
datagram of KEY=value lines for each. No library is used for that: python-systemd has to be compiled.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import struct
import sys
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final

from nfreaim.host.events import Kind

JOURNAL: Final = Path("/run/systemd/journal/socket")

# syslog(3): err, warning, info, debug. What is critical ends the daemon.
_PRIORITIES: Final = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6}
_DEBUG: Final = 7


class QuietFormatter(logging.Formatter):
    """Shows the type of an exception and its traceback, but not its text, which may quote a message."""

    def formatException(
        self,
        ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None],
    ) -> str:
        kind, _, frames = ei
        name = "no exception" if kind is None else f"{kind.__module__}.{kind.__qualname__}"
        return "".join(["Traceback (most recent call last):\n", *traceback.format_tb(frames)]) + name


class JsonFormatter(QuietFormatter):
    """One JSON document for each line: "time", "level", "message", and of an event its kind and values."""

    def format(self, record: logging.LogRecord) -> str:
        kind, values = _event_of(record)
        document = {"time": round(record.created, 3), "level": record.levelname.lower()}
        document["message"] = super().format(record)
        if kind is not None:
            document |= {"event": kind.name, **values}
        return json.dumps(document)


class JournaldHandler(logging.Handler):
    """Sends each record to journald at *path* as an entry; *otherwise* gets what journald does not take.

    The socket never waits: a journald that is behind would make packets wait.
    """

    def __init__(self, otherwise: logging.Handler, path: Path = JOURNAL) -> None:
        super().__init__()
        self._otherwise = otherwise
        self._path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._socket.sendto(entry(record, self.format(record)), self._path)
        except OSError:  # journald is restarted, is behind, or the entry is too long for a datagram
            self._otherwise.handle(record)
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        self._socket.close()
        super().close()


def entry(record: logging.LogRecord, message: str) -> bytes:
    """The datagram for *record*, whose text is *message*."""
    kind, values = _event_of(record)
    fields = {
        "MESSAGE": message,
        "PRIORITY": str(_PRIORITIES.get(record.levelno, _DEBUG)),
        "SYSLOG_IDENTIFIER": "nfreaim",
        "CODE_FILE": record.pathname,
        "CODE_LINE": str(record.lineno),
        "CODE_FUNC": record.funcName or "",
    }
    if kind is not None:
        fields |= {"MESSAGE_ID": kind.message_id, "NFREAIM_EVENT": kind.name}
        fields |= {f"NFREAIM_{name.upper()}": value for name, value in values.items()}
    return b"".join(_lines(fields.items()))


def handler(log_format: str, name: str) -> logging.Handler:
    """What writes the log in *log_format* ("text", "json"); *name* begins the text of each line."""
    lines = logging.StreamHandler(sys.stderr)
    if log_format == "json":
        lines.setFormatter(JsonFormatter(f"{name}%(message)s"))
        return lines
    # Under systemd the journal stamps each line.
    stamp = "" if "JOURNAL_STREAM" in os.environ else "%(asctime)s "
    lines.setFormatter(QuietFormatter(f"{stamp}%(levelname)s {name}%(message)s"))
    if not _is_journal(sys.stderr.fileno()):
        return lines
    entries = JournaldHandler(lines)
    entries.setFormatter(QuietFormatter(f"{name}%(message)s"))
    return entries


def _is_journal(handle: int) -> bool:
    """Whether a descriptor is connected to the journal, see JOURNAL_STREAM in systemd.exec(5)."""
    found = os.fstat(handle)
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def _event_of(record: logging.LogRecord) -> tuple[Kind | None, Mapping[str, str]]:
    kind = getattr(record, "kind", None)
    return (kind, getattr(record, "values", {})) if isinstance(kind, Kind) else (None, {})


def _lines(fields: Iterable[tuple[str, str]]) -> Iterable[bytes]:
    for key, value in fields:
        data = value.encode(errors="replace")
        if b"\n" in data:
            yield key.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n"
        else:
            yield key.encode() + b"=" + data + b"\n"
