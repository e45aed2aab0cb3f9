"""A direct connection between two clients: how it begins, and P2P frames on it.

Each frame is u32 LE length, then header and data, without footer. The connecting side begins with the length
4 and "foo" NUL, then both send a handshake that holds the nonce. Sources: libpurple's directconn.c, Miranda.
"""

from __future__ import annotations

import hashlib
import uuid

from tests.msn.p2p import FLAG_HANDSHAKE, Header

FOO = b"\4\0\0\0foo\0"


def framed(data: bytes) -> bytes:
    """With its length before it."""
    return len(data).to_bytes(4, "little") + data


def handshake(message: int, nonce: str) -> bytes:
    """Of version 1: a header whose last 16 bytes are the nonce; with its length."""
    head = Header(message=message, flags=FLAG_HANDSHAKE).encode()
    return framed(head[:32] + uuid.UUID(nonce).bytes_le)


def handshake_v2(nonce: str) -> bytes:
    """Of version 2: the nonce alone; with its length."""
    return framed(uuid.UUID(nonce).bytes_le)


def nonce_of(frame: bytes) -> str:
    """The nonce in a handshake frame of version 1, without its length, as SLP writes it."""
    return "{" + str(uuid.UUID(bytes_le=frame[32:48])).upper() + "}"


def hashed(nonce: str) -> str:
    """What Hashed-Nonce says of a nonce."""
    digest = hashlib.sha1(uuid.UUID(nonce).bytes_le).digest()[:16]
    return "{" + str(uuid.UUID(bytes_le=digest)).upper() + "}"
