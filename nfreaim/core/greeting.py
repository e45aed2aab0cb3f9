"""Greeting: the first bytes that a connection may have, as plain data of no protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import NamedTuple


class Field(NamedTuple):
    """Bytes of a greeting: one of *values* at offset *at*. All values have the same length."""

    at: int
    values: frozenset[bytes]


Greeting = tuple[Field, ...]
"""The fields that the first bytes of a connection must match. Bytes outside the fields are free."""

GreetingsOf = Callable[[str, str], tuple[Greeting, ...]]
"""What a peer may say first, by protocol and service, or by protocol and Pinhole.unverified."""


@lru_cache(256)  # each connection asks for those of one service
def length(greeting: Greeting) -> int:
    """The number of bytes that decides whether a connection began with *greeting*."""
    return max(field.at + len(next(iter(field.values))) for field in greeting)


def match(read: bytes, greetings: Iterable[Greeting]) -> bool | None:
    """Whether *read*, the first bytes of a connection, match one of *greetings*; None if more bytes decide.

    More bytes never change a True or False, so the answer does not depend on how the bytes were segmented.
    """
    found: bool | None = False
    for greeting in greetings:
        if _fits(read, greeting):
            if length(greeting) <= len(read):
                return True
            found = None
    return found


def _fits(read: bytes, greeting: Greeting) -> bool:
    for at, values in greeting:
        for value in values:
            if value.startswith(read[at : at + len(value)]):
                break
        else:
            return False
    return True
