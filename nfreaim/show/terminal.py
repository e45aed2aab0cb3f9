"""Text for the terminal: tables with aligned columns, coloured only where somebody sees them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from typing import Final

from nfreaim.show.tables import Table, widths

BOLD, DIM, GREEN, RED, YELLOW = "1", "2", "32", "31", "33"
_WORDS: Final = {
    "read": GREEN,
    "being recognised": YELLOW,
    "looking for its place": YELLOW,
    "passes unread": RED,
    "unknown": DIM,
}


def is_coloured() -> bool:
    """Whether standard output is a terminal, and nobody objects to colour (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class Ink:
    """Colours texts, or does not."""

    def __init__(self, coloured: bool) -> None:
        self._coloured = coloured

    def __call__(self, text: str, style: str) -> str:
        return f"\x1b[{style}m{text}\x1b[0m" if self._coloured and style else text


def lines(table: Table, ink: Ink) -> Iterator[str]:
    """*table* as lines: title, headings and rows."""
    yield ink(table.title, BOLD)
    if not table.rows:
        yield f"  {ink(table.empty, DIM)}"
        return
    columns = widths(table)
    yield ink(f"  {_line(table, table.headings, columns)}", DIM)
    for row in table.rows:
        yield f"  {_line(table, row, columns, ink)}"


def _line(table: Table, row: Sequence[str], columns: list[int], ink: Ink | None = None) -> str:
    cells = []
    for index, (text, width) in enumerate(zip(row, columns, strict=True)):
        space = " " * (width - len(text))
        shown = ink(text, _WORDS.get(text, "")) if ink else text
        cells.append(space + shown if index in table.numbers else shown + space)
    return "  ".join(cells).rstrip()
