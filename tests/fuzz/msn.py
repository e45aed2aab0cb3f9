"""MSN: a connection's streams straight into its helper, read in two ways, and judged by a reader of its own.

A program is a byte of settings, then steps: way, u16 length, u8 size of pieces (0: whole), and so many bytes.
Every connection begins with a sign-on, so that most bytes are read.
"""

from __future__ import annotations

import contextlib
import random
import re
from functools import cache
from typing import Final

from nfreaim.core.address import Direction, Endpoint
from nfreaim.core.tcp.offsets import Edit, OffsetMap
from nfreaim.errors import Malformed
from nfreaim.helpers.msn.connection import MsnHelper
from tests.golden.msn import packets
from tests.unit.msn_session import NS_CLIENT, NS_SERVER, SB_CALLER, MsnNat

LIMIT: Final = 1 << 16
_PAYLOADS: Final = (
    frozenset(b"MSG QRY SDC PAG PGD UUX ADL RML FQY UUN UUM PUT DEL SDG VAS".split()),
    frozenset(b"MSG NOT IPG GCF UBX UBN UBM ADL RML FQY NFY SDG PUT DEL GET FSL".split()),
)
_ADDRESS: Final = re.compile(rb"[0-9]{1,3}(?:\.[0-9]{1,3}){3}")


class Side:
    """One copy of the helper. *settings*: 1 the server is inside, 2 it begins on a notification server."""

    def __init__(self, settings: int) -> None:
        home = bool(settings & 1)
        self.nat = MsnNat(server_inside=home, moved={6891: 40000, 44397: 50001, 3312: 40003})
        if home:
            self.nat.inside, self.nat.outside = Endpoint("10.0.0.9", 1863), Endpoint("203.0.113.20", 4000)
            self.nat.forwards = {Endpoint("10.0.0.9", 1864): 11864}
        self.nat.pinholes[Endpoint("203.0.113.1", 6000)] = Endpoint("10.0.0.6", 6001)
        self.helper = MsnHelper(midstream=False)
        self.seen = [bytearray(), bytearray()]
        self.edits: tuple[list[Edit], list[Edit]] = ([], [])
        self.over = False
        signs = zip(NS_CLIENT, NS_SERVER, strict=True) if settings & 2 else [SB_CALLER]
        for said, heard in signs:
            self.read(0, said)
            self.read(1, heard)
        assert self.helper.established

    def read(self, way: int, data: bytes) -> None:
        start = len(self.seen[way])
        self.seen[way] += data
        if self.over:
            return
        try:
            scan = self.helper.scan(Direction(way), data, start, self.nat)
        except Malformed:
            self.over = True
            return
        edits, hold = scan if scan else ((), None)
        low, end = self.nat.left[way], len(self.seen[way])
        for edit in edits:
            assert low <= edit.start < edit.end <= end, "an edit over what left or has not come"
            low = edit.end
        self.edits[way].extend(edits)
        self.nat.left[way] = end if hold is None else max(min(hold, end), self.nat.left[way])
        assert self.nat.buffered <= 2 * 16384, "more is kept than a line and a payload"

    def streams(self) -> tuple[bytes, ...]:
        """What left of each direction."""
        return tuple(
            OffsetMap(edits).render(bytes(seen), 0) for edits, seen in zip(self.edits, self.seen, strict=True)
        )


def play(data: bytes) -> None:
    """A program. Raises AssertionError."""
    settings, rest = (data[0] if data else 0), data[1:LIMIT]
    whole, cut = Side(settings), Side(settings)
    while len(rest) >= 4:
        way, size, piece = rest[0] & 1, int.from_bytes(rest[1:3], "big"), rest[3]
        step, rest = rest[4 : 4 + size], rest[4 + size :]
        if step:
            whole.read(way, step)
            for low in range(0, len(step), piece or len(step)):
                cut.read(way, step[low : low + (piece or len(step))])
    for side in (whole, cut):
        side.read(0, b"")  # what ended the reading behind an edit is raised now
    assert whole.over is cut.over, "one of two gave up, by nothing but the cuts"
    assert whole.streams() == cut.streams(), "what leaves differs with the cuts"
    inside = {(one.inside.address, one.inside.port) for one in whole.nat.expected}
    for address, port in inside:
        assert address.startswith("10.") if settings & 1 else address == "10.0.0.5", "somebody else's pinhole"
        assert 0 < port <= 0xFFFF
    for way in (0, 1):
        _judge(way, bytes(whole.seen[way]), whole.streams()[way], whole.edits[way])
    for _ in range(2):
        with contextlib.suppress(Malformed):
            positions = whole.helper.positions()
            with contextlib.suppress(ValueError):
                MsnHelper(midstream=False).resume(positions, (0, 0))


def _judge(way: int, came: bytes, left: bytes, edits: list[Edit]) -> None:
    """Edits replace numbers, addresses and sizes by such, and lengths on lines are those of the payloads."""
    for edit in edits:
        old, new = came[edit.start : edit.end], edit.data
        if len(old) in (4, 8, 12) and len(old) == len(new):
            continue  # a size in a header; or an address or port of the same length
        assert _plain(old), f"{old!r} is no number and no address"
        assert _plain(new), f"{new!r} is no number and no address"
    if edits:
        assert _commands(left, way) == _commands(came, way), "the commands are not those that came"


def _plain(text: bytes) -> bool:
    turned = text[::-1]
    return (
        any(
            word.isdigit()
            or _ADDRESS.fullmatch(word)
            or re.fullmatch(_ADDRESS.pattern + rb":[0-9]{1,5}", word)
            for word in (text, turned)
        )
        or re.fullmatch(rb"[A-Za-z0-9+/]+=*|[A-Za-z0-9._-]+:[0-9]{1,5}", text) is not None
    )


def _commands(stream: bytes, way: int) -> list[bytes]:
    """The first words of the commands of a stream, read by the lengths on their lines."""
    found, at = [], 0
    while (end := stream.find(b"\r\n", at)) >= 0:
        words = stream[at:end].split(b" ")
        found.append(words[0])
        at = end + 2
        if words[0] in _PAYLOADS[way] and words[-1].isdigit() and len(words) > 2 - way:
            at += int(words[-1])
    return found


@cache
def seeds() -> list[bytes]:
    """Programs of the golden packets."""
    made = []
    for packet in packets().values():
        way = b"\0" if packet.direction == "out" else b"\1"
        settings = (1 if packet.direction.startswith("server") else 0) | (2 if packet.name[0] in "NSR" else 0)
        for piece in (0, 1, 97):
            step = way + len(packet.before).to_bytes(2, "big") + bytes([piece]) + packet.before
            made.append(bytes([settings]) + step)
    return made


_WORDS: Final = (
    *(
        b"10.0.0.5",
        b"203.0.113.1",
        b"5.0.0.01",
        b"1.311.0.302",
        b"6891",
        b"0",
        b"65535",
        b"99999",
        b"\r\n",
        b" ",
        b"\0",
    ),
    *(
        b"IPv4External-Addrs: 10.0.0.5\r\n",
        b"IPv4Internal-Port: 6891\r\n",
        b"srddA-lanretnI4vPI: 5.0.0.01\r\n",
    ),
    *(
        b"Listening: true\r\n",
        b"Content-Length: 0\r\n",
        b"PortX: 1\r\n",
        b"MSG 9 D 16777216\r\n",
        b"XFR 1 SB x:1\r\n",
    ),
    *(
        b"\xff\xff\xff\xff",
        b"IP-Address: 10.0.0.5\r\n",
        b"Invitation-Command: CANCEL\r\n",
        b"UUN 1 a@b 3 9\r\n",
    ),
)


def mutated(data: bytes, limit: int, rng: random.Random) -> bytes:
    """A program with something changed: steps repeated or cut otherwise, and words put into one, whose length
    on its line follows half of the time."""
    settings, steps = (data[:1] or b"\0"), _steps(data[1:])
    other = _steps(rng.choice(seeds())[1:])
    choice = rng.randrange(6)
    if choice == 0 or not steps:
        steps.insert(rng.randrange(len(steps) + 1), rng.choice(other))
    at = rng.randrange(len(steps))
    way, piece, text = steps[at]
    if choice == 1:
        steps[at] = way ^ 1, piece, text
    elif choice == 2:
        steps[at] = way, rng.choice((0, 1, 2, 7, 30, 200)), text
    elif choice == 3:
        settings = bytes([rng.randrange(4)])
    elif text:
        place, word = rng.randrange(len(text)), rng.choice(_WORDS)
        end = min(len(text), place + rng.choice((0, 0, 1, len(word))))
        text = text[:place] + word + text[end:]
        head, found, rest = text.partition(b"\r\n")
        if found and rng.random() < 0.5:
            head = head.rpartition(b" ")[0] + b" %d" % len(rest)
        steps[at] = way, piece, head + found + rest
    made = b"".join(
        bytes([way]) + len(text[:65535]).to_bytes(2, "big") + bytes([piece]) + text[:65535]
        for way, piece, text in steps
    )
    return (settings + made)[:limit]


def _steps(rest: bytes) -> list[tuple[int, int, bytes]]:
    steps = []
    while len(rest) >= 4:
        size = int.from_bytes(rest[1:3], "big")
        steps.append((rest[0] & 1, rest[3], rest[4 : 4 + size]))
        rest = rest[4 + size :]
    return steps
