"""Division: where each of several readers keeps its flows, and what becomes of an earlier division.

One reader alone keeps them in the state directory itself, as ever. Of several, each has a directory in it,
because each restores its own flows and nobody else's. With another number of readers the kernel hands the
flows to others, nobody can tell to whom: what was kept is of no use then.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from nfreaim.errors import BackendError
from nfreaim.host.state.positions import POSITIONS
from nfreaim.host.state.state_directory import StateDirectory

log = logging.getLogger("nfreaim")

_PART: Final = re.compile(r"[0-9]+-of-([0-9]+)")


def part(path: Path, number: int, count: int) -> StateDirectory:
    """The directory of reader *number* of *count*, below the state directory *path*."""
    return StateDirectory(path / f"{number}-of-{count}")


def forget_others(path: Path, count: int) -> None:
    """Remove what another number of readers than *count* has kept below *path*. Raises BackendError.

    Connections whose length was changed are reset by their next packet then: their entries stay in the set.
    """
    lost = 0
    try:
        if count > 1:
            lost += _empty(path)
        for other in path.iterdir() if path.is_dir() else ():
            named = _PART.fullmatch(other.name)
            if named and int(named[1]) != count and other.is_dir() and not other.is_symlink():
                lost += _empty(other)
                other.rmdir()
    except OSError as error:
        raise BackendError(f"state_dir {path}: {error}; remove what is in it") from error
    if lost:
        log.warning(
            "%d connections were kept by another number of workers: their clients have to sign on again", lost
        )


def _empty(path: Path) -> int:
    """Remove the records in *path*; how many there were."""
    records = list(_files(path, "*.json"))
    for file in (*records, *_files(path, "*.new"), *_files(path, POSITIONS)):
        file.unlink(missing_ok=True)
    return len(records)


def _files(path: Path, pattern: str) -> Iterator[Path]:
    return (file for file in path.glob(pattern) if not file.is_dir())
