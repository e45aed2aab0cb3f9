"""Bytes through the peer gate that it did not promise: random hostile connections.

The receiver keeps either copy of an overlap, loses at random what an old timestamp or a short TTL would
make it lose, trims or keeps data on a SYN, and is reset by exact RSTs only. Whatever it reads must match
the greeting.
usage: gate_fuzz.py CHECKOUT [CONNECTIONS [SEED]]
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.attacks.kit import verdict

# isort: split
from collections.abc import Sequence
from dataclasses import dataclass, field

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.counters import Counters
from nfreaim.core.firewall.peer_gate import PeerGate
from nfreaim.core.greeting import Greeting, match
from nfreaim.core.tcp.segment import ACK, FIN, RST, SYN, URG, Segment
from nfreaim.helpers.oscar.peer_greetings import greetings
from tests.tcp.packets import packet

PEER, HOST = Endpoint("203.0.113.20", 50000), Endpoint("10.0.0.5", 5190)
EXPECTED = greetings("send-file", None, "sender")
GOOD = b"OFT2\1\0\1\1" + bytes(40)
BAD = [b"GET / HT", b"OFT2\1\0\2\2xx", b"\x16\3\1", b"OFTX", GOOD[:3] + b"Z" + GOOD[4:], bytes(60)]
MASK = 0xFFFFFFFF
Answer = tuple[int, int, int]
"""Sequence number, acknowledgement, flags."""


class House:
    """The gate's host: every connection is to a pinhole for a file's sender."""

    def expected(self, inside: Endpoint) -> Sequence[Greeting]:
        return EXPECTED

    def is_inside_host(self, address: str) -> bool:
        return address.startswith("10.")

    def reset(self, key: bytes, seq: int, ack: int) -> None:
        pass

    def refused(self, connection: FlowId, reason: str) -> None:
        pass

    def claimed(self, connection: FlowId, now: float) -> None:
        pass


class Receiver:
    """The inside host's TCP."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.isn, self.listens = 7000, True
        self.read = b""
        self._next = self._base = 0
        self._kept: dict[int, int] = {}
        self._keeps_last = chance.random() < 0.5

    def takes(self, seg: Segment) -> list[Answer]:
        """What it says to this segment."""
        if self._chance.random() < 0.15:
            return []  # an old timestamp, a short time to live
        if seg.flags & RST:
            if not self.listens and seg.seq == self._next:
                self.listens, self.read, self._kept = True, b"", {}
            return []
        if seg.flags & SYN:
            return self._called(seg)
        if self.listens:
            return [(seg.ack, 0, RST)]
        return self._data(seg) if seg.flags & ACK else []

    def _called(self, seg: Segment) -> list[Answer]:
        if not self.listens:
            return [(self.isn + 1, self._next, ACK)]
        self.listens, self._base = False, seg.seq + 1 & MASK
        self._next, self.read, self._kept = self._base, b"", {}
        return [(self.isn, self._next, SYN | ACK)]

    def _data(self, seg: Segment) -> list[Answer]:
        data = seg.raw[seg.start :]
        for index, byte in enumerate(data):
            at = (seg.seq + index - self._base) & MASK
            if len(self.read) <= at < 1 << 20 and (self._keeps_last or at not in self._kept):
                self._kept[at] = byte
        while len(self.read) in self._kept:
            self.read += bytes([self._kept.pop(len(self.read))])
        self._next = self._base + len(self.read) & MASK
        return [(self.isn + 1, self._next, ACK)] if data or self._chance.random() < 0.5 else []


@dataclass
class Peer:
    """What comes from outside: *sent* is (flags, offset, data) of each segment."""

    chance: random.Random
    isn: int
    sent: list[tuple[int, int, bytes]] = field(default_factory=list)

    def segment(self, ack: int) -> bytes:
        r, kind = self.chance, self.chance.random()
        off, flags, data = r.choice([0, 0, 0, r.randrange(-3, 50), r.randrange(0, 12)]), ACK, b""
        if kind < 0.12:
            other = r.choice([1000, MASK - 3, self.isn + 5 & MASK, self.isn + 50 & MASK, self.isn - 7 & MASK])
            self.isn = r.choice([self.isn, self.isn, other])
            flags, off = SYN, -1
            data = r.choice([b"", b"", GOOD[:5], BAD[0]])
        elif kind < 0.5:
            source, size = r.choice([GOOD, GOOD, *BAD]), r.randrange(1, 20)
            data = source[off : off + size] if off >= 0 else bytes(-off) + source[:9]
        elif kind < 0.6:
            data = r.choice(BAD)
        else:
            flags, data = self._bare(kind)
        self.sent.append((flags, off, data))
        return packet(PEER, HOST, self.isn + 1 + off & MASK, ack, flags, data)

    @staticmethod
    def _bare(kind: float) -> tuple[int, bytes]:
        for below, flags, data in (
            (0.66, RST, b""),
            (0.72, RST | ACK, b""),
            (0.76, ACK | FIN, b""),
            (0.80, ACK | URG, GOOD[:4]),
        ):
            if kind < below:
                return flags, data
        return ACK, b""


def play(seed: int, counters: Counters) -> str:
    """One connection; what the host read that was not promised, and how, or ""."""
    r = random.Random(seed)
    gate, host = PeerGate(House(), counters, -1000.0), Receiver(r)
    peer, released, now = Peer(r, r.choice([1000, MASK - 3, MASK - 20])), False, 0.0
    for _ in range(r.randrange(5, 40)):
        now += 0.01
        raw = peer.segment(host.isn + 1)
        given = None if released else gate.process(raw, now)
        if given is not None and not given.accept:
            continue
        segment = Segment.parse(raw if given is None or given.payload is None else given.payload)
        if segment is None:
            continue
        answers = host.takes(segment)
        # connection tracking ends the entry with this reset, and the next SYN makes a new one
        released = released and not host.listens
        for seq, ack, flags in answers:
            if not released:
                released = gate.process(packet(HOST, PEER, seq & MASK, ack & MASK, flags), now).release
        # judged while it is undecided, and once more at its release: what was read must be what was promised
        if host.read and match(host.read, EXPECTED) is False:
            return f"seed {seed}: released {released}, the host read {host.read[:20]!r}; {peer.sent}"
    return ""


def main() -> None:
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 60000
    first = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    counters = Counters()
    found = next((text for seed in range(first, first + count) if (text := play(seed, counters))), "")
    released = counters.peers_verified
    verdict(
        bool(found), found or f"{count} connections, {released} verified", control=released > count // 1000
    )


if __name__ == "__main__":
    main()
