"""A small TCP: one end that sends a text and receives another, written from RFC 9293, RFC 2018 and RFC 5961.

It shares nothing with the code under test. Each end judges what reaches it: nothing may be acknowledged that
it did not send or that the other end does not have, no byte may come with two values, nothing behind a FIN.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Literal, NamedTuple

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
GARBAGE = 0xEE  # what a keep-alive may carry at an old position; no text has it
_WRAP = 1 << 32


Manner = Literal["cut", "refuse", "take"]


class Address(NamedTuple):
    host: bytes
    port: int


class Packet(NamedTuple):
    """A parsed packet; *blocks*: SACK. *forged*: nobody but an attacker sent it."""

    seq: int
    ack: int
    flags: int
    window: int
    blocks: list[tuple[int, int]]
    data: bytes
    forged: bool

    @classmethod
    def parse(cls, raw: bytes) -> Packet:
        total, forged = struct.unpack_from("!HH", raw, 2)
        assert total == len(raw), "the length in the IP header is wrong"
        assert folded(raw[:20]) == 0, "the IP checksum is wrong"
        pseudo = raw[12:20] + struct.pack("!HH", 6, len(raw) - 20)
        assert folded(pseudo + raw[20:]) == 0, "the TCP checksum is wrong"
        seq, ack, offset, flags, window = struct.unpack_from("!IIBBH", raw, 24)
        start, at = 20 + (offset >> 4) * 4, 40
        blocks = []
        while at < start:
            if raw[at] == 5:
                blocks = [struct.unpack_from("!II", raw, edge) for edge in range(at + 2, at + raw[at + 1], 8)]
            at += 1 if raw[at] == 1 else raw[at + 1]
        return cls(seq, ack, flags, window, blocks, raw[start:], bool(forged))


def folded(data: bytes) -> int:
    return int.from_bytes(data + b"\0" * (len(data) & 1), "big") % 0xFFFF


def build(
    source: Address,
    target: Address,
    seq: int,
    ack: int,
    flags: int,
    window: int = 0,
    options: bytes = b"",
    data: bytes = b"",
    forged: bool = False,
) -> bytes:
    """A whole packet with right checksums; DF is set."""
    size = 40 + len(options) + len(data)
    ends = source.host + target.host
    ip = struct.pack("!BBHHHBB", 0x45, 0, size, forged, 0x4000, 64, 6)
    offset = (20 + len(options)) << 2
    head = struct.pack("!HHIIBBH", source.port, target.port, seq % _WRAP, ack % _WRAP, offset, flags, window)
    tail = b"\0\0" + options + data
    ip += (0xFFFF - folded(ip + ends)).to_bytes(2, "big") + ends
    pseudo = ends + struct.pack("!HH", 6, size - 20)
    checksum = 0xFFFF - folded(pseudo + head + b"\0\0" + tail)
    return ip + head + checksum.to_bytes(2, "big") + tail


class Judge(NamedTuple):
    """What an end cannot know.

    fwd      where an original offset of what it sends stands in the edited stream
    theirs   the same of what it receives
    strict   a byte that comes again is the same byte
    """

    fwd: Callable[[int], int]
    theirs: Callable[[int], int]
    strict: bool


class End:
    """One end. Offsets count from the first byte after the SYN, each stream as this end knows it.

    una, nxt   acknowledged, and sent; a FIN takes one position
    got, later what arrived in order, and what lies behind a hole
    limit      most bytes that are received and not yet read
    manner     what becomes of a segment that ends beyond the window: it is cut there (RFC 9293), refused as a
               whole, or taken as a whole (both have been seen in Linux)
    patient    a FIN waits until everything before it is acknowledged
    dead       nobody is left behind the socket: whatever comes is answered with a reset
    """

    patient = dead = scolded = False
    manner: Manner = "cut"

    def __init__(
        self,
        here: Address,
        there: Address,
        isn: tuple[int, int],
        text: bytes,
        mss: int,
        limit: int,
        sack: bool,
    ) -> None:
        self.here, self.there = here, there
        self.base, self.peer_base = isn[0] + 1, isn[1] + 1
        self.text, self.mss, self.limit, self.sack = text, mss, limit, sack
        self.una = self.nxt = 0
        self.window, self.window_seq = 0, -1
        self.sacked: set[int] = set()
        self.got, self.later = bytearray(), dict[int, int]()
        self.read = 0
        self.fin_at: int | None = None
        self.ended = self.reset = False
        self.due = False
        self.told = 0
        self.out: Callable[[bytes], None] = lambda raw: None

    # --- sending ---

    @property
    def rcv_nxt(self) -> int:
        return len(self.got) + self.ended

    @property
    def free(self) -> int:
        return max(0, self.limit - (len(self.got) - self.read))

    @property
    def done(self) -> bool:
        """Everything was sent and acknowledged, and the other end has finished, too."""
        return self.reset or self.dead or (self.ended and self.una == len(self.text) + 1)

    def emit(self, at: int, data: bytes = b"", flags: int = ACK) -> None:
        options = b""
        if self.sack and self.later:
            options = self._sack()
        self.told = self.free
        self.due = False
        ack = self.peer_base + self.rcv_nxt
        self.out(build(self.here, self.there, self.base + at, ack, flags, self.told, options, data))

    def _sack(self) -> bytes:
        edges: list[list[int]] = []
        for at in sorted(self.later):
            if edges and edges[-1][1] == at:
                edges[-1][1] += 1
            else:
                edges.append([at, at + 1])
        blocks = [struct.pack("!II", *((self.peer_base + e) % _WRAP for e in edge)) for edge in edges[:3]]
        return bytes([1, 1, 5, 2 + 8 * len(blocks)]) + b"".join(blocks)

    def send(self, at: int, size: int) -> int:
        """Send up to *size* bytes from *at* on, as far as window and text go; the end of what was sent."""
        end = min(at + size, at + self.mss, len(self.text), self.una + self.window)
        last = end == len(self.text) and at <= end and (not self.patient or self.una >= end)
        if end > at or last:
            data = self.text[at : max(at, end)]
            self.emit(at, data, ACK | (PSH if data else 0) | (FIN if last else 0))
            self.nxt = max(self.nxt, end + last)
        return max(at, end)

    def send_ack(self) -> None:
        # From within the window, if it has become smaller than what was sent into it, as Linux does.
        self.emit(min(self.nxt, self.una + self.window + (self.nxt > len(self.text))))

    def alive(self, octets: int) -> None:
        """A keep-alive or window probe: an old position, with a byte that may be garbage."""
        if self.una == self.nxt and self.nxt <= len(self.text):
            self.emit(self.nxt - 1, bytes([GARBAGE])[:octets])
        else:
            self.emit(self.una - 1)

    def probe(self) -> None:
        """One byte into a closed window."""
        if self.window == 0 and self.una == self.nxt < len(self.text):
            self.emit(self.nxt, self.text[self.nxt : self.nxt + 1])
            self.nxt += 1

    def repeat(self) -> None:
        """What a time-out sends again: all that is not acknowledged, and what else the window allows."""
        at = self.una
        while at < len(self.text):
            if at in self.sacked:
                at += 1
                continue
            stop = next((x for x in range(at, at + self.mss) if x in self.sacked), at + self.mss)
            end = self.send(at, stop - at)
            if end == at:
                break
            at = end
        if at == len(self.text):
            self.send(at, 0)

    def die(self) -> None:
        self.dead = True
        self.emit(self.nxt, flags=RST | ACK)

    # --- receiving ---

    def receive(self, raw: bytes, other: End, judge: Judge) -> None:
        packet = Packet.parse(raw)
        at = near(packet.seq - self.peer_base, self.rcv_nxt)
        if self.dead:
            if not packet.flags & RST:
                self.emit(packet.ack - self.base, flags=RST)
            return
        if packet.flags & RST:
            self._receive_reset(packet, at, other, judge)
            return
        self._judge_ack(packet, other, judge)
        end = at + len(packet.data) + (packet.flags & FIN)
        right = self.rcv_nxt + self.free
        beyond = self.manner == "refuse" and at + len(packet.data) > max(right, self.rcv_nxt)
        if end < self.rcv_nxt or at > right or beyond:
            # Not acceptable: answered, and nothing else. Without data only now and then, as Linux does.
            self.due = self.due or bool(packet.data) or not self.scolded
            self.scolded = self.scolded or not packet.data
            return
        self._take_ack(packet, at)
        if packet.data or packet.flags & FIN:
            self.due = True
            self._take_data(packet, at, judge)

    def _receive_reset(self, packet: Packet, at: int, other: End, judge: Judge) -> None:
        if at != self.rcv_nxt:
            self.due = self.due or 0 < at - self.rcv_nxt < self.free
            return
        if packet.forged:
            meant = packet.window - 100  # where its sender put it; only the awaited position may be hit
            back = max(x for x in range(other.nxt + 1) if judge.theirs(x) <= self.rcv_nxt)
            assert meant == back, f"a blind reset at {meant} was made to fit at {back}"
            return
        self.reset = True

    def _judge_ack(self, packet: Packet, other: End, judge: Judge) -> None:
        ack = near(packet.ack - self.base, self.una)
        assert ack <= self.nxt, f"{ack} is acknowledged, but only {self.nxt} was sent"
        assert judge.fwd(ack) <= other.rcv_nxt, f"{ack} is acknowledged, the receiver has not got it"
        for left, right in packet.blocks:
            low, high = near(left - self.base, self.una), near(right - self.base, self.una)
            assert low < high <= self.nxt, f"SACK of {low} to {high}, with {self.nxt} sent"
            for there in range(judge.fwd(low), judge.fwd(high)):
                assert there < other.rcv_nxt or there in other.later, f"SACK of {low} to {high} is not true"
            self.sacked.update(range(low, high))

    def _take_ack(self, packet: Packet, at: int) -> None:
        ack = near(packet.ack - self.base, self.una)
        fresh = ack > self.una
        self.una = max(self.una, ack)
        if fresh or at > self.window_seq or (at == self.window_seq and packet.window > self.window):
            self.window, self.window_seq = packet.window, at

    def _take_data(self, packet: Packet, at: int, judge: Judge) -> None:
        right = self.rcv_nxt + self.free
        if self.manner == "take" and at < right:
            right = max(right, at + len(packet.data))
        for place, byte in enumerate(packet.data, at):
            if place < len(self.got):
                assert not judge.strict or byte == GARBAGE or self.got[place] == byte, f"byte {place} differs"
            elif place < right:
                assert self.fin_at is None or place < self.fin_at, f"byte {place} stands behind the FIN"
                assert not judge.strict or self.later.setdefault(place, byte) == byte, f"byte {place} differs"
                self.later[place] = byte
        if packet.flags & FIN and not self.ended and at + len(packet.data) <= right:
            place = at + len(packet.data)
            assert self.fin_at in (None, place), f"the FIN moved from {self.fin_at} to {place}"
            assert not self.later or max(self.later) < place, "a FIN in the middle of the data"
            self.fin_at = place
        while len(self.got) in self.later:
            self.got.append(self.later.pop(len(self.got)))
        if self.fin_at == len(self.got):
            self.ended = True


def near(value: int, to: int) -> int:
    """*value* modulo 2**32, as the number nearest to *to*."""
    return to + (value - to + _WRAP // 2) % _WRAP - _WRAP // 2
