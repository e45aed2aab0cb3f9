"""Inputs that are a row of pieces of both directions of one connection, straight into a helper.

A piece: what (1 byte: the lowest bit is the direction, the others the size of the cuts of the second run),
length (2), bytes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

from nfreaim.core.address import Endpoint
from nfreaim.errors import Malformed
from tests.unit.helper_session import C2S, S2C, HelperSession
from tests.unit.irc_session import ScriptedNat

Piece = tuple[int, bytes]
Opened = set[tuple[Endpoint, Endpoint]]
"""Outside and inside endpoints of the pinholes that ever were."""
Ways = list[tuple[bytes, bytes]]
"""By direction, what came and what left of it."""
Damage = Callable[[bytes, random.Random], bytes]
"""Changes a piece that is not empty."""


def pieces_of(data: bytes) -> Iterator[Piece]:
    """The pieces of an input; the last may be shorter than it says."""
    while len(data) >= 3:
        size = int.from_bytes(data[1:3], "big")
        yield data[0], data[3 : 3 + size]
        data = data[3 + size :]


def written(pieces: list[Piece]) -> bytes:
    """The inverse of ``pieces_of``."""
    return b"".join(bytes([what]) + len(data).to_bytes(2, "big") + data for what, data in pieces)


def passed(session: HelperSession[Any, Any], pieces: list[Piece], cut: bool, most_kept: int) -> Ways:
    """Feed the pieces, whole or *cut*, until they can be read no further; then all passes as it comes."""
    for what, data in pieces:
        way = S2C if what & 1 else C2S
        size = (what >> 1) + 1 if cut else max(1, len(data))
        try:
            for at in range(0, len(data), size):
                session.feed(way, data[at : at + size])
                assert session.nat.buffered <= most_kept
        except Malformed:
            break
    left = []
    for way in (C2S, S2C):
        came = b"".join(data for what, data in pieces if what & 1 == way)
        left.append((came, session.rendered(way) + came[len(session.seen[way]) :]))
    return left


def opened_by(nat: ScriptedNat, outside: str) -> Opened:
    """What was opened, as *nat* says where."""
    return {
        (Endpoint(outside, nat.moved.get(one.inside.port, one.inside.port)), one.inside)
        for one in nat.expected
    }


def rearranged(
    data: bytes, limit: int, rng: random.Random, damaged: Damage, damage: float, repeat: float
) -> bytes:
    """*data* with pieces *damaged*, repeated, cut in two or removed.

    damage, repeat  the chances of the first two; it is cut in two or removed otherwise, but for a tenth only
                    removed
    """
    pieces = list(pieces_of(data))
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(pieces)) if pieces else 0
        what, piece = pieces[at] if pieces else (0, b"")
        chance = rng.random()
        if chance < damage and piece:
            changed = damaged(piece, rng)
            pieces[at] = rng.choice((what, what, rng.randrange(256))), changed
        elif chance < damage + repeat:
            pieces.insert(rng.randint(0, len(pieces)), (rng.randrange(256), piece))
        elif chance < 0.9 and piece:
            middle = rng.randrange(len(piece) + 1)
            pieces[at : at + 1] = [(what, piece[:middle]), (what, piece[middle:])]
        elif pieces:
            del pieces[at]
    return written(pieces)[:limit]
