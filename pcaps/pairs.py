"""Makes the pairs of captures that a module of this package describes, or tells which differ from it."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar


class Pair(Protocol):
    """Two captures: what comes to a router, and what leaves it."""

    @property
    def before(self) -> Path: ...

    @property
    def after(self) -> Path: ...


P = TypeVar("P", bound=Pair)
Make = Callable[[P, Path, Path], None]
"""Writes the captures of a pair to two files."""


def differences(module: str, cases: Sequence[P], make: Make[P], others: Iterable[Path]) -> list[str]:
    """One line for each capture that is not as *make* makes it, and for each of *others* of no case."""
    found = []
    for case in cases:
        with tempfile.TemporaryDirectory() as folder:
            before, after = Path(folder, "before"), Path(folder, "after")
            make(case, before, after)
            for committed, made in ((case.before, before), (case.after, after)):
                if not committed.is_file() or committed.read_bytes() != made.read_bytes():
                    found.append(f"{committed} is not what {module} makes")
    wanted = {path for case in cases for path in (case.before, case.after)}
    return found + [f"{path} belongs to no case" for path in sorted(set(others) - wanted)]


def command(folder: Path, cases: Sequence[P], make: Make[P], check: Callable[[], list[str]]) -> int:
    """The command line: make the pairs of *folder*, or with --check tell what *check* finds."""
    parser = argparse.ArgumentParser(description=f"make the captures of pcaps/{folder.name}/")
    parser.add_argument("--check", action="store_true", help="change nothing, tell what differs")
    if parser.parse_args().check:
        found = check()
        print("\n".join(found) or f"{len(cases)} pairs are as they should be")
        return 1 if found else 0
    for case in cases:
        make(case, case.before, case.after)
    return 0
