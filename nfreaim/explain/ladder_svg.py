"""A ladder as SVG (1.1), without scripts, fonts or anything else from elsewhere."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from html import escape
from typing import Final

from nfreaim.explain.ladder import Arrow, Column, Ladder, Look, Note

_COLUMN: Final = 250  # pixels between two columns
_LEFT: Final = 170  # to the middle of the first one
_LINE: Final = 16  # of text
_CHARACTER: Final = 6.4  # of the font, on average
_LETTERS: Final = 37  # of a line beside an arrow
_COLOURS: Final[dict[Look, str]] = {
    "said": "#1f3a5f",
    "would": "#7a5c00",
    "works": "#1b6e3a",
    "fails": "#a3221b",
}
_STYLE: Final = (
    "text{font:12px 'DejaVu Sans',Verdana,Arial,sans-serif;fill:#222}"
    ".t{font-weight:bold;font-size:14px}.b{font-weight:bold}.g{fill:#666}"
    ".h{paint-order:stroke;stroke:#fff;stroke-width:5px;stroke-linejoin:round}"
)


def picture(ladders: Sequence[Ladder]) -> str:
    """One SVG document with *ladders* below each other."""
    parts: list[str] = []
    width, y = _LEFT * 2, 0
    for ladder in ladders:
        parts.append(f'<g transform="translate(0,{y})">')
        height, body = _drawn(ladder)
        parts += [*body, "</g>"]
        y += height
        width = max(width, _width(ladder))
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y}" viewBox="0 0 {width} {y}">'
        f"<style>{_STYLE}</style>"
        f'<rect width="{width}" height="{y}" fill="#fff"/>'
    )
    return "\n".join([head, *parts, "</svg>", ""])


def _width(ladder: Ladder) -> int:
    return max(_LEFT * 2 + _COLUMN * (len(ladder.columns) - 1), 720)


def _drawn(ladder: Ladder) -> tuple[int, list[str]]:
    """Height and elements of one ladder."""
    parts, y = _lines(textwrap.wrap(ladder.title, 96), 20, 28, "t"), 28
    y += _LINE * len(textwrap.wrap(ladder.title, 96)) + 6
    top = y + 42
    for index, column in enumerate(ladder.columns):
        parts += _head(column, _x(index), y)
    y = top + 8
    rows: list[str] = []
    for row in ladder.rows:
        height, drawn = _arrow(row, y) if isinstance(row, Arrow) else _note(row, y)
        rows += drawn
        y += height
    bottom = y + 4
    bars = [
        f'<line x1="{_x(index)}" y1="{top}" x2="{_x(index)}" y2="{bottom}" stroke="#999" stroke-width="1"/>'
        for index in range(len(ladder.columns))
    ]
    y = bottom + 22
    letters = int((_width(ladder) - 60) / _CHARACTER)
    colour = _COLOURS["works" if ladder.good else "fails"]
    for sentence in ladder.verdict:
        lines = textwrap.wrap(sentence, letters)
        parts.append(
            f'<text x="20" y="{y}" class="b" style="fill:{colour}">{"✓" if ladder.good else "✗"}</text>'
        )
        parts += _lines(lines, 40, y, "")
        y += _LINE * len(lines) + 2
    return y + 14, [*parts, *bars, *rows]


def _x(column: int) -> int:
    return _LEFT + _COLUMN * column


def _head(column: Column, x: int, y: int) -> list[str]:
    return [
        f'<rect x="{x - 105}" y="{y}" width="210" height="42" rx="5" fill="#eef2f7" stroke="#8aa"/>',
        _text(column.name, x, y + 18, "b", "middle"),
        _text(column.role, x, y + 34, "g", "middle"),
    ]


def _arrow(arrow: Arrow, y: int) -> tuple[int, list[str]]:
    left, right = sorted((_x(arrow.source), _x(arrow.target)))
    letters = max(_LETTERS, int((right - left - 20) / _CHARACTER))
    lines = textwrap.wrap(arrow.text, letters)
    parts = _when(arrow.when, y)
    for number, line in enumerate(lines, 1):
        parts.append(_text(line, (left + right) // 2, y + _LINE * number - 2, "h", "middle"))
    bar = y + _LINE * len(lines) + 6
    colour = _COLOURS[arrow.look]
    dashes = ' stroke-dasharray="6 4"' if arrow.look == "would" else ""
    back = arrow.source > arrow.target
    tip, tail, inwards = (left, right, 9) if back else (right, left, -9)
    broad = 2.5 if arrow.look == "works" else 1.5
    end = tip + inwards * (2 if arrow.look == "fails" else 1)
    parts.append(
        f'<line x1="{tail}" y1="{bar}" x2="{end}" y2="{bar}" stroke="{colour}"'
        f' stroke-width="{broad}"{dashes}/>'
    )
    if arrow.look == "fails":
        cross = f"M{end - 5},{bar - 5}l10,10m0,-10l-10,10"
        parts.append(f'<path d="{cross}" stroke="{colour}" stroke-width="2" fill="none"/>')
    else:
        parts.append(f'<path d="M{tip},{bar}l{inwards},-5v10z" fill="{colour}"/>')
    return bar - y + 14, parts


def _note(note: Note, y: int) -> tuple[int, list[str]]:
    lines = textwrap.wrap(note.text, _LETTERS)
    x, high = _x(note.column), _LINE * len(lines) + 8
    wide = min(240, int(max(map(len, lines)) * _CHARACTER) + 20)
    box = (
        f'<rect x="{x - wide // 2}" y="{y}" width="{wide}" height="{high}" rx="3" fill="#fffbe6"'
        ' stroke="#c9b458"/>'
    )
    texts = [_text(line, x, y + _LINE * number, "", "middle") for number, line in enumerate(lines, 1)]
    return high + 12, [*_when(note.when, y), box, *texts]


def _when(when: float | None, y: int) -> list[str]:
    return [] if when is None else [_text(f"{when:.3f}", 8, y + _LINE - 2, "g", "start")]


def _lines(lines: Sequence[str], x: int, y: int, kind: str) -> list[str]:
    return [_text(line, x, y + _LINE * number, kind, "start") for number, line in enumerate(lines)]


def _text(text: str, x: int, y: int, kind: str, anchor: str) -> str:
    return f'<text x="{x}" y="{y}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'
