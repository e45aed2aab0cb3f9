"""How a connection begins: a sign-on frame of each side, and the server's list of families, SNAC(01,03)."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from tests.golden import load
from tests.oscar.flap import FLAP_KEEPALIVE, FLAP_SIGNON, flap

VERSION = b"\0\0\0\1"


def hello(number: int = 0, items: bytes = b"") -> bytes:
    """A sign-on frame; a client's may hold TLVs, of which 0x0006 is the cookie."""
    return flap(FLAP_SIGNON, number, VERSION + items)


def families(numbers: Iterable[int]) -> bytes:
    """Body of SNAC(01,03)."""
    return b"".join(struct.pack("!H", number) for number in numbers)


SIGNON = hello(0x64)
"""The server's, as open-oscar-server numbers it."""
CLIENT_SIGNON = load()["signon-with-cookie"].data
HOST_ONLINE = load()["host-online"].data
KEEPALIVE = flap(FLAP_KEEPALIVE, 0)
