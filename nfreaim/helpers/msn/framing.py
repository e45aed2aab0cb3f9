"""Reader: cuts one direction of a connection into commands, and keeps the few payloads that are wanted.

The length of a payload is the only sign of where the next command begins, so it is believed, and a boundary
is never searched for: payloads hold the texts of users.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple, Protocol

from nfreaim.errors import Malformed
from nfreaim.layers.msn_lines import LONGEST_LINE

MOST_READ: Final = 8000
"""Bytes of a payload that is kept to be read; a held message must fit into what the engine holds."""


class Command(NamedTuple):
    """One command.

    at       stream offset of its line
    words    of its line
    line     bytes of the line, with its CR LF
    payload  its payload; empty if it has none, or nobody wants it
    """

    at: int
    words: list[bytes]
    line: int
    payload: bytes

    @property
    def payload_at(self) -> int:
        """Stream offset of the payload."""
        return self.at + self.line

    @property
    def length_at(self) -> int:
        """Stream offset of the line's last argument."""
        return self.at + self.line - 2 - len(self.words[-1])


class Grammar(Protocol):
    """What the commands of a connection look like. *sender*: the number of a direction."""

    def payload_of(self, sender: int, words: list[bytes]) -> int:
        """Bytes of the payload of the command with these words. Raises Malformed."""

    def wanted(self, sender: int, words: list[bytes], payload: bytes) -> bool | None:
        """Whether a payload is to be kept, of which *payload* has come; None: more bytes decide."""


class Reader:
    """Reads the direction of *sender*.

    kept  the beginning of a command whose end is missing, from stream offset *at* on
    skip  bytes of a payload that are still to come, and that nobody wants
    """

    __slots__ = ("at", "kept", "sender", "skip")

    def __init__(self, sender: int) -> None:
        self.sender = sender
        self.at = self.skip = 0
        self.kept = b""

    @property
    def resting(self) -> bool:
        """Whether the next byte begins a command."""
        return not self.skip and not self.kept

    def feed(self, data: bytes, start: int, grammar: Grammar) -> Iterator[Command]:
        """The commands that *data*, the bytes from stream offset *start* on, complete.

        A command whose payload nobody wants is complete with its line. What *grammar* answers may change from
        one command to the next. Raises Malformed where reading ends.
        """
        if self.skip:
            skipped = min(self.skip, len(data))
            self.skip -= skipped
            data, start = data[skipped:], start + skipped
        if self.kept:
            data, start, self.kept = self.kept + data, self.at, b""
        pos, size = 0, len(data)
        while pos < size:
            end = data.find(b"\n", pos, pos + LONGEST_LINE)
            if end < 0:
                if size - pos >= LONGEST_LINE:
                    raise Malformed("a line is too long")
                break
            if end == pos or data[end - 1] != 13:
                raise Malformed("a line does not end with CR LF")
            words, behind = data[pos : end - 1].split(b" "), end + 1
            whole = behind + grammar.payload_of(self.sender, words)
            payload = b""
            if whole > behind:
                short = whole - behind <= MOST_READ
                keep = short and grammar.wanted(self.sender, words, data[behind:whole])
                if keep is not False:
                    if whole > size:
                        break
                    payload = data[behind:whole]
            yield Command(start + pos, words, behind - pos, payload)
            pos = whole
        self.at = start + pos
        self.kept = data[pos:]
        self.skip += max(0, pos - size)
