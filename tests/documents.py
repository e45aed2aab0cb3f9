"""The fenced blocks of the documents, and what the word behind the language says of each.

A block of commands (``sh``, or ``console`` with what they print) is marked:

=====  =============================================================================================
run    a test runs it: in a plain shell, or in the lab if a word follows (``root``, or a staged failure)
vm     tests/vm runs it in a virtual machine; the word that follows names the row
shown  nothing runs it: it waits for a user, changes the machine, or needs what no test has
=====  =============================================================================================
"""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path
from typing import Final, NamedTuple

REPO: Final = Path(__file__).resolve().parents[1]
PAGES: Final = sorted(chain(REPO.glob("*.md"), (REPO / "docs").glob("*.md"), (REPO / "pcaps").rglob("*.md")))

COMMANDS: Final = ("sh", "console")
MARKS: Final = ("run", "vm", "shown")

_FENCE: Final = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_VARIES: Final = re.compile(
    r"\d\d:\d\d:\d\d|(?<=:)[3-6]\d{4}\b|\d+ (?=s\b|tries\b)|(?<=^)\s*\d+\.\d{3}\b", re.MULTILINE
)
"""What differs from run to run: the time of day, a client's own port, seconds, attempts, a ladder's times."""


class Block(NamedTuple):
    """A fenced block. *scene* is where it runs: "" for a plain shell."""

    page: Path
    line: int
    language: str
    mark: str
    scene: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(REPO)}:{self.line}"

    def commands(self) -> list[tuple[str, list[str]]]:
        """Each command with the lines that it has to print; of a ``sh`` block the whole, and none."""
        if self.language == "sh":
            return [(self.text, [])]
        found: list[tuple[str, list[str]]] = []
        for line in self.text.splitlines():
            if line.startswith("$ "):
                found.append((line.removeprefix("$ "), []))
            else:
                found[-1][1].append(line)
        return found


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for fence in _FENCE.finditer(text):
        language, mark, scene = [*fence[1].split(), "", "", ""][:3]
        found.append(Block(page, text.count("\n", 0, fence.start()) + 1, language, mark, scene, fence[2]))
    return found


def to_run(scene: str, mark: str = "run") -> list[Block]:
    """The blocks of all pages that run in *scene*."""
    every = (block for page in PAGES for block in blocks(page))
    return [
        block for block in every if block.language in COMMANDS and (block.mark, block.scene) == (mark, scene)
    ]


def printed_as_told(expected: list[str], printed: str) -> bool:
    """Whether *printed* is what a page says. A line of "..." in *expected* stands for any lines.

    Empty lines do not count, nor how many blanks there are, nor what varies from run to run. A page that
    tells nothing is always right.
    """
    pattern = "".join(
        "(?:.*\n)*?" if line.strip() == "..." else re.escape(_told(line)) + "\n"
        for line in expected
        if line.strip()
    )
    seen = "".join(f"{_told(line)}\n" for line in printed.splitlines() if line.strip())
    return not pattern or re.fullmatch(pattern, seen) is not None


def _told(line: str) -> str:
    return " ".join(_VARIES.sub("#", line).split())
