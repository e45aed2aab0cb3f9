"""Redaction: what may stay of a connection in a copy that holds no secrets.

A Redactor reads one flow of one protocol, as a Helper does, and answers each byte by a byte: the same one if
it is part of the framing, of an address, a port or the name of an agreement; else another one. Lengths stay,
so that a helper reads in the copy what it reads in the original, and does the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import blake2b
from typing import Final, Protocol

from nfreaim.core.address import Direction

FILL: Final = b"x"
"""What stands in place of a byte that is overwritten."""

_PIECE: Final = re.compile(rb"[0-9A-Za-z_\x80-\xff]++")
# No vowels and no digits, so that no pseudonym is a word that somebody could take for a name.
_LETTERS: Final = b"bcdfghjklmnpqrstvwxz"


class Pseudonyms:
    """Puts other names of the same length in place of names. *key*: bytes that are forgotten afterwards.

    The same name gets the same pseudonym, in either case, so that who is meant stays comparable. What
    separates the pieces of a name (@, /, a dot, a space) stays.
    """

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = key

    def name(self, text: bytes) -> bytes:
        """A name as it was written, with other letters."""
        return _PIECE.sub(lambda piece: self.plain(piece[0]), text)

    def plain(self, text: bytes) -> bytes:
        """*text* as one piece: as many letters."""
        made, number = b"", 0
        while len(made) < len(text):
            said = b"%d %b" % (number, text.lower())
            made += bytes(_LETTERS[byte % len(_LETTERS)] for byte in blake2b(said, key=self._key).digest())
            number += 1
        return made[: len(text)]


def filled(text: bytes, fill: bytes = FILL) -> bytes:
    """*text* overwritten."""
    return fill * len(text)


def kept(text: bytes, ranges: Iterable[tuple[int, int]]) -> bytearray:
    """*text* overwritten but for the bytes of *ranges*, each from its first to behind its last."""
    made = bytearray(filled(text))
    for start, end in ranges:
        made[start:end] = text[start:end]
    return made


class Redactor(Protocol):
    """One protocol's reader of one flow, which redacts it.

    account     the name under which the client has signed on, as it was written; "" if that is not known
    party       the other party of the last message that may announce an address, likewise
    recognised  both ends have begun as this protocol does; a helper that is established says so, too
    """

    account: str
    party: str
    recognised: bool

    def redacted(self, direction: Direction, data: bytes) -> bytes:
        """Read *data*, the next bytes of that direction. Returns the next bytes of its copy.

        They may end before those read so far: what is missing follows once more has come. Raises Malformed or
        Foreign where reading ends: then nothing that has not been returned may be copied.
        """


class Blank:
    """The Redactor of a protocol that has none: it never recognises anything."""

    __slots__ = ("account", "party", "recognised")

    def __init__(self, pseudonyms: Pseudonyms, midstream: bool) -> None:
        self.account, self.party, self.recognised = "", "", False

    def redacted(self, direction: Direction, data: bytes) -> bytes:
        """See Redactor."""
        return filled(data)


class RedactorFactory(Protocol):
    """Makes the redactor of a new flow."""

    def __call__(self, pseudonyms: Pseudonyms, midstream: bool) -> Redactor:
        """*midstream*: the flow's beginning was not seen."""
