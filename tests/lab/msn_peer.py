"""The connection between two MSN clients: P2P's handshake and frames, or MSNFTP.

Segments of P2P's greeting as recorded from libpurple: 4, 4, 4 and 48 bytes. This module knows no servers.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from tests.lab.inhabitants import Streams
from tests.msn import direct, msnftp
from tests.msn.p2p import FLAG_FILE, Header, frames


class PeerError(RuntimeError):
    """The other end did not behave."""


async def exactly(reader: asyncio.StreamReader, size: int, what: str) -> bytes:
    """*size* bytes; PeerError if the connection ends before."""
    try:
        return await reader.readexactly(size)
    except asyncio.IncompleteReadError as error:
        raise PeerError(f"closed amid {what}, after {error.partial!r}") from None


async def _frame(reader: asyncio.StreamReader) -> bytes:
    return await exactly(reader, int.from_bytes(await exactly(reader, 4, "a length"), "little"), "a frame")


async def _shake(streams: Streams, nonce: str, message: int) -> None:
    """Send our handshake, in the segments of libpurple."""
    said = direct.handshake(message, nonce)
    for piece in (said[:4], said[4:]):
        streams[1].write(piece)
        await streams[1].drain()


async def greet(streams: Streams, nonce: str, message: int) -> None:
    """The side that connected; PeerError if the other one has another nonce."""
    for piece in (direct.FOO[:4], direct.FOO[4:]):
        streams[1].write(piece)
        await streams[1].drain()
    await _shake(streams, nonce, message)
    await _heard(streams, nonce)


async def greeted(streams: Streams, nonce: str, message: int) -> None:
    """The side that listened."""
    if await exactly(streams[0], len(direct.FOO), "the greeting") != direct.FOO:
        raise PeerError("no greeting")
    await _heard(streams, nonce)
    await _shake(streams, nonce, message)


async def _heard(streams: Streams, nonce: str) -> None:
    heard = direct.nonce_of(await _frame(streams[0]))
    if heard != nonce:
        raise PeerError(f"nonce {heard} instead of {nonce}")


async def send_p2p(streams: Streams, first: Header, content: bytes) -> None:
    """A file in frames, until it is acknowledged."""
    for header, data in frames(replace(first, flags=FLAG_FILE), content):
        streams[1].write(direct.framed(header.encode() + data))
        await streams[1].drain()
    answer = Header.decode(await _frame(streams[0]))
    if answer.ack != first.message or answer.ack_total != len(content):
        raise PeerError(f"acknowledged otherwise: {answer}")


async def receive_p2p(streams: Streams, message: int) -> bytes:
    """A file in frames; the acknowledgement is message number *message*."""
    content = b""
    while True:
        frame = await _frame(streams[0])
        header = Header.decode(frame)
        if header.offset != len(content) or header.size != len(frame) - 48:
            raise PeerError(f"out of order: {header} behind {len(content)} bytes")
        content += frame[48:]
        if len(content) >= header.total:
            streams[1].write(direct.framed(header.acknowledged(message).encode()))
            await streams[1].drain()
            return content


# --- MSNFTP ---


async def _line(reader: asyncio.StreamReader, first: str) -> str:
    """What follows that word on the next line."""
    line = (await reader.readline()).decode()
    word, _, rest = line.removesuffix("\r\n").partition(" ")
    if word != first or not line.endswith("\r\n"):
        raise PeerError(f"{line!r} instead of {first}")
    return rest


async def _introduced(streams: Streams, connected: bool) -> None:
    """Whoever connected says first which protocol it speaks."""
    if connected:
        streams[1].write(msnftp.GREETING)
    await _line(streams[0], "VER")
    if not connected:
        streams[1].write(msnftp.GREETING)


async def send_ftp(streams: Streams, connected: bool, auth: int, content: bytes) -> None:
    """The file's sender, whichever side *connected*."""
    reader, writer = streams
    await _introduced(streams, connected)
    said = await _line(reader, "USR")
    if said.rpartition(" ")[2] != str(auth):
        raise PeerError(f"AuthCookie {said}")
    writer.write(msnftp.line("FIL", len(content)))
    await _line(reader, "TFR")
    writer.write(msnftp.blocks(content))
    await writer.drain()
    await _line(reader, "BYE")


async def receive_ftp(streams: Streams, connected: bool, auth: int, mail: str) -> bytes:
    """The file's receiver."""
    reader, writer = streams
    await _introduced(streams, connected)
    writer.write(msnftp.line("USR", mail, auth))
    size = int(await _line(reader, "FIL"))
    writer.write(msnftp.line("TFR"))
    content = b""
    while (head := await exactly(reader, 3, "a block"))[0] == 0:
        content += await exactly(reader, int.from_bytes(head[1:], "little"), "a block")
    if len(content) != size:
        raise PeerError(f"{len(content)} of {size} bytes")
    writer.write(msnftp.line("BYE", 16777989))
    await writer.drain()
    return content
