"""Positions: where each kept flow stands, in one file that is written in place and valid after a crash.

One slot per flow, written by a single call each time: a microsecond, where a file of its own that is replaced
takes a hundred. The page cache outlives the process, which is all that is asked. A slot that is not true any
more is found out by whoever reads it: it is compared with the next packet.

Layout of a slot, 64 bytes: flow key (12), length of the place (1), place, zeroes. An empty slot is zeroes.
"""

from __future__ import annotations

import logging
import os
import struct
from collections.abc import Collection
from pathlib import Path
from typing import Final

from nfreaim.errors import BackendError
from nfreaim.host.state.state_directory import check

log = logging.getLogger("nfreaim")

POSITIONS: Final = "places"
_SLOT: Final = struct.Struct("12sB51s")
_EMPTY: Final = bytes(_SLOT.size)


class Positions:
    """The file at *path*; nothing is done before ``open``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None
        self._slots: dict[bytes, int] = {}
        self._free: list[int] = []

    def open(self, wanted: Collection[bytes]) -> dict[bytes, bytes]:
        """Begin a new file with the places of the *wanted* flows that are in the old one, and return them.

        Without such a file, or a place to put it, reading goes on by other means: there are warnings only.
        """
        found = self._load()
        kept = {key: found[key] for key in wanted if key in found}
        try:
            self.path.unlink(missing_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = os.open(self.path, flags, 0o600)
            for key, place in kept.items():
                self.note(key, place)
        except (OSError, BackendError) as error:
            log.warning("after a crash it will take longer until connections are read again: %s", error)
        return kept

    def _load(self) -> dict[bytes, bytes]:
        try:
            with open(
                os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb"
            ) as file:
                check(file.fileno())
                data = file.read()
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            log.warning("%s is not used: %s", self.path, error)
            return {}
        whole = len(data) - len(data) % _SLOT.size
        return {
            key: place[:size]
            for key, size, place in _SLOT.iter_unpack(data[:whole])
            if any(key) and size <= len(place)
        }

    def note(self, key: bytes, place: bytes) -> None:
        """Replace the place of *key*. Raises BackendError."""
        if self._file is None:
            return
        slot = self._slots.get(key)
        if slot is None:
            slot = self._slots[key] = self._free.pop() if self._free else len(self._slots)
        self._write(slot, _SLOT.pack(key, len(place), place))

    def drop(self, key: bytes) -> None:
        """Forget *key*; an unknown one is no error. Never raises."""
        slot = self._slots.pop(key, None)
        if slot is None:
            return
        self._free.append(slot)
        try:
            self._write(slot, _EMPTY)
        except BackendError as error:
            log.debug("%s", error)  # then it is no longer true, and will be found out

    def _write(self, slot: int, data: bytes) -> None:
        if self._file is None:
            return
        try:
            if os.pwrite(self._file, data, slot * _SLOT.size) != len(data):
                raise OSError("written in part only")
        except OSError as error:
            raise BackendError(f"{self.path}: {error}") from error

    def remove(self) -> None:
        """No flow will go on."""
        self.close()
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file. It goes if there is no flow in it."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
            if not self._slots:
                self.path.unlink(missing_ok=True)
