"""Line: one direction of a played connection, and the judgement of every packet that leaves on it.

Knows the stream that its sender sent and the bytes that came in order; has never seen the engine's own maps.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count, takewhile
from typing import Final, Literal

from nfreaim.core.address import Endpoint
from tests.oscar.fields import Field, Reader
from tests.oscar.flap import SERVER, frames_of
from tests.tcp.judge import same_headers, same_place
from tests.tcp.packets import ACK, RST, SYN, Packet, Rest, near, packet, payload_at

Moves = Callable[[], Iterable[tuple[Endpoint, Endpoint]]]
"""The endpoints that may be exchanged for others on a line, as the pinholes that ever were say."""


@dataclass(slots=True)
class Line:
    """One direction.

    here, there the sender's endpoint and the other one
    base        sequence number of its first byte
    sent        what its sender sent
    steady      nobody sent two different bytes for one place
    resumed     the flow is one of an earlier daemon's life: what passes meanwhile need not be read
    blind       what the router has read of it, if it knows it, cannot be told: its edits are not judged
    before      the end of what left in that life: a repetition of it need not be edited as it was then
    edge        how far its receiver has offered to take what leaves, or None while nobody knows
    lie, window what its sender acknowledges wrongly (see Kind.LIE), and offers to take
    reader      what came in order since the flow is known
    edits       bytes that left with another value, by offset; same-length flows only
    left        every byte that left, by offset in what leaves; flows with the server inside only
    out_end     the end of what left and its receiver takes
    """

    here: Endpoint
    there: Endpoint
    way: int
    server_inside: bool
    base: int = 0
    sent: bytearray = field(default_factory=bytearray)
    steady: bool = True
    reader: Reader = field(init=False)
    edits: dict[int, int] = field(default_factory=dict)
    left: dict[int, int] = field(default_factory=dict)
    choices: dict[Field, list[bytes]] = field(default_factory=dict)
    out_end: int = 0
    resumed: bool = False
    blind: bool = False
    before: int = 0
    edge: int | None = None
    lie: int = 0
    window: int = 64240

    def __post_init__(self) -> None:
        self.forget()

    def begin(self, base: int) -> None:
        """A new connection."""
        self.base = base & 0xFFFFFFFF
        self.sent.clear()
        self.steady = True
        self.out_end = self.lie = 0
        self.window = 64240
        self.blind = True
        self.forget()

    def forget(self) -> None:
        """The router knows nothing of what passed before."""
        self.before = 0
        self.edge = None
        self.reader = Reader(self.way, self.server_inside)
        self.edits.clear()
        self.left.clear()
        self.choices.clear()

    def offset(self, seq: int) -> int:
        """The stream offset of a sequence number: the nearest to what came last."""
        return near(seq - self.base, len(self.reader.data))

    def packet(self, at: int, ack: int, flags: int, data: bytes = b"", options: bytes = b"") -> bytes:
        rest = Rest(tcp_options=options, window=self.window)
        return packet(self.here, self.there, self.base + at, ack, flags, data, **rest)

    def resume(self, skewed: bool) -> None:
        """The daemon starts again and goes on with the flow. Edits that changed no length are forgotten."""
        self.resumed = True
        self.reader.strict = False
        self.edge = None
        if not skewed:
            self.before = self.out_end
            self.edits.clear()
            self.choices.clear()

    def arrived(self, at: int, data: bytes) -> None:
        """Data reached the router: what is new and in order is read."""
        seen = len(self.reader.data)
        if self.resumed and seen < at < len(self.sent):  # what is missing passed, or will come
            self.blind = self.blind or not self.steady
            self.reader.feed(bytes(self.sent[seen:at]))
            seen = at
        if at <= seen < at + len(data):
            self.reader.feed(data[seen - at :])

    def judge(self, raw: bytes, out: bytes, counts: bool, moves: Moves) -> None:
        """What must hold for a packet that leaves; *counts*: its receiver takes it. Raises AssertionError."""
        blind = self.blind or (self.resumed and self.reader.broken)
        if self.server_inside:
            if out is not raw:
                same_headers(raw, out)
            if not blind:
                self._fits(raw, out)
            if counts and not blind:
                self._collect(out)
            return
        if blind:
            if out is not raw:
                same_place(raw, out)
            return
        came = Packet(raw)
        start, at = came.start, self.offset(came.seq)
        if out is not raw:
            same_place(raw, out)
            self._changed(at, raw[start:], out[start:], moves)
        elif self.edits and not came.flags & RST:  # what a reset carries is no part of the stream
            for x, value in self.edits.items():
                if at <= x < at + len(raw) - start:
                    assert raw[start + x - at] == value, f"byte {x} left edited, and as it came this time"

    def _changed(self, at: int, before: bytes, after: bytes, moves: Moves) -> None:
        seen = self.reader.data
        for x, (old, new) in enumerate(zip(before, after, strict=True), at):
            known = self.edits.get(x)
            if known is not None:
                assert new == known, f"byte {x} left as {known:#04x} and this time as {new:#04x}"
            elif old != new and not (0 <= x < len(seen) and new == seen[x]):
                # (A byte of another value than the first copy had may get that of the first copy.)
                self._edit(x, new, moves)

    def _edit(self, x: int, new: int, moves: Moves) -> None:
        fields = self.reader.within(x, x + 1)
        assert fields, f"byte {x} was changed, and it is in no address or port field"
        place = fields[0]
        choices = self.choices.get(place)
        if choices is None:
            old = bytes(self.reader.data[place.start : place.end])
            choices = list(candidates(place.format, old, moves()))
        self.choices[place] = [each for each in choices if each[x - place.start] == new]
        assert self.choices[place], f"byte {x}: {new:#04x} in {place} is of no pinhole"
        self.edits[x] = new

    def offered(self, ack: int, window: int) -> None:
        """Its receiver says so much."""
        place = near(ack - self.base - self.out_end, 0)
        if place <= 0x10000 and not self.blind:  # else nobody believes it
            self.edge = max(self.edge or 0, self.out_end + place + window)

    def _fits(self, raw: bytes, out: bytes) -> None:
        """Nothing is sent for beyond the window by what an edit added, but for a probe at its very edge."""
        at = self._place(out)
        added = Packet(raw).seq != Packet(out).seq or len(raw) != len(out)
        if at is not None and added and self.edge is not None and at != self.edge:
            assert at + len(out) - payload_at(out) <= self.edge, "more is sent than the window takes"

    def _collect(self, out: bytes) -> None:
        at = self._place(out)
        for x, byte in enumerate(out[payload_at(out) :] if at is not None else b"", at or 0):
            first = self.left.setdefault(x, byte)
            assert first == byte or not self.steady or x < self.before, (
                f"byte {x} left as {first:#04x}, now as {byte:#04x}"
            )

    def taken(self, out: bytes) -> None:
        """Its receiver gets *out*, and takes it."""
        at = self._place(out)
        if at is not None and at <= self.out_end:
            self.out_end = max(self.out_end, at + len(out) - payload_at(out))

    def _place(self, out: bytes) -> int | None:
        """Where the data of *out* stand in what leaves; None without any."""
        one = Packet(out)
        if one.flags & (SYN | RST) or not one.payload:
            return None
        return near(one.seq - self.base, self.out_end)

    def acknowledges(self, raw: bytes, other: Line) -> bool:
        """Whether the receiver of *raw*, which sends *other*, can have sent what it acknowledges."""
        one = Packet(raw)
        if not one.flags & ACK:
            return False
        return 0 <= near(one.ack - other.base, 0) <= max(len(other.sent), other.out_end) + 1

    def compare(self, reached: Endpoint, moves: Moves) -> None:
        """With the server inside: what left in all against what came in all, frame by frame."""
        if not self.steady or self.blind or (self.resumed and self.reader.broken):
            return
        out = bytes(self.left[x] for x in takewhile(self.left.__contains__, count()))
        came = bytes(self.reader.data)
        at = 0
        for before, after in zip(frames_of(came), frames_of(out), strict=False):
            if before != after:
                assert self.way == SERVER, "what a client outside says was changed"
                self._compare_frame(before, after, at, reached, moves)
            at += len(before)

    def _compare_frame(self, old: bytes, new: bytes, at: int, reached: Endpoint, moves: Moves) -> None:
        fields = self.reader.within(at, at + len(old))
        texts = {str(reached).encode(), reached.address.encode()}
        shift, pos = 0, 0
        expected = b""
        for place in fields:
            low, high = place.start - at, place.end - at
            value = old[low:high]
            if place.format == "host":
                size = int.from_bytes(new[low + shift - 2 : low + shift], "big")
                found = new[low + shift : low + shift + size]
                assert found == value or found in texts, f"a redirect to {found!r}"
                expected += old[pos : low - 2] + size.to_bytes(2, "big") + found
                shift += size - len(value)
            else:
                found = new[low + shift : high + shift]
                assert found == value or found in candidates(place.format, value, moves()), f"{place}"
                expected += old[pos:low] + found
            pos = high
        expected += old[pos:]
        expected = expected[:4] + (len(expected) - 6).to_bytes(2, "big") + expected[6:]
        assert new == expected, f"a frame left as {new.hex()} that came as {old.hex()}"


ORDERS: Final[dict[str, tuple[Literal["big", "little"], ...]]] = {
    "little32": ("little",),
    "port32": ("big",),
    "port": ("big", "little"),
    "~port": ("big", "little"),
}


def candidates(name: str, old: bytes, moves: Iterable[tuple[Endpoint, Endpoint]]) -> list[bytes]:
    """What may stand in a field in place of *old*."""
    size, flip = len(old), bytes(byte ^ 255 for byte in old)
    found: list[bytes] = []
    for before, after in moves:
        one, two = socket.inet_aton(before.address), socket.inet_aton(after.address)
        if name == "ip" and old == one:
            found.append(two)
        elif name == "~ip" and flip == one:
            found.append(bytes(byte ^ 255 for byte in two))
        elif name in ORDERS:
            value = flip if name == "~port" else old
            for order in ORDERS[name]:
                if value == before.port.to_bytes(size, order):
                    new = after.port.to_bytes(size, order)
                    found.append(bytes(byte ^ 255 for byte in new) if name == "~port" else new)
    return found
