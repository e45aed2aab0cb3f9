"""The first bytes of a peer on a direct connection of MSN Messenger, by service.

Version 1 and 2 of P2P: the side that connects sends ``04 00 00 00 "foo" 00``, then a frame of 48 bytes
(version 1) or 16 (version 2), each behind its length, u32 little-endian. Recorded: libpurple sends that in
segments of 4, 4, 4 and 48 bytes; aMSN, Miranda and msnp-sharp write the same bytes.

MSNFTP: ``VER MSNFTP`` CR LF; some clients name another version before or beside it. Who receives the file
says it first, whichever side connected.
"""

from __future__ import annotations

from typing import Final

from nfreaim.core.greeting import Field, Greeting

FILE: Final = "msn-file"
OBJECT: Final = "msn-object"
FTP: Final = "msn-ftp"

_P2P: Final[tuple[Greeting, ...]] = (
    (Field(0, frozenset({b"\4\0\0\0foo\0"})), Field(8, frozenset({b"\x30\0\0\0", b"\x10\0\0\0"}))),
)
_FTP: Final[tuple[Greeting, ...]] = tuple(
    (Field(0, frozenset({b"VER "})), Field(at, frozenset({b"MSNFTP"}))) for at in range(4, 25)
)


def greetings(service: str) -> tuple[Greeting, ...]:
    """What a peer may say first on a link for *service*."""
    return _FTP if service == FTP else _P2P
