"""The story of a capture as one self-contained HTML page: the pictures, and the same as text."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

from nfreaim.explain.ladder import Ladder
from nfreaim.explain.ladder_svg import picture
from nfreaim.explain.ladder_text import drawn

_TEXT_WIDTH: Final = 110
_STYLE: Final = (
    "body{font:15px sans-serif;margin:2em auto;max-width:72em;padding:0 1em;color:#222;background:#fff}"
    "svg{max-width:100%;height:auto}pre{overflow-x:auto;background:#f6f6f6;padding:1em}"
    "section{border-top:1px solid #ccc;margin-top:2em}"
)


def page(title: str, notes: Sequence[str], ladders: Sequence[Ladder]) -> str:
    """The page; *notes* are what holds for all of the capture."""
    sections = [
        f"<section>{picture([ladder])}<details><summary>the same as text</summary>"
        f"<pre>{escape(chr(10).join(drawn(ladder, _TEXT_WIDTH)))}</pre></details></section>"
        for ladder in ladders
    ]
    return "\n".join(
        [
            "<!DOCTYPE html>",
            f'<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>',
            f"<style>{_STYLE}</style></head><body>",
            f"<h1>{escape(title)}</h1>",
            *(f"<p>{escape(note)}</p>" for note in notes),
            *sections,
            "</body></html>",
            "",
        ]
    )
