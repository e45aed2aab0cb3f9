"""Line: one direction of a played connection, and the judgement of every packet that leaves on it.

Knows the stream that its sender sent and the bytes that came in order; has never seen the engine's own maps.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count, takewhile
from typing import Final

from nfreaim.core.flow import Endpoint
from tests.fuzz.fields import SERVER, Field, Reader, frames_of
from tests.unit.fakes import ones_sum, packet, payload_at, tcp_at

_DF: Final = 0x40
Moves = Callable[[], Iterable[tuple[Endpoint, Endpoint]]]
"""The endpoints that may be exchanged for others on a line, as the pinholes that ever were say."""


@dataclass(slots=True)
class Line:
    """One direction.

    here, there the sender's endpoint and the other one
    base        sequence number of its first byte
    sent        what its sender sent
    steady      nobody sent two different bytes for one place
    reader      what came in order since the flow is known
    edits       bytes that left with another value, by offset; same-length flows only
    left        every byte that left, by offset in what leaves; flows with the server inside only
    out_end     the end of what left
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

    def __post_init__(self) -> None:
        self.forget()

    def begin(self, base: int) -> None:
        """A new connection."""
        self.base = base & 0xFFFFFFFF
        self.sent.clear()
        self.steady = True
        self.out_end = 0
        self.forget()

    def forget(self) -> None:
        """The router knows nothing of what passed before."""
        self.reader = Reader(self.way, self.server_inside)
        self.edits.clear()
        self.left.clear()
        self.choices.clear()

    def offset(self, seq: int) -> int:
        """The stream offset of a sequence number: the nearest to what came last."""
        last = len(self.reader.data)
        return last + ((seq - self.base - last + 2**31) & 0xFFFFFFFF) - 2**31

    def packet(self, at: int, ack: int, flags: int, data: bytes = b"", options: bytes = b"") -> bytes:
        seq = (self.base + at) & 0xFFFFFFFF
        return packet(self.here, self.there, seq, ack & 0xFFFFFFFF, flags, data, tcp_options=options)

    def arrived(self, at: int, data: bytes) -> None:
        """Data reached the router: what is new and in order is read."""
        seen = len(self.reader.data)
        if at <= seen < at + len(data):
            self.reader.feed(data[seen - at :])

    def judge(self, raw: bytes, out: bytes, moves: Moves) -> None:
        """What must hold for a packet that leaves. Raises AssertionError."""
        if self.server_inside:
            if out is not raw:
                same_headers(raw, out)
            self._collect(raw, out)
            return
        start = payload_at(raw)
        at = self.offset(int.from_bytes(raw[tcp_at(raw) + 4 : tcp_at(raw) + 8], "big"))
        if out is not raw:
            same_place(raw, out)
            self._changed(at, raw[start:], out[start:], moves)
        elif self.edits:
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

    def _collect(self, raw: bytes, out: bytes) -> None:
        tcp, start = tcp_at(out), payload_at(out)
        if out[tcp + 13] & 6 or start == len(out):
            return
        at = int.from_bytes(out[tcp + 4 : tcp + 8], "big") - self.base
        at = self.out_end + ((at - self.out_end + 2**31) & 0xFFFFFFFF) - 2**31
        for x, byte in enumerate(out[start:], at):
            first = self.left.setdefault(x, byte)
            assert first == byte or not self.steady, f"byte {x} left as {first:#04x}, now as {byte:#04x}"
        if at <= self.out_end:
            self.out_end = max(self.out_end, at + len(out) - start)

    def compare(self, reached: Endpoint, moves: Moves) -> None:
        """With the server inside: what left in all against what came in all, frame by frame."""
        if not self.steady:
            return
        out = bytes(takewhile(lambda byte: byte is not None, map(self.left.get, count())))
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
        elif name in ("port", "port32", "little32", "~port"):
            value = flip if name == "~port" else old
            for order in (
                ("little",) if name == "little32" else ("big",) if name == "port32" else ("big", "little")
            ):
                if value == before.port.to_bytes(size, order):
                    new = after.port.to_bytes(size, order)
                    found.append(bytes(byte ^ 255 for byte in new) if name == "~port" else new)
    return found


def same_place(raw: bytes, out: bytes) -> None:
    """Nothing but payload and TCP checksum differ, and the checksum is as right or wrong as it was."""
    tcp, start = tcp_at(raw), payload_at(raw)
    assert len(out) == len(raw), "the length changed"
    assert out[: tcp + 16] == raw[: tcp + 16], "more than payload and TCP checksum changed"
    assert out[tcp + 18 : start] == raw[tcp + 18 : start], "more than payload and TCP checksum changed"
    assert error(out) == error(raw), "the checksum was right before, or wrong in another way"
    assert out != raw, "a packet that did not change is written back"


def same_headers(raw: bytes, out: bytes) -> None:
    """What no translation of sequence numbers may touch."""
    tcp, start = tcp_at(raw), payload_at(raw)
    assert out != raw, "a packet that did not change is written back"
    assert len(out) == int.from_bytes(out[2:4], "big"), "the length in the IP header is wrong"
    assert out[:2] + out[4:6] + out[8:10] + out[12:tcp] == raw[:2] + raw[4:6] + raw[8:10] + raw[12:tcp]
    allowed = {raw[6]} | ({raw[6] & ~_DF} if len(out) > len(raw) else set())
    assert (out[6] in allowed, out[7]) == (True, raw[7]), "fragmentation"
    assert (out[tcp : tcp + 4], out[tcp + 12 : tcp + 16], out[tcp + 18 : tcp + 20]) == (
        raw[tcp : tcp + 4],
        raw[tcp + 12 : tcp + 16],
        raw[tcp + 18 : tcp + 20],
    ), "ports, flags, window or urgent pointer changed"
    assert payload_at(out) == start, "the options have another size"
    assert error(out) == error(raw), "the checksum was right before, or wrong in another way"
    assert ones_sum(out[:tcp]) % 0xFFFF == ones_sum(raw[:tcp]) % 0xFFFF, "the IP checksum"
    if b"\x05" not in raw[tcp + 20 : start]:
        assert out[tcp + 20 : start] == raw[tcp + 20 : start], "options changed"


def error(raw: bytes) -> int:
    """By how much the TCP checksum is wrong."""
    tcp = tcp_at(raw)
    return ones_sum(raw[12:20] + b"\0\6" + (len(raw) - tcp).to_bytes(2, "big") + raw[tcp:]) % 0xFFFF
