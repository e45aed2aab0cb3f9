"""Captures made to measure: frames with right checksums, scripted TCP conversations, pcap files.

Stdlib and `nfreaim.capture` only. A test's capture is `Frames`: (seconds, Ethernet frame), in order of time.
"""

import ipaddress
import os
import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

from nfreaim.capture import Capture, network_offset

Frames = list[tuple[float, bytes]]
Endpoint = tuple[str, int]
Direction = tuple[str, int, str, int]  # source address and port, destination address and port

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
_ETHERNET = bytes.fromhex("02000000000202000000000108 00")
_MSS = bytes.fromhex("020405b4")


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
    """The frames of an Ethernet capture that is not cut to a snapshot length."""
    frames = list(Capture.load(path))
    assert all(frame.link == 1 and len(frame.data) == frame.length for frame in frames)
    return [(frame.time, frame.data) for frame in frames]


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    total: int = sum(struct.unpack(f">{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


@dataclass(frozen=True, slots=True)
class Tcp:
    """A TCP segment in its frame, taken apart so that it can be put together with other bytes in it.

    link, ip and tcp are the three headers (options included); bytes behind the IP packet are dropped.
    """

    link: bytes
    ip: bytes
    tcp: bytes
    payload: bytes

    @classmethod
    def parse(cls, frame: bytes) -> "Tcp | None":
        """None if the frame holds no whole TCP segment."""
        at = network_offset(1, frame)
        if at is None or len(frame) < at + 20:
            return None
        header = (frame[at] & 15) * 4
        total, fragment, protocol = *struct.unpack_from(">H2xH", frame, at + 2), frame[at + 9]
        packet = frame[at : at + total]
        if protocol != 6 or fragment & 0x3FFF or len(packet) < total or total < header + 20:
            return None
        behind = header + (packet[header + 12] >> 4) * 4
        if behind > total:
            return None
        return cls(frame[:at], packet[:header], packet[header:behind], packet[behind:])

    @property
    def direction(self) -> Direction:
        source, destination = (str(ipaddress.IPv4Address(self.ip[at : at + 4])) for at in (12, 16))
        sport, dport = struct.unpack_from(">HH", self.tcp)
        return source, sport, destination, dport

    @property
    def seq(self) -> int:
        return int.from_bytes(self.tcp[4:8])

    @property
    def ack(self) -> int:
        return int.from_bytes(self.tcp[8:12])

    @property
    def flags(self) -> int:
        return self.tcp[13]

    def frame(
        self, *, seq: int | None = None, flags: int | None = None, payload: bytes | None = None
    ) -> bytes:
        """The frame again, with what is given changed and lengths and checksums computed."""
        payload = self.payload if payload is None else payload
        seq, flags = self.seq if seq is None else seq % 2**32, self.flags if flags is None else flags
        tcp = self.tcp[:4] + seq.to_bytes(4) + self.tcp[8:13] + bytes([flags]) + self.tcp[14:16]
        tcp += bytes(2) + self.tcp[18:] + payload
        ip = self.ip[:2] + (len(self.ip) + len(tcp)).to_bytes(2) + self.ip[4:10] + bytes(2) + self.ip[12:]
        ip = ip[:10] + checksum(ip).to_bytes(2) + ip[12:]
        pseudo = ip[12:20] + struct.pack(">HH", 6, len(tcp))
        return self.link + ip + tcp[:16] + checksum(pseudo + tcp).to_bytes(2) + tcp[18:]


def tcp_frame(
    source: Endpoint,
    target: Endpoint,
    seq: int,
    ack: int,
    flags: int,
    payload: bytes = b"",
    options: bytes = b"",
) -> bytes:
    """An Ethernet frame with a TCP segment; `options` is padded to a multiple of four."""
    options += b"\x01" * (-len(options) % 4)
    addresses = b"".join(ipaddress.IPv4Address(address).packed for address, _ in (source, target))
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 0, 0, 0x4000, 64, 6, 0) + addresses
    offset = (20 + len(options)) // 4 << 4
    ports = struct.pack(">HH", source[1], target[1])
    tcp = ports + struct.pack(">IIBBHHH", seq % 2**32, ack % 2**32, offset, flags, 64240, 0, 0) + options
    return Tcp(_ETHERNET, ip, tcp, payload).frame()


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
        options = _MSS if flags & SYN else b""
        if self._timestamps:
            self._clock[side] = round(self.time * 1000) % 2**32
            options += b"\x01\x01\x08\x0a" + struct.pack(">II", self._clock[side], self._clock[other])
        ack = self._next[other] if flags & ACK else 0
        ends = self._end[side], self._end[other]
        self.frames.append((self.time, tcp_frame(*ends, self._next[side], ack, flags, payload, options)))
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
        segment = Tcp.parse(frame)
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
        placed = [((seq - self.base + 2**31) % 2**32 - 2**31, data) for seq, data in self.pieces]
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
