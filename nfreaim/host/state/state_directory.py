"""StateDirectory: what has to be known of each flow to go on with it after a crash, one small file per flow.

Knows nothing of what a record means. It believes only files that are the daemon's own and that nobody else
can read or write. A file is written aside and renamed, so there is always a whole one; it need not outlast
the machine, because neither does connection tracking.
"""

from __future__ import annotations

import json
import logging
import os
import re
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from nfreaim.errors import BackendError

log = logging.getLogger("nfreaim")

_FORMAT: Final = 1
_NAME: Final = re.compile(r"([0-9a-f]{24})\.json")
_ASIDE: Final = ".new"
_LARGEST: Final = 4 << 20  # bytes; a thousand edits take some hundred KiB


class StateDirectory:
    """Records by flow key (12 bytes, see core.tcp.segment.Segment), in files that only root can read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def prepare(self) -> None:
        """Make the directory, mode 0700. Raises BackendError, also if others could write to it."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = self.path.stat()
            if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o022:
                raise BackendError(
                    f"{self.path}: others than the daemon could write to it; choose another state_dir, or: "
                    f"chown root {self.path}; chmod 700 {self.path}"
                )
            self.path.chmod(0o700)
        except OSError as error:
            raise BackendError(
                f"state_dir {self.path}: {error}; choose another in the configuration"
            ) from error

    def save(self, key: bytes, record: Mapping[str, Any]) -> None:
        """Replace the record of *key*, as a whole or not at all. Raises BackendError."""
        name = self._file(key)
        aside = name.with_suffix(_ASIDE)
        data = json.dumps({"format": _FORMAT, "flow": record}, separators=(",", ":")).encode()
        try:
            handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            with open(handle, "wb", buffering=0) as file:
                written = file.write(data)
            if written != len(data):
                raise OSError(f"only {written} of {len(data)} bytes were written")
            aside.replace(name)
        except OSError as error:
            with suppress(OSError):  # what a full disk took of it
                aside.unlink(missing_ok=True)
            raise BackendError(f"state of a connection cannot be kept in {self.path}: {error}") from error

    def clear_away(self) -> None:
        """Remove the directory, and one of our name around it, where they are empty."""
        with suppress(OSError):  # flows wait in it for the next daemon
            self.path.rmdir()
            if self.path.parent.name == "nfreaim":
                self.path.parent.rmdir()

    def delete(self, key: bytes) -> None:
        """Forget *key*; an unknown one is no error. Raises BackendError."""
        try:
            self._file(key).unlink(missing_ok=True)
        except OSError as error:
            raise BackendError(
                f"state of a connection cannot be removed from {self.path}: {error}"
            ) from error

    def load(self, key: bytes) -> dict[str, Any] | None:
        """The record of *key*; None if there is none that is whole."""
        try:
            return _read(self._file(key))
        except (OSError, ValueError, RecursionError):
            return None

    def load_all(self) -> dict[bytes, dict[str, Any]]:
        """Every record that is whole. Others are reported, removed and left out. Raises BackendError."""
        records: dict[bytes, dict[str, Any]] = {}
        try:
            paths = sorted(self.path.iterdir())
        except OSError as error:
            raise BackendError(f"state_dir {self.path} cannot be read: {error}") from error
        for path in paths:
            named = _NAME.fullmatch(path.name)
            if named is None:
                if path.suffix == _ASIDE:  # the daemon died while writing it, before the packet left
                    path.unlink(missing_ok=True)
                continue
            try:
                records[bytes.fromhex(named[1])] = _read(path)
            except (OSError, ValueError, RecursionError) as error:
                log.warning("%s is damaged, its connection cannot go on: %s", path, error)
                path.unlink(missing_ok=True)
        return records

    def _file(self, key: bytes) -> Path:
        return self.path / f"{key.hex()}.json"


def _read(path: Path) -> dict[str, Any]:
    """The record in *path*. Raises OSError, ValueError, RecursionError."""
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        check(file.fileno())
        document = json.loads(file.read())
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise ValueError(f"not of format {_FORMAT}")
    record = document.get("flow")
    if not isinstance(record, dict):
        raise ValueError("no record of a flow in it")
    return record


def check(handle: int) -> None:
    """Raises ValueError unless the open file is one that this program made, and nobody else can change."""
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("not a regular file")
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise ValueError(f"owned by {found.st_uid}, mode {stat.S_IMODE(found.st_mode):o}: not ours alone")
    if found.st_size > _LARGEST:
        raise ValueError("too large")
