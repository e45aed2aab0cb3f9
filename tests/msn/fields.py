"""Lines of ``Name: value``, each ended by CR LF, with a blank line behind the last: headers and bodies."""

from __future__ import annotations

from dataclasses import dataclass

Fields = tuple[tuple[str, str], ...]
"""Names and values in their order."""


def block(fields: Fields) -> bytes:
    """The lines, and the blank line behind them."""
    return "".join(f"{name}: {value}\r\n" for name, value in fields).encode() + b"\r\n"


def take_block(data: bytes) -> tuple[Fields, bytes]:
    """The first block of *data*, and what follows its blank line; ValueError if it is none."""
    found: list[tuple[str, str]] = []
    while True:
        line, end, data = data.partition(b"\r\n")
        if not end:
            raise ValueError(f"no blank line behind {found}")
        if not line:
            return tuple(found), data
        name, colon, value = line.decode().partition(": ")
        if not colon:
            raise ValueError(f"no field: {line!r}")
        found.append((name, value))


def get(fields: Fields, name: str) -> str | None:
    """The first value of that name, in whatever letter case; None if there is none."""
    return next((value for key, value in fields if key.lower() == name.lower()), None)


@dataclass(frozen=True)
class Message:
    """The payload of a ``MSG``: headers, and what follows them."""

    headers: Fields
    body: bytes = b""

    @property
    def content_type(self) -> str:
        """Without parameters, in lower case."""
        return (get(self.headers, "Content-Type") or "").partition(";")[0].lower()

    def encode(self) -> bytes:
        """The payload."""
        return block(self.headers) + self.body

    @classmethod
    def decode(cls, payload: bytes) -> Message:
        """ValueError if there are no headers."""
        return cls(*take_block(payload))


def mime(content_type: str, *more: tuple[str, str]) -> Fields:
    """The headers that every message begins with, and *more*."""
    return (("MIME-Version", "1.0"), ("Content-Type", content_type), *more)


def text(words: str) -> Message:
    """Something that a user typed."""
    return Message(mime("text/plain; charset=UTF-8", ("X-MMS-IM-Format", "FN=Arial")), words.encode())


def profile(seen: tuple[str, int] | None) -> Message:
    """What a notification server tells a client of itself: where it sees it (MSNP8 on), and much else."""
    where = (("ClientIP", seen[0]), ("ClientPort", str(seen[1]))) if seen else ()
    return Message(mime("text/x-msmsgsprofile; charset=UTF-8", ("LoginTime", "1"), *where))
