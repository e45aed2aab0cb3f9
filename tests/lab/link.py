"""A FLAP connection over asyncio whose writes can be cut exactly where a test wants them cut.

Each piece is one ``send`` with Nagle's algorithm off (unless told otherwise), hence one TCP segment as long
as the socket's buffer is empty.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import socket
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.oscar.flap import FLAP_SNAC, FlapReader, flap
from tests.oscar.snac import Snac

RING = 512


@dataclass
class WriteMode:
    """How frames become writes.

    ``whole``: one write per frame; ``oos``: 1+1+2+2+n bytes, as open-oscar-server v0.24.0 writes;
    ``coalesced``: frames that are ready within 5 ms go out in one write; ``random``: cut anywhere,
    reproducibly by *seed*; ``bytes``: one byte per write; ``cut``: at the offsets *cuts* from the frame's
    first byte; ``ring``: as libpurple, whose ring buffer of 512 bytes cuts a frame that crosses a multiple of
    512 bytes sent on the connection. *pause* seconds are waited between the pieces of a frame. *nagle* turns
    Nagle's algorithm on for the rest of the connection.
    """

    name: str = "whole"
    cuts: tuple[int, ...] = ()
    pause: float = 0.0
    seed: int = 1
    nagle: bool = False
    _random: random.Random = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.name not in ("whole", "oos", "coalesced", "random", "bytes", "cut", "ring"):
            raise ValueError(f"unknown write mode {self.name!r}")
        self._random = random.Random(self.seed)

    @classmethod
    def of(cls, given: dict[str, Any] | None) -> WriteMode:
        """From the JSON form ``{"name": ..., "cuts": [...], "pause": ..., ...}``."""
        given = dict(given or {})
        given["cuts"] = tuple(given.get("cuts", ()))
        return cls(**given)

    def pieces(self, frame: bytes, sent: int = 0) -> list[bytes]:
        """The frame, cut. *sent*: bytes that the connection has sent before."""
        cuts: Iterable[int] = self.cuts if self.name == "cut" else ()
        if self.name == "oos":
            cuts = (1, 2, 4, 6)
        elif self.name == "ring":
            cuts = range(-sent % RING, len(frame), RING)
        elif self.name == "bytes":
            cuts = range(1, len(frame))
        elif self.name == "random":
            count = min(len(frame) - 1, self._random.randint(0, 6))
            cuts = self._random.sample(range(1, len(frame)), count)
        edges = [0, *sorted({cut for cut in cuts if 0 < cut < len(frame)}), len(frame)]
        return [frame[a:b] for a, b in itertools.pairwise(edges)]


class FlapLink:
    """One FLAP connection: its sequence numbers, its reader and its write mode."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        sequence: int = 1,
        mode: WriteMode | None = None,
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.sequence = sequence
        self.mode = mode or WriteMode()
        self.sent = 0
        self._lock = asyncio.Lock()  # a frame sent in pieces with pauses must not be interleaved with another
        self._waiting = b""
        self._socket = writer.get_extra_info("socket")
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def own_address(self) -> str:
        """Address of this end."""
        return str(self.writer.get_extra_info("sockname")[0])

    @property
    def peer_address(self) -> str:
        """Address of the other end as seen from here."""
        return str(self.writer.get_extra_info("peername")[0])

    async def send(self, channel: int, data: bytes = b"", mode: WriteMode | None = None) -> None:
        """Send one frame; *mode* replaces the connection's own for this frame."""
        mode = mode or self.mode
        async with self._lock:
            frame = flap(channel, self.sequence, data)
            self.sequence = (self.sequence + 1) & 0x7FFF
            before, self.sent = self.sent, self.sent + len(frame)
            if mode.name == "coalesced":
                self._waiting += frame
                asyncio.get_running_loop().call_later(0.005, self._flush)
                return
            self._flush()
            if mode.nagle:
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
            for number, piece in enumerate(mode.pieces(frame, before)):
                if number and mode.pause:
                    await asyncio.sleep(mode.pause)
                self.writer.write(piece)
            await self.writer.drain()

    async def send_snac(self, snac: Snac, mode: WriteMode | None = None) -> None:
        """Send a SNAC on channel 2."""
        await self.send(FLAP_SNAC, snac.encode(), mode)

    async def send_raw(self, data: bytes) -> None:
        """Send bytes as they are, in one write."""
        async with self._lock:
            self.writer.write(data)
            await self.writer.drain()

    async def frames(self) -> AsyncIterator[tuple[int, bytes]]:
        """(channel, data) of each frame until the other end closes."""
        cutter = FlapReader()
        while data := await self.reader.read(65536):
            for channel, _, body in cutter.feed(data):
                yield channel, body

    async def close(self) -> None:
        """Flush, close, and do not complain."""
        self._flush()
        with contextlib.suppress(OSError, asyncio.CancelledError):
            self.writer.close()
            await self.writer.wait_closed()

    def _flush(self) -> None:
        if self._waiting and not self.writer.is_closing():
            self.writer.write(self._waiting)
        self._waiting = b""
