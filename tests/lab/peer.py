"""Peer links as the clients speak them: OFT2 for files, ODC2 for direct IM. Contents are hashed at both ends.

The order of frames as recorded from libpurple 2.12.1: the file's sender speaks first whoever opened
the TCP connection; in a direct IM the side that opened it does. This module knows no rendezvous messages.
"""

from __future__ import annotations

import asyncio
import hashlib
import socket
from dataclasses import dataclass

from tests.oscar.peer_headers import (
    ACK,
    CONFIRM,
    DONE,
    ODC_HEAD,
    ODC_SIZE,
    PROMPT,
    OftHeader,
    odc_fields,
    odc_frame,
    oft_checksum,
    oft_header,
)


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


async def read_oft(reader: asyncio.StreamReader) -> OftHeader:
    """Read one OFT2 header."""
    start = await reader.readexactly(6)
    if start[:4] != b"OFT2":
        raise PeerError(f"not OFT2: {start.hex()}")
    head = start + await reader.readexactly(int.from_bytes(start[4:6]) - 6)
    return OftHeader.decode(head)


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


def _exactly(caller: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = caller.recv(size - len(data))
        if not more:
            raise PeerError("the connection ended")
        data += more
    return data


def begin_to_receive(caller: socket.socket, cookie: bytes) -> OftHeader:
    """The receiver's part up to its first message, over a connection that this process has made."""
    start = _exactly(caller, 6)
    prompt = OftHeader.decode(start + _exactly(caller, int.from_bytes(start[4:6]) - 6))
    caller.sendall(oft_header(ACK, cookie, prompt.size, prompt.checksum, prompt.name))
    return prompt


def receive_the_rest(caller: socket.socket, cookie: bytes, prompt: OftHeader) -> str:
    """The same from there on; the file's SHA-256."""
    data = _exactly(caller, prompt.size)
    checksum = oft_checksum(data)
    caller.sendall(oft_header(DONE, cookie, prompt.size, prompt.checksum, prompt.name, len(data), checksum))
    return digest(data)


async def receive_over(caller: socket.socket, cookie: bytes) -> str:
    """A file over a connection that this process has made; its SHA-256."""
    reader, writer = await asyncio.open_connection(sock=caller)
    try:
        return (await asyncio.wait_for(receive_file(reader, writer, cookie), 20)).received
    finally:
        writer.close()


async def read_odc(reader: asyncio.StreamReader, cookie: bytes) -> tuple[int, bytes]:
    """Read one ODC2 frame of this rendezvous; return flags and payload."""
    head = await reader.readexactly(ODC_SIZE)
    if not head.startswith(ODC_HEAD):
        raise PeerError(f"not ODC2: {head[:6].hex()}")
    given, flags, length = odc_fields(head)
    if given != cookie:
        raise PeerError("ODC2 frame of another rendezvous")
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
    greeting = odc_frame(cookie, own_name, flags=CONFIRM)
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
