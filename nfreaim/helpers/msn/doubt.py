"""Doubt: finds out where commands begin in a connection of which bytes were missed, and whether that is so.

MSNP has no frame counter, and a payload can look like any commands. A sender hands a command with its payload
to TCP at once, and pauses between two of them. So:

- A chain of commands begins with a segment that comes after QUIET_S without a byte. It is followed by the
  lengths that its commands have, and dropped where it cannot be read, or at a pause inside a command.
- When there is one in either direction, redirects in it are followed, which opens nothing.
- It is certain when the server has answered a request by its name and transaction. The client's transactions
  are not known to those who write the server's payloads, and its own texts are in no payload of the server.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from nfreaim.core.address import Direction
from nfreaim.errors import Malformed
from nfreaim.helpers.msn.framing import Grammar, Reader

QUIET_S: Final = 1.0
"""A command on its way takes milliseconds, and a lost segment of it the time of a retransmission."""

_ANSWERS: Final = {b"MSG": (b"ACK", b"NAK")}
"""Commands that answer others; most are answered by one of the same name."""
_REMEMBERED: Final = 8


class Piece(NamedTuple):
    """The bytes of a segment from stream offset *start* on; *joined*: they follow what was seen last."""

    data: bytes
    start: int
    now: float
    joined: bool


class Doubt:
    """That about one connection, whose commands are those of *grammar*."""

    __slots__ = ("_chains", "_grammar", "_last", "_requests")

    def __init__(self, grammar: Grammar) -> None:
        self._grammar = grammar
        self._chains: list[Reader | None] = [None, None]
        self._last: list[float | None] = [None, None]
        self._requests: list[tuple[bytes, bytes]] = []

    def saw(self, direction: Direction, piece: Piece) -> tuple[Reader, Reader] | None:
        """Look at the next bytes of a direction. The readers of both, once each has a chain."""
        last, self._last[direction] = self._last[direction], piece.now
        quiet = last is not None and piece.now - last >= QUIET_S
        chain = self._chains[direction]
        if not piece.joined or (quiet and chain is not None and not chain.resting):
            chain = None
        if chain is None and quiet:
            chain = Reader(direction)
        if chain is not None:
            try:
                for command in chain.feed(piece.data, piece.start, self._grammar):
                    self._note(direction, command.words)
            except Malformed:
                chain = None
        self._chains[direction] = chain
        client, server = self._chains
        return None if client is None or server is None else (client, server)

    def resolved(self, direction: Direction, words: list[bytes]) -> bool:
        """A command that was read meanwhile: whether it removes the doubt."""
        if direction is Direction.ORIGINAL:
            self._note(direction, words)
            return False
        return any(
            words[0] in _ANSWERS.get(name, (name,)) and words[1:2] == [transaction]
            for name, transaction in self._requests
        )

    def _note(self, direction: Direction, words: list[bytes]) -> None:
        if direction is Direction.ORIGINAL and len(words) > 1 and words[1].isdigit():
            self._requests = [*self._requests, (words[0][:3], words[1][:16])][-_REMEMBERED:]
