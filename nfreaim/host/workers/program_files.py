"""ProgramFiles: whether the program on disk is still the one that runs."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_PACKAGE: Final = Path(__file__).resolve().parents[2]


class ProgramFiles:
    """The modules below *package*, as they are when this is made.

    A package manager replaces files under a daemon that runs, and a process that is started from then on is
    of another version. The files of several builds can have the same times, so inodes count, too.

    Raises OSError if the modules cannot be looked at.
    """

    def __init__(self, package: Path = _PACKAGE) -> None:
        self._package = package
        self._seen = self._look()

    def replaced(self) -> bool:
        """Whether a module is there that was not, or one of before is not. Raises nothing."""
        try:
            return self._look() != self._seen
        except OSError:  # one that was listed is gone: they are being replaced
            return True

    def _look(self) -> frozenset[tuple[Path, int, int]]:
        files = [(path, path.stat()) for path in self._package.rglob("*.py")]
        return frozenset((path, file.st_ino, file.st_mtime_ns) for path, file in files)
