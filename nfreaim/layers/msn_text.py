"""What the texts of MSN Messenger's clients share: lines ``Name: value``, and addresses with a port."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

# The last line may lack its end; a NUL may stand behind it.
_LINE: Final = re.compile(rb"([A-Za-z0-9-]{1,64}):([^\r\n\0]*+)(?:\r\n|(?=\0?\Z))")
_PORT: Final = re.compile("[1-9][0-9]{0,4}")
_MOST_LINES: Final = 64

Span = tuple[int, int]
"""Where a value stands: offsets of its first byte and behind its last."""


class Place(NamedTuple):
    """An IPv4 address in dotted form, and a TCP port."""

    address: str
    port: int

    def __str__(self) -> str:
        return f"{self.address}:{self.port}"


class Lines(NamedTuple):
    """Lines of *data*: where each value stands, by its name in lower case; None: the name stands there twice.

    end  where the first byte stands that belongs to no line
    """

    data: bytes
    spans: dict[bytes, Span | None]
    end: int

    def value(self, name: bytes) -> bytes:
        """The value of a line, in lower case; empty if it is not there once."""
        span = self.spans.get(name)
        return b"" if span is None else self.data[slice(*span)].lower()


def lines_of(data: bytes, at: int) -> Lines:
    """The lines of *data* from *at* on."""
    spans: dict[bytes, Span | None] = {}
    for _ in range(_MOST_LINES):
        line = _LINE.match(data, at)
        if line is None:
            break
        low = line.start(2)
        value = line[2].strip(b" \t")
        low += line[2].find(value)
        name = line[1].lower()
        spans[name] = None if name in spans else (low, low + len(value))
        at = line.end()
    return Lines(data, spans, at)


def port_of(text: str) -> int:
    """The port that *text* is. Raises ValueError."""
    if not _PORT.fullmatch(text) or int(text) > 0xFFFF:
        raise ValueError("no port")
    return int(text)
