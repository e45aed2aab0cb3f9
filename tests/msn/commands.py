"""Commands of notification servers and switchboards: a line, and with some a payload behind it.

``NAME argument argument... CR LF``. Of a command with a payload the last argument is its length in bytes, as
a decimal number; which commands have one depends on who says it. Sources: Escargot's reader, libpurple's
notification.c and switchboard.c, msnp-sharp's list of errors with payload.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_FROM_CLIENT = frozenset("MSG QRY SDC PAG PGD UUX ADL RML FQY UUN UUM PUT DEL SDG VAS".split())
_FROM_SERVER = frozenset("MSG NOT IPG GCF UBX UBN UBM ADL RML FQY NFY SDG PUT DEL GET FSL".split())
_ERRORS = frozenset("241 509 205 201 203 204 210 234 508 511 591 731 801 933".split())
# Their answers say OK where a length would be.
_ANSWERED = frozenset(("ADL", "RML"))


@dataclass(frozen=True)
class Command:
    """One command; *words* is its line without CR LF, split at each blank, with the length among them."""

    words: tuple[str, ...]
    payload: bytes | None = None

    @property
    def name(self) -> str:
        """The first word."""
        return self.words[0]

    @property
    def transaction(self) -> str:
        """The second word, "" where there is none."""
        return self.words[1] if len(self.words) > 1 else ""

    def encode(self) -> bytes:
        """The bytes on the wire."""
        return " ".join(self.words).encode("utf-8", "surrogateescape") + b"\r\n" + (self.payload or b"")


def command(*words: object, payload: bytes | None = None) -> Command:
    """A command of these words; the length of its payload is added to them."""
    line = tuple(str(word) for word in words)
    if payload is not None:
        line += (str(len(payload)),)
    return Command(line, payload)


def payload_length(words: tuple[str, ...], from_client: bool) -> int | None:
    """How many bytes follow the line, None where the command has no payload at all."""
    name, last = words[0], words[-1]
    if name in _ERRORS and not from_client:
        return int(last) if len(words) == 3 else None
    if name not in (_FROM_CLIENT if from_client else _FROM_SERVER):
        return None
    if name in _ANSWERED and last == "OK":
        return None
    return int(last)


class CommandReader:
    """Cuts one direction of a connection into commands, wherever the pieces end.

    ValueError for a line that does not end in CR LF, or a length that is no number.
    """

    def __init__(self, from_client: bool) -> None:
        self.rest = b""
        self._from_client = from_client

    def feed(self, data: bytes) -> list[Command]:
        """The commands that are complete with *data*."""
        self.rest += data
        return list(self._complete())

    def _complete(self) -> Iterator[Command]:
        while (end := self.rest.find(b"\n")) >= 0:
            if self.rest[end - 1 : end] != b"\r":
                raise ValueError(f"a bare line feed: {self.rest[: end + 1]!r}")
            words = tuple(self.rest[: end - 1].decode("utf-8", "surrogateescape").split(" "))
            length = payload_length(words, self._from_client)
            stop = end + 1 + (length or 0)
            if len(self.rest) < stop:
                return
            payload = None if length is None else self.rest[end + 1 : stop]
            self.rest = self.rest[stop:]
            yield Command(words, payload)


def commands_of(data: bytes, from_client: bool) -> list[Command]:
    """All commands in *data*; ValueError if something is left over."""
    reader = CommandReader(from_client)
    found = reader.feed(data)
    if reader.rest:
        raise ValueError(f"left over: {reader.rest[:60]!r}")
    return found
