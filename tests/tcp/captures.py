"""Captures made to measure: scripted TCP conversations, pcap files, and what a capture's streams carried.

A test's capture is `Frames`: (seconds, Ethernet frame), in order of time.
"""

import os
import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

from tests.tcp.packets import ACK, FIN, PSH, SYN, Direction, Endpoint, Packet, mss, near, packet

Frames = list[tuple[float, bytes]]

ETHERNET = bytes.fromhex("02000000000202000000000108 00")
_IPV4, _TCP = b"\x08\0", 6


def write_pcap(
    path: str | os.PathLike[str],
    frames: Frames,
    *,
    order: str = "<",
    nanoseconds: bool = False,
    link: int = 1,
) -> None:
    """Write a classic pcap; `order` is struct's sign of the byte order."""
    magic, ticks = (0xA1B23C4D, 10**9) if nanoseconds else (0xA1B2C3D4, 10**6)
    parts = [struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 262144, link)]
    for time, data in frames:
        seconds, fraction = divmod(round(time * ticks), ticks)
        parts += [struct.pack(f"{order}IIII", seconds, fraction, len(data), len(data)), data]
    Path(path).write_bytes(b"".join(parts))


def read_frames(path: str | os.PathLike[str]) -> Frames:
    """The frames of a classic Ethernet capture that is not cut to a snapshot length."""
    data = Path(path).read_bytes()
    order = "<" if data[0] in b"\xd4\x4d" else ">"
    ticks = {0xA1B2C3D4: 10**6, 0xA1B23C4D: 10**9}[struct.unpack_from(f"{order}I", data)[0]]
    assert struct.unpack_from(f"{order}I", data, 20)[0] == 1
    frames, at = Frames(), 24
    while at < len(data):
        seconds, fraction, size, length = struct.unpack_from(f"{order}IIII", data, at)
        assert size == length
        frames.append((seconds + fraction / ticks, data[at + 16 : at + 16 + size]))
        at += 16 + size
    return frames


def tcp_in(frame: bytes) -> Packet | None:
    """The packet in an Ethernet frame, without what is behind it; None if it holds no whole TCP segment."""
    if frame[12:14] != _IPV4 or len(frame) < 34:
        return None
    header = (frame[14] & 15) * 4
    total, fragment = struct.unpack_from("!HxxH", frame, 16)
    raw = frame[14 : 14 + total]
    if raw[9] != _TCP or fragment & 0x3FFF or len(raw) < total or total < header + 20:
        return None
    found = Packet(raw)
    return found if found.start <= total else None


def tcp_frame(source: Endpoint, target: Endpoint, seq: int, ack: int, flags: int, data: bytes = b"") -> bytes:
    """A packet in its Ethernet frame."""
    return ETHERNET + packet(source, target, seq, ack, flags, data)


Side = Literal["client", "server"]


class Conversation:
    """One scripted TCP connection; `frames` grows with every call, one frame every `step` seconds.

    `send` writes a payload as one segment (cut at the offsets `cuts`) and lets the other side acknowledge it.
    With `timestamps` every segment carries the timestamp option (RFC 7323), its clock in milliseconds.
    """

    def __init__(
        self,
        client: Endpoint = ("10.0.0.5", 49152),
        server: Endpoint = ("203.0.113.9", 5190),
        *,
        start: float = 1_700_000_000.0,
        step: float = 0.01,
        seqs: tuple[int, int] = (1000, 0xFFFF_FF00),
        timestamps: bool = False,
    ) -> None:
        self.frames: Frames = []
        self.time = start
        self._step, self._timestamps = step, timestamps
        self._end: dict[Side, Endpoint] = {"client": client, "server": server}
        self._next: dict[Side, int] = {"client": seqs[0], "server": seqs[1]}
        self._clock: dict[Side, int] = {"client": 0, "server": 0}

    def emit(self, side: Side, flags: int, payload: bytes = b"") -> None:
        """One segment from `side`; its sequence number moves on by what the segment takes."""
        other: Side = "server" if side == "client" else "client"
        options = mss(1460) if flags & SYN else b""
        if self._timestamps:
            self._clock[side] = round(self.time * 1000) % 2**32
            options += b"\x01\x01\x08\x0a" + struct.pack(">II", self._clock[side], self._clock[other])
        ack = self._next[other] if flags & ACK else 0
        ends = self._end[side], self._end[other]
        raw = packet(*ends, self._next[side], ack, flags, payload, tcp_options=options)
        self.frames.append((self.time, ETHERNET + raw))
        self._next[side] += len(payload) + bool(flags & (SYN | FIN))
        self.time += self._step

    def open(self) -> "Conversation":
        self.emit("client", SYN)
        self.emit("server", SYN | ACK)
        self.emit("client", ACK)
        return self

    def send(
        self, side: Side, payload: bytes, *, cuts: tuple[int, ...] = (), acked: bool = True
    ) -> "Conversation":
        bounds = [0, *cuts, len(payload)]
        for begin, end in pairwise(bounds):
            self.emit(side, PSH | ACK, payload[begin:end])
        if acked:
            self.emit("server" if side == "client" else "client", ACK)
        return self

    def close(self, side: Side = "client") -> "Conversation":
        other: Side = "server" if side == "client" else "client"
        self.emit(side, FIN | ACK)
        self.emit(other, FIN | ACK)
        self.emit(side, ACK)
        return self


def streams(frames: Frames, *, strict: bool = False) -> dict[Direction, bytes]:
    """What each direction of every connection carried. The first copy of a byte wins, bytes never seen are 0.

    `strict` asserts that repeated bytes are equal. Connections that follow on the same ports are joined.
    """
    done: dict[Direction, bytes] = {}
    open_: dict[Direction, _Stream] = {}
    for _, frame in frames:
        segment = tcp_in(frame)
        if segment is None or not (segment.payload or segment.flags & SYN):
            continue
        key = segment.direction
        begin = segment.seq + bool(segment.flags & SYN)
        if key in open_ and segment.flags & SYN and open_[key].base != begin % 2**32:
            done[key] = done.get(key, b"") + open_.pop(key).joined(key, strict)
        stream = open_.setdefault(key, _Stream(begin % 2**32, bool(segment.flags & SYN), []))
        if segment.payload:
            stream.pieces.append((begin, segment.payload))
    for key, stream in open_.items():
        done[key] = done.get(key, b"") + stream.joined(key, strict)
    return {key: stream for key, stream in done.items() if stream}


@dataclass(slots=True)
class _Stream:
    base: int  # sequence number of the first byte, if `synced`; else of the first byte seen
    synced: bool
    pieces: list[tuple[int, bytes]]

    def joined(self, key: Direction, strict: bool) -> bytes:
        placed = [(near(seq - self.base, 0), data) for seq, data in self.pieces]
        first = 0 if self.synced else min((at for at, _ in placed), default=0)
        end = max((at + len(data) for at, data in placed), default=first)
        whole, seen = bytearray(max(end - first, 0)), bytearray(max(end - first, 0))
        for at, data in placed:
            skip = max(first - at, 0)  # a keep-alive probe repeats a byte before the first
            for position, byte in enumerate(data[skip:], at + skip - first):
                if not seen[position]:
                    whole[position], seen[position] = byte, 1
                elif strict:
                    assert whole[position] == byte, f"{key}: byte {position} is repeated differently"
        return bytes(whole)


def edited(stream: bytes, *edits: tuple[int, bytes]) -> bytes:
    """`stream` with the bytes from each offset on overwritten by the new ones of the same edit."""
    result = bytearray(stream)
    for offset, new in edits:
        assert offset + len(new) <= len(stream), f"an edit at {offset} overruns a stream of {len(stream)}"
        result[offset : offset + len(new)] = new
    return bytes(result)
