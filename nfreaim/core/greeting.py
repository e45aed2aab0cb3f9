"""Greeting: what a connection has to begin with, as plain data. Knows no protocol, and nothing of packets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Field(NamedTuple):
    """Bytes of a greeting: at offset *at* stands one of *values*, which are all of one length."""

    at: int
    values: frozenset[bytes]


Greeting = tuple[Field, ...]
"""What a connection may begin with. What no field covers may be anything."""


def length(greeting: Greeting) -> int:
    """How many bytes it takes to tell whether a connection began with *greeting*."""
    return max(field.at + len(next(iter(field.values))) for field in greeting)


def match(read: bytes, greetings: Iterable[Greeting]) -> bool | None:
    """Whether a connection that began with *read* began with one of *greetings*; None: too early to tell.

    The answer does not depend on where *read* was cut: once it is not None, more bytes do not change it.
    """
    fitting = [greeting for greeting in greetings if all(_fits(read, field) for field in greeting)]
    if not fitting:
        return False
    return True if any(length(greeting) <= len(read) for greeting in fitting) else None


def _fits(read: bytes, field: Field) -> bool:
    return any(value.startswith(read[field.at : field.at + len(value)]) for value in field.values)
