"""Greeting: the first bytes that a connection may have, as plain data of no protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple


class Field(NamedTuple):
    """Bytes of a greeting: one of *values* at offset *at*. All values have the same length."""

    at: int
    values: frozenset[bytes]


Greeting = tuple[Field, ...]
"""The fields that the first bytes of a connection must match. Bytes outside the fields are free."""

GreetingsOf = Callable[[str, str], tuple[Greeting, ...]]
"""What a peer may say first, by protocol and service, or by protocol and Pinhole.unverified."""


def length(greeting: Greeting) -> int:
    """The number of bytes that decides whether a connection began with *greeting*."""
    return max(field.at + len(next(iter(field.values))) for field in greeting)


def match(read: bytes, greetings: Iterable[Greeting]) -> bool | None:
    """Whether *read*, the first bytes of a connection, match one of *greetings*; None if more bytes decide.

    More bytes never change a True or False, so the answer does not depend on how the bytes were segmented.
    """
    fitting = [greeting for greeting in greetings if all(_fits(read, field) for field in greeting)]
    if not fitting:
        return False
    return True if any(length(greeting) <= len(read) for greeting in fitting) else None


def _fits(read: bytes, field: Field) -> bool:
    return any(value.startswith(read[field.at : field.at + len(value)]) for value in field.values)
