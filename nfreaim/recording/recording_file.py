"""RecordingFile: the file that a recording is written to, for its owner alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from nfreaim.capture.writing import Writer
from nfreaim.errors import BackendError, ConfigError
from nfreaim.recording.copying import Packet

MEGABYTE: Final = 1_000_000


class RecordingFile:
    """A new file at *path*, mode 0600, of at most *most* bytes. A context manager.

    packets  how many it holds
    full     the next packet might not fit

    Raises ConfigError if the file exists or cannot be made, BackendError where writing fails.
    """

    def __init__(self, path: Path, most: int) -> None:
        self._path, self._most = path, most
        self.packets, self.full = 0, False
        try:
            # Made new, so that nobody else has it open, and no link leads elsewhere.
            number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError as error:
            raise ConfigError(f"{path} exists; name another file, or remove it first") from error
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}; name a place that can be written") from error
        self._file = os.fdopen(number, "wb")
        self._writer = Writer(self._file)

    def __enter__(self) -> RecordingFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._file.close()
        if kind is not None and not self.packets:
            self._path.unlink(missing_ok=True)  # nothing came of it

    def interface(self, name: str) -> int:
        """Describe an interface; returns its number in the file."""
        return self._writer.interface(name)

    def packet(self, packet: Packet) -> None:
        """Write one packet, unless the file is full."""
        self.full = self.full or self._writer.size + len(packet.raw) + 64 > self._most
        if not self.full:
            try:
                self._writer.packet(packet.time, packet.interface, packet.raw)
            except OSError as error:
                raise BackendError(f"{self._path}: {error.strerror}; free some space there") from error
            self.packets += 1

    def flush(self) -> None:
        """Hand what is buffered to the kernel."""
        try:
            self._file.flush()
        except OSError as error:
            raise BackendError(f"{self._path}: {error.strerror}; free some space there") from error
