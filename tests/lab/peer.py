"""Peer links as the clients speak them: OFT2 for files, ODC2 for direct IM. Contents are hashed at both ends.

Headers and order of frames as recorded from libpurple 2.12.1: the file's sender speaks first whoever opened
the TCP connection; in a direct IM the side that opened it does. This module knows no rendezvous messages.
"""

from __future__ import annotations

import asyncio
import hashlib
import struct
from dataclasses import dataclass

PROMPT, ACK, DONE = 0x0101, 0x0202, 0x0204
_CONFIRM = 0x60  # flags of libpurple's first ODC2 frame
_EMPTY_CHECKSUM = 0xFFFF0000


class PeerError(RuntimeError):
    """The other end of the peer link did not behave."""


@dataclass(frozen=True)
class Exchange:
    """SHA-256 of what this end sent and of what it received ("" for nothing)."""

    sent: str = ""
    received: str = ""


def digest(data: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def oft_checksum(data: bytes) -> int:
    """OFT2's file checksum: subtract each byte (times 256 at even positions), carrying the borrow; in the
    top half."""
    total = 0xFFFF
    for position, byte in enumerate(data):
        before = total
        total = (total - (byte if position & 1 else byte << 8)) & 0xFFFFFFFF
        if total > before:
            total = (total - 1) & 0xFFFFFFFF
    for _ in range(2):
        total = (total & 0xFFFF) + (total >> 16)
    return (total << 16) & 0xFFFFFFFF


def oft_header(
    kind: int,
    cookie: bytes,
    size: int,
    checksum: int,
    name: str,
    received: int = 0,
    received_sum: int = _EMPTY_CHECKSUM,
) -> bytes:
    """256 bytes: "OFT2", u16 length, u16 type, cookie[8], counts, sizes, checksums, "Cool FileXfer", file
    name[64]."""
    head = b"OFT2" + struct.pack("!HH8sHHHHHH", 256, kind, cookie, 0, 0, 1, 1, 1, 1)
    head += struct.pack("!IIII", size, size, 0, checksum)
    head += struct.pack("!IIII", _EMPTY_CHECKSUM, 0, 0, _EMPTY_CHECKSUM)
    head += struct.pack("!II", received, received_sum) + b"Cool FileXfer".ljust(32, b"\0")
    return (head + bytes(3 + 69 + 16 + 4) + name.encode().ljust(64, b"\0")).ljust(256, b"\0")


@dataclass(frozen=True)
class OftHeader:
    """The fields of an OFT2 header that matter here."""

    kind: int
    cookie: bytes
    size: int
    checksum: int
    received: int
    received_sum: int
    name: str


async def read_oft(reader: asyncio.StreamReader) -> OftHeader:
    """Read one OFT2 header."""
    start = await reader.readexactly(6)
    if start[:4] != b"OFT2":
        raise PeerError(f"not OFT2: {start.hex()}")
    head = start + await reader.readexactly(int.from_bytes(start[4:6]) - 6)
    kind, cookie = struct.unpack_from("!H8s", head, 6)
    size, _, checksum = struct.unpack_from("!III", head, 32)
    received, received_sum = struct.unpack_from("!II", head, 60)
    name = head[192:].split(b"\0", 1)[0].decode("ascii", "replace")
    return OftHeader(kind, cookie, size, checksum, received, received_sum, name)


async def send_file(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    cookie: bytes,
    data: bytes,
    name: str,
    cookie_in_prompt: bool,
) -> Exchange:
    """The file sender's part: prompt, wait for ack, data, wait for done."""
    checksum = oft_checksum(data)
    prompt_cookie = cookie if cookie_in_prompt else bytes(8)
    writer.write(oft_header(PROMPT, prompt_cookie, len(data), checksum, name))
    answer = await read_oft(reader)
    if (answer.kind, answer.cookie) != (ACK, cookie):
        raise PeerError(f"expected the ack of this rendezvous, got type {answer.kind:#06x}")
    writer.write(data)
    await writer.drain()
    end = await read_oft(reader)
    if (end.kind, end.received, end.received_sum) != (DONE, len(data), checksum):
        raise PeerError(f"receiver reports {end.received} bytes, checksum {end.received_sum:#010x}")
    return Exchange(sent=digest(data))


async def receive_file(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, cookie: bytes) -> Exchange:
    """The receiver's part: wait for the prompt, ack, data, done."""
    prompt = await read_oft(reader)
    if prompt.kind != PROMPT or prompt.cookie not in (cookie, bytes(8)):
        raise PeerError(f"expected a prompt, got type {prompt.kind:#06x}")
    writer.write(oft_header(ACK, cookie, prompt.size, prompt.checksum, prompt.name))
    data = await reader.readexactly(prompt.size)
    checksum = oft_checksum(data)
    if checksum != prompt.checksum:
        raise PeerError("the file's checksum does not match the prompt")
    writer.write(oft_header(DONE, cookie, prompt.size, prompt.checksum, prompt.name, len(data), checksum))
    await writer.drain()
    return Exchange(received=digest(data))


def odc_frame(cookie: bytes, name: str, payload: bytes = b"", flags: int = 0) -> bytes:
    """76 bytes ("ODC2", u16 length, 1, 6, cookie[8], u32 payload length, charset, u32 flags, name[32]) and
    payload."""
    head = b"ODC2" + struct.pack("!HHHH8s8xI", 76, 1, 6, 0, cookie, len(payload))
    return head + struct.pack("!HHI4x", 0, 0, flags) + name.encode().ljust(32, b"\0") + payload


async def read_odc(reader: asyncio.StreamReader, cookie: bytes) -> tuple[int, bytes]:
    """Read one ODC2 frame of this rendezvous; return flags and payload."""
    head = await reader.readexactly(76)
    if head[:6] != b"ODC2\x00\x4c":
        raise PeerError(f"not ODC2: {head[:6].hex()}")
    if head[12:20] != cookie:
        raise PeerError("ODC2 frame of another rendezvous")
    (length,) = struct.unpack_from("!I", head, 28)
    (flags,) = struct.unpack_from("!I", head, 36)
    return flags, await reader.readexactly(length)


async def direct_im(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    cookie: bytes,
    own_name: str,
    opened_it: bool,
    text: bytes | None,
) -> Exchange:
    """Greet, then one message and its answer; *text* is the proposer's message, None makes this end
    answer."""
    greeting = odc_frame(cookie, own_name, flags=_CONFIRM)
    if opened_it:
        writer.write(greeting)
    await read_odc(reader, cookie)
    if not opened_it:
        writer.write(greeting)
    if text is not None:
        writer.write(odc_frame(cookie, own_name, text))
        _, answer = await read_odc(reader, cookie)
        return Exchange(sent=digest(text), received=digest(answer))
    _, message = await read_odc(reader, cookie)
    answer = b"you wrote: " + message
    writer.write(odc_frame(cookie, own_name, answer))
    await writer.drain()
    await reader.read(1)  # the proposer closes once it has the answer
    return Exchange(sent=digest(answer), received=digest(message))
