"""Files of the state directory: records and read positions of flows that outlive the daemon.

A record is a small file per flow. It is written under another name and renamed, so that a whole record exists
at any time. The positions of all flows share one file, in which each flow has a slot that is overwritten. The
files need not outlast the machine, because connection tracking does not: the page cache, which outlasts the
process, is enough. A file counts only if the daemon made it and no other user can read or write it.

A single reader keeps its files in the state directory itself. Each of several readers has a directory below
it, because each restores its own flows. Another number of readers makes the kernel spread flows in another
way: then the files are of no use, and are removed.
"""

from __future__ import annotations

import json
import logging
import os
import re
import stat
import struct
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from nfreaim.errors import BackendError

log = logging.getLogger("nfreaim")

_FORMAT: Final = 1
_NAME: Final = re.compile(r"([0-9a-f]{24})\.json")
_ASIDE: Final = ".new"
_LARGEST_FILE: Final = 4 << 20  # bytes; a thousand edits take some hundred KiB
_POSITIONS: Final = "places"
_SLOT: Final = struct.Struct("12sB51s")  # flow key, length of the position, position
_EMPTY: Final = bytes(_SLOT.size)
_PART: Final = re.compile(r"[0-9]+-of-([0-9]+)")


class StateDirectory:
    """Records by flow key (12 bytes, see core.tcp.segment.Segment)."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def prepare(self) -> None:
        """Make the directory, mode 0700. Raises BackendError, also if another user could write to it."""
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
            with suppress(OSError):  # a full disk may hold a part of the record
                aside.unlink(missing_ok=True)
            raise BackendError(f"state of a connection cannot be kept in {self.path}: {error}") from error

    def remove_if_empty(self) -> None:
        """Remove the directory, and its parent if that has our name, unless files of flows are in them."""
        with suppress(OSError):
            self.path.rmdir()
            if self.path.parent.name == "nfreaim":
                self.path.parent.rmdir()

    def delete(self, key: bytes) -> None:
        """Delete the record of *key*; an unknown key is no error. Raises BackendError."""
        try:
            self._file(key).unlink(missing_ok=True)
        except OSError as error:
            raise BackendError(
                f"state of a connection cannot be removed from {self.path}: {error}"
            ) from error

    def load(self, key: bytes) -> dict[str, Any] | None:
        """The record of *key*; None if it is missing or damaged."""
        try:
            return _read(self._file(key))
        except (OSError, ValueError, RecursionError):
            return None

    def load_all(self) -> dict[bytes, dict[str, Any]]:
        """All whole records, by key. Damaged ones are logged and removed. Raises BackendError."""
        records: dict[bytes, dict[str, Any]] = {}
        try:
            paths = sorted(self.path.iterdir())
        except OSError as error:
            raise BackendError(f"state_dir {self.path} cannot be read: {error}") from error
        for path in paths:
            named = _NAME.fullmatch(path.name)
            if named is None:
                if path.suffix == _ASIDE:  # the daemon died while writing, before the packet left
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


class Positions:
    """The read positions of saved flows, in a file of *directory*. ``open`` makes the file.

    A write takes a microsecond; replacing a file takes a hundred. After a crash a slot may be older than the
    flow, so the engine compares the position with the next packet. An empty slot is all zeroes.
    """

    def __init__(self, directory: StateDirectory) -> None:
        self.path = directory.path / _POSITIONS
        self._file: int | None = None
        self._slots: dict[bytes, int] = {}
        self._free: list[int] = []

    def open(self, wanted: Collection[bytes]) -> dict[bytes, bytes]:
        """Begin a new file with the positions that the old one has of the *wanted* flows; returns these.

        If the file cannot be made this only warns: without a position the helper searches for a message
        boundary.
        """
        found = self._load()
        kept = {key: found[key] for key in wanted if key in found}
        try:
            self.path.unlink(missing_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = os.open(self.path, flags, 0o600)
            for key, position in kept.items():
                self.save(key, position)
        except (OSError, BackendError) as error:
            log.warning("after a crash it will take longer until connections are read again: %s", error)
        return kept

    def _load(self) -> dict[bytes, bytes]:
        try:
            with open(
                os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb"
            ) as file:
                _check(file.fileno())
                data = file.read()
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            log.warning("%s is not used: %s", self.path, error)
            return {}
        whole = len(data) - len(data) % _SLOT.size
        return {
            key: position[:size]
            for key, size, position in _SLOT.iter_unpack(data[:whole])
            if any(key) and size <= len(position)
        }

    def save(self, key: bytes, position: bytes) -> None:
        """Replace the position of *key*. Raises BackendError."""
        if self._file is None:
            return
        slot = self._slots.get(key)
        if slot is None:
            slot = self._slots[key] = self._free.pop() if self._free else len(self._slots)
        self._write(slot, _SLOT.pack(key, len(position), position))

    def delete(self, key: bytes) -> None:
        """Delete the position of *key*; an unknown key is no error. Raises nothing."""
        slot = self._slots.pop(key, None)
        if slot is None:
            return
        self._free.append(slot)
        try:
            self._write(slot, _EMPTY)
        except BackendError as error:
            log.debug("%s", error)  # the slot is outdated, which the next packet of the flow will show

    def _write(self, slot: int, data: bytes) -> None:
        if self._file is None:
            return
        try:
            if os.pwrite(self._file, data, slot * _SLOT.size) != len(data):
                raise OSError("written in part only")
        except OSError as error:
            raise BackendError(f"{self.path}: {error}") from error

    def remove(self) -> None:
        """Remove the file, because no flow will go on."""
        self.close()
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file, and remove it if it holds no flow."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
            if not self._slots:
                self.path.unlink(missing_ok=True)


def part(path: Path, number: int, count: int) -> StateDirectory:
    """The directory of reader *number* of *count*, below the state directory *path*."""
    return StateDirectory(path / f"{number}-of-{count}")


def remove_other_parts(path: Path, count: int) -> None:
    """Remove the files of another number of readers than *count* below *path*. Raises BackendError.

    Skewed flows among them are reset at their next packet, because their set entries stay.
    """
    lost = 0
    try:
        if count > 1:
            lost += _remove_files(path)
        for other in path.iterdir() if path.is_dir() else ():
            named = _PART.fullmatch(other.name)
            if named and int(named[1]) != count and other.is_dir() and not other.is_symlink():
                lost += _remove_files(other)
                other.rmdir()
    except OSError as error:
        raise BackendError(f"state_dir {path}: {error}; remove what is in it") from error
    if lost:
        log.warning(
            "%d connections were kept by another number of workers: their clients have to connect again", lost
        )


def _remove_files(path: Path) -> int:
    """Remove the files of the directory *path*; returns how many of them were records."""
    records = list(_files(path, "*.json"))
    for file in (*records, *_files(path, "*.new"), *_files(path, _POSITIONS)):
        file.unlink(missing_ok=True)
    return len(records)


def _files(path: Path, pattern: str) -> Iterator[Path]:
    return (file for file in path.glob(pattern) if not file.is_dir())


def _read(path: Path) -> dict[str, Any]:
    """The record in *path*. Raises OSError, ValueError, RecursionError."""
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        _check(file.fileno())
        document = json.loads(file.read())
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise ValueError(f"not of format {_FORMAT}")
    record = document.get("flow")
    if not isinstance(record, dict):
        raise ValueError("no record of a flow in it")
    return record


def _check(handle: int) -> None:
    """Raise ValueError unless this user owns the open file and no other user can read or write it."""
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("not a regular file")
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise ValueError(f"owned by {found.st_uid}, mode {stat.S_IMODE(found.st_mode):o}: not ours alone")
    if found.st_size > _LARGEST_FILE:
        raise ValueError("too large")
