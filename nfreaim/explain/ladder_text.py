"""A ladder as text with box-drawing characters, as wide as the terminal."""

from __future__ import annotations

import textwrap
from typing import Final

from nfreaim.explain.ladder import Arrow, Ladder, Look, Note

NARROWEST: Final = 60
_GUTTER: Final = 9  # for the time
_LINES: Final[dict[Look, str]] = {"said": "─", "would": "╌", "works": "═", "fails": "─"}
_HEADS: Final[dict[Look, tuple[str, str]]] = {
    "said": ("◀", "▶"),
    "would": ("◁", "▷"),
    "works": ("◀", "▶"),
    "fails": ("✗", "✗"),
}


def drawn(ladder: Ladder, width: int) -> list[str]:
    """The lines of *ladder*, none longer than *width* characters (at least NARROWEST)."""
    width = max(width, NARROWEST)
    lines = [*textwrap.wrap(ladder.title, width), ""]
    at = _positions(len(ladder.columns), width)
    room = max(8, (width - _GUTTER) // len(ladder.columns) - 1)
    names = [
        [*textwrap.wrap(column.name, room), *textwrap.wrap(column.role, room)] for column in ladder.columns
    ]
    for row in range(max(map(len, names))):
        lines.append(_centred([name[row] if row < len(name) else "" for name in names], at, width))
    for one in ladder.rows:
        lines.append(_bars(at, width))
        lines += _arrow(one, at, width) if isinstance(one, Arrow) else _note(one, at, width)
    lines.append(_bars(at, width))
    for sentence in ladder.verdict:
        mark = "✓ " if ladder.good else "✗ "
        lines += textwrap.wrap(sentence, width, initial_indent=mark, subsequent_indent="  ")
    return [line.rstrip() for line in lines]


def _positions(count: int, width: int) -> list[int]:
    """Where the columns stand."""
    each = (width - _GUTTER) / count
    return [_GUTTER + int(each * (number + 0.5)) for number in range(count)]


def _bars(at: list[int], width: int) -> str:
    return _put([" "] * width, [(place, "│") for place in at])


def _put(cells: list[str], parts: list[tuple[int, str]]) -> str:
    """*cells* with texts at their places, as far as there is room."""
    for place, text in parts:
        for offset, character in enumerate(text):
            if 0 <= place + offset < len(cells):
                cells[place + offset] = character
    return "".join(cells)


def _centred(texts: list[str], at: list[int], width: int) -> str:
    parts = [
        (min(max(0, place - len(text) // 2), width - len(text)), text)
        for place, text in zip(at, texts, strict=True)
    ]
    return _put([" "] * width, parts)


def _beside(text: str, middle: int, least: int, at: list[int], width: int, when: float | None) -> list[str]:
    """*text* in lines of about *least* characters around column *middle*, over the bars, behind the time."""
    room = min(max(least, 34), width - _GUTTER - 2)
    pieces = textwrap.wrap(text, room) or [""]
    longest = max(map(len, pieces))
    start = min(max(_GUTTER, middle - longest // 2), width - longest)
    lines = []
    for number, piece in enumerate(pieces):
        parts = [(start - 1, f" {piece.ljust(longest)} ")]
        if when is not None and number == 0:
            parts.insert(0, (0, f"{when:8.3f}"))
        lines.append(_put(list(_bars(at, width)), parts))
    return lines


def _arrow(arrow: Arrow, at: list[int], width: int) -> list[str]:
    low, high = sorted((at[arrow.source], at[arrow.target]))
    lines = _beside(arrow.text, (low + high) // 2, high - low - 3, at, width, arrow.when)
    back = at[arrow.source] > at[arrow.target]
    stroke = _LINES[arrow.look] * (high - low - 1)
    head = _HEADS[arrow.look][not back]
    line = f"{head}{stroke[:-1]}" if back else f"{stroke[:-1]}{head}"
    return [*lines, _put(list(_bars(at, width)), [(low + 1, line)])]


def _note(note: Note, at: list[int], width: int) -> list[str]:
    return _beside(f"[{note.text}]", at[note.column], width // 2, at, width, note.when)
