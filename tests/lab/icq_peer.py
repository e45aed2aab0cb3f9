"""The link between two ICQ clients, version 8: init packets of both sides, then obfuscated frames.

Layout and order as in the sources of climm and Licq. Every frame is u16 LE length and data; all integers are
little-endian but the addresses. The real obfuscation is replaced by a plain XOR with the cookie: no router
can read either. This module knows nothing of servers.
"""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass

from tests.lab.peer import Exchange, PeerError, digest
from tests.oscar.values import ip4

VERSION = 8
_INIT = struct.Struct("<BHHIHII4s4sBIIIII")
_ACK = b"\1\0\0\0"


@dataclass(frozen=True)
class Self:
    """What one side says of itself: its UIN, where it listens, and the cookie that it published."""

    uin: int
    address: str
    external: str
    port: int
    cookie: int


def init_packet(own: Self, peer_uin: int, cookie: int) -> bytes:
    """FF, version, 43, peer's UIN, port, own UIN, external and internal address, mode, port, cookie."""
    addresses = ip4(own.external), ip4(own.address)
    head = 0xFF, VERSION, 43, peer_uin, 0, own.port, own.uin
    return _INIT.pack(*head, *addresses, 4, own.port, cookie, 0x50, 3, 0)


async def send(writer: asyncio.StreamWriter, data: bytes) -> None:
    """One frame."""
    writer.write(struct.pack("<H", len(data)) + data)
    await writer.drain()


async def receive(reader: asyncio.StreamReader) -> bytes:
    """One frame."""
    (length,) = struct.unpack("<H", await reader.readexactly(2))
    return await reader.readexactly(length)


async def greet(writer: asyncio.StreamWriter, own: Self, peer_uin: int, cookie: int) -> None:
    """Send the init packet of the side whose listener's cookie is *cookie*."""
    await send(writer, init_packet(own, peer_uin, cookie))


async def greeted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, own: Self, cookie: int) -> int:
    """Read and acknowledge the other side's init packet; its UIN. Addresses are not checked, as there."""
    data = await receive(reader)
    if len(data) != _INIT.size:
        raise PeerError(f"init packet of {len(data)} bytes")
    kind, version, _, to, _, port, uin, _, _, _, again, given, *_ = _INIT.unpack(data)
    if (kind, version, to, given, port) != (0xFF, VERSION, own.uin, cookie, again):
        raise PeerError(f"init packet for {to} with cookie {given:#x}")
    await send(writer, _ACK)
    return int(uin)


async def acknowledged(reader: asyncio.StreamReader) -> None:
    """Wait for the acknowledgement of our init packet."""
    if await receive(reader) != _ACK:
        raise PeerError("init packet not acknowledged")


def veiled(data: bytes, cookie: int) -> bytes:
    """A frame's data so that nobody on the way sees what is in it; the same again undoes it."""
    key = struct.pack("<I", cookie ^ 0x5A5A5A5A)
    return bytes(byte ^ key[at & 3] for at, byte in enumerate(data))


async def dialled(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    own: Self,
    peer_uin: int,
    cookie: int,
    text: bytes,
) -> Exchange:
    """The part of the side that opened the connection: greet, be greeted, one message and its answer."""
    await greet(writer, own, peer_uin, cookie)
    await acknowledged(reader)
    if await greeted(reader, writer, own, cookie) != peer_uin:
        raise PeerError("somebody else answers")
    await send(writer, b"\2" + veiled(text, cookie))
    answer = veiled((await receive(reader))[1:], cookie)
    return Exchange(sent=digest(text), received=digest(answer))


async def answered(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, own: Self
) -> tuple[int, Exchange]:
    """The part of the side that listens; the UIN of the one that called."""
    uin = await greeted(reader, writer, own, own.cookie)
    await greet(writer, own, uin, own.cookie)
    await acknowledged(reader)
    text = veiled((await receive(reader))[1:], own.cookie)
    answer = b"you wrote: " + text
    await send(writer, b"\2" + veiled(answer, own.cookie))
    await reader.read(1)  # the other side closes once it has the answer
    return uin, Exchange(sent=digest(answer), received=digest(text))
