"""Pager: any bytes in both directions of a YMSG connection, straight into Yahoo! Messenger's helper.

An input is a row of pieces (pieces.py), played as it stands and in cuts: what leaves must be the same. An
independent reading of both streams says what may differ: the address and port in the URL of a whole 0x4D, as
the pinholes of the session say, and the length in its header.
"""

from __future__ import annotations

import random
import re
from typing import Final

from nfreaim.core.address import Endpoint
from tests.fuzz.pieces import Opened, Piece, Ways, opened_by, passed, pieces_of, rearranged, written
from tests.golden import load
from tests.unit.helper_session import C2S, S2C
from tests.unit.yahoo_session import INSIDE, OUTSIDE, ScriptedNat, Session
from tests.yahoo import ymsg
from tests.yahoo.ymsg import P2PFILEXFER, V10, Ymsg, offer, packets_of, relayed, sign_on, url

MOST_KEPT: Final = 2 * (4096 + 20)
_URL: Final = re.compile(rb"(http://)([0-9.]+)(?::([0-9]+))?(/.*)", re.DOTALL | re.IGNORECASE)
_MOVED: Final = {5555: 40001, 80: 40002}


def play(data: bytes) -> None:
    """One input. Raises if something that must hold does not."""
    pieces = list(pieces_of(data))
    whole, opened = _left(pieces, cut=False)
    parts, _ = _left(pieces, cut=True)
    assert whole == parts, "what leaves depends on the cuts"
    for way, (came, left) in enumerate(whole):
        _judge(way, came, left, opened)


def _left(pieces: list[Piece], cut: bool) -> tuple[Ways, Opened]:
    """By direction what came and what left of it, and the pinholes."""
    session = Session(ScriptedNat(moved=_MOVED))
    left = passed(session, pieces, cut, MOST_KEPT)
    for expectation in session.nat.expected:
        assert session.helper.established, "something opens before sign-on"
        assert expectation.inside.address == INSIDE
        assert expectation.greetings
    return left, opened_by(session.nat, OUTSIDE)


def _judge(way: int, came: bytes, left: bytes, opened: Opened) -> None:
    at = place = 0
    for before, after in zip(packets_of(came), packets_of(left), strict=True):
        at, place = at + len(before), place + len(after)
        if before != after:
            _edited(way, before, after, opened)
    assert came[at:] == left[place:], "something was changed that is no whole packet"


def _edited(way: int, before: bytes, after: bytes, opened: Opened) -> None:
    one, two = (ymsg.parse(each, padded=way == S2C) for each in (before, after))
    assert one.service == P2PFILEXFER
    assert before[4:8] + before[10:20] == after[4:8] + after[10:20]
    assert [pair for pair in one.pairs if pair[0] != 20] == [pair for pair in two.pairs if pair[0] != 20]
    old, new = _url(one), _url(two)
    assert (old[1], new[1]) == (old[1], old[1]), "the path was changed"
    if way == C2S:
        assert old[0].address in (INSIDE, OUTSIDE)
        assert (new[0], Endpoint(INSIDE, old[0].port)) in opened
    else:
        assert (old[0], new[0]) in opened


def _url(packet: Ymsg) -> tuple[Endpoint, bytes]:
    (where,) = [value for key, value in packet.pairs if key == 20]
    found = _URL.fullmatch(where)
    assert found is not None
    return Endpoint(found[2].decode(), int(found[3] or 80)), found[4]


def seeds() -> list[bytes]:
    """Sessions with every golden packet and offers, in different cuts."""
    hello, challenge, answer, welcome = sign_on()
    begun = [(0, hello), (1, challenge), (0, answer), (1, welcome)]
    offers = [url(INSIDE, port) for port in (5555, None, 80, 22, 1024)] + [
        url(OUTSIDE, 5555),
        url("10.0.0.6", 5555),
    ]
    found = [
        [*begun, (cut, offer(where)), (cut | 1, relayed(offer(url(OUTSIDE, 40001))))]
        for cut in (0, 12, 64)
        for where in offers
    ]
    found += [[*begun, (6, one.data), (7, one.data)] for one in load("yahoo").values()]
    found += [[*begun, (2, offer(url(INSIDE, 5555), version=V10) * 3)], [(0, hello + answer), (9, welcome)]]
    told = relayed(offer(url(OUTSIDE, 40001)))
    padded = told[:8] + (len(told) - 19).to_bytes(2, "big") + told[10:] + b"\0"
    found.append([*begun, (0, offer(url(INSIDE, 5555))), (13, padded)])
    return [written(pieces) for pieces in found]


def mutated(data: bytes, limit: int, rng: random.Random) -> bytes:
    """*data* with pieces changed, repeated, joined or removed; lengths mostly repaired."""
    return rearranged(data, limit, rng, _damaged, damage=0.6, repeat=0.15)


_WORDS: Final = (
    b"\xc0\x80",
    b"\xc0",
    b"20\xc0\x80",
    b"YMSG",
    b":80",
    b":0",
    b"10.0.0.5",
    b"http://",
    b"\0",
    b"0",
    b"/",
)


def _damaged(piece: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(piece))
    end = at + rng.choice((0, 1, 2, 4, 12))
    new = rng.choice((rng.choice(_WORDS), rng.randbytes(rng.choice((1, 2))), piece[at : at + 20] * 2, b""))
    changed = piece[:at] + new + piece[end:]
    if len(changed) >= 20 and changed.startswith(b"YMSG") and rng.random() < 0.8:
        changed = changed[:8] + min(0xFFFF, len(changed) - 20).to_bytes(2, "big") + changed[10:]
    return changed
