"""The results of a run: what pytest said, and the table that the terminal and docs/vm-results.md show."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

PASSED, FAILED, NOT_RUN = "passed", "failed", "not run"
DEBIAN: Final = {"bookworm": "Debian 12", "trixie": "Debian 13"}

_SUMMARY: Final = re.compile(r"^=*\s*(\d+ \w+(?:, \d+ \w+)*) in [\d.:]+", re.MULTILINE)


class Result(NamedTuple):
    """Of one row on one kernel; *seconds* are those of the host."""

    word: str
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.word}, {self.seconds:.0f} s" if self.seconds else self.word


class Column(NamedTuple):
    """A machine: Debian's release, and the kernel's version."""

    suite: str
    kernel: str

    def __str__(self) -> str:
        return f"{DEBIAN.get(self.suite, self.suite)}, {self.kernel}"


Results = Mapping[tuple[str, Column], Result]


def verdict(status: int, said: str) -> str:
    """What a run of pytest means. Nothing counts as passed that did not run, or was skipped."""
    found = _SUMMARY.findall(said)
    words = (
        {word: int(number) for number, word in (part.split() for part in found[-1].split(", "))}
        if found
        else {}
    )
    return PASSED if status == 0 and set(words) <= {"passed", "deselected"} and "passed" in words else FAILED


def columns(results: Results) -> list[Column]:
    return list(dict.fromkeys(column for _, column in results))


def table(rows: Iterable[str], results: Results) -> list[list[str]]:
    """Cells, the first line being the head; empty where a row is not for that kernel."""
    across = columns(results)
    body = [[row, *(str(results.get((row, column), "")) for column in across)] for row in rows]
    return [["", *map(str, across)], *body]


def plain(cells: Sequence[Sequence[str]]) -> str:
    """For a terminal."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)
    return "".join(f"{line.rstrip()}\n" for line in lines)


def page(
    cells: Sequence[Sequence[str]], day: datetime.date, version: str, accelerated: bool, seconds: float
) -> str:
    """docs/vm-results.md."""
    lines = ["| " + " | ".join(line) + " |" for line in cells]
    lines.insert(1, "|---" * len(cells[0]) + "|")
    how = "with KVM" if accelerated else "emulated, some ten times slower than a machine of today"
    return (
        "# Results in virtual machines\n\n"
        "Debian's own kernels and systemd, in qemu. `make vm-test` writes this page "
        "([how](../CONTRIBUTING.md#in-a-virtual-machine)).\n\n"
        f"Last run: {day.isoformat()}, nfreaim {version}, {how}, {seconds / 60:.0f} minutes.\n\n"
        + "\n".join(lines)
        + "\n\nNot run: the time was up. Seconds are the host's; an empty cell is no row of that kernel.\n"
    )
