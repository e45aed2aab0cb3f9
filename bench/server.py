"""``python -m bench.server ADDRESS PORT [PORT ...]``: the far end of everything that is measured.

The first bytes of a connection decide what it is for:
  2A          an OSCAR session: signed on, then every byte comes back, but of a proposal ends.ARRIVAL
  "OFT2"      a peer link: so many bytes as the header asks for are sent, then the link is closed
  "USER"      an FTP client: after its PORT and SIZE lines the server connects there and sends so many bytes
  anything    a sink: swallowed to the end, then answered with one byte
"""

from __future__ import annotations

import asyncio
import os
import re
import resource
import socket
import sys
import time

from bench import ends
from tests.oscar.flap import FLAP_KEEPALIVE, flap

CHUNK = bytes(1 << 18)
_RENDEZVOUS = 26  # offset of the ICBM channel in a frame: FLAP 6, SNAC 10, cookie 8


async def _session(first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Echo; a rendezvous is answered by a keep-alive frame with ends.ARRIVAL."""
    data = first + await reader.readexactly(len(ends.CLIENT_HELLO) - len(first))
    writer.write(ends.SERVER_HELLO)
    while True:
        data = await reader.read(1 << 16)
        arrived = time.monotonic()
        if not data:
            return
        if data[_RENDEZVOUS - 2 : _RENDEZVOUS] == b"\0\2" and data[8:10] == b"\0\6":
            # The echo's number is the frame's own: numbers stay in step.
            number = int.from_bytes(data[2:4], "big")
            data = flap(FLAP_KEEPALIVE, number, ends.ARRIVAL.pack(arrived, ends.checksum(data)))
        writer.write(data)


async def _peer(first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    header = first + await reader.readexactly(ends.PEER.size - len(first))
    await send(writer, ends.PEER.unpack(header)[4])


async def send(writer: asyncio.StreamWriter, size: int) -> None:
    """Send *size* zero bytes as fast as they go."""
    while size > 0:
        piece = CHUNK if size >= len(CHUNK) else CHUNK[:size]
        writer.write(piece)
        await writer.drain()
        size -= len(piece)


async def _swallow(writer: asyncio.StreamWriter) -> None:
    """Read to the end, past the stream reader, whose copies would take as long as what is measured."""
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    buffer = bytearray(1 << 18)
    with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as link:
        while await asyncio.get_running_loop().sock_recv_into(link, buffer):
            pass


async def _ftp(reader: asyncio.StreamReader) -> None:
    await reader.readline()
    line = (await reader.readline()).decode()
    found = re.match(r"PORT (\d+),(\d+),(\d+),(\d+),(\d+),(\d+)\r\n", line)
    assert found is not None, line
    numbers = [int(group) for group in found.groups()]
    size = int((await reader.readline()).split()[1])
    address = ".".join(map(str, numbers[:4]))
    _, writer = await asyncio.open_connection(address, numbers[4] << 8 | numbers[5])
    await send(writer, size)
    writer.close()
    await writer.wait_closed()


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        first = await reader.readexactly(4)
        if first[:1] == b"\x2a":
            await _session(first, reader, writer)
        elif first == b"OFT2":
            await _peer(first, reader, writer)
        elif first == b"USER":
            await _ftp(reader)
        else:
            await _swallow(writer)
            writer.write(b".")
        await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass  # the client has what it came for
    finally:
        writer.close()


async def main(address: str, ports: list[int]) -> None:
    """Serve until killed; "ready" on stdout when all ports are open."""
    servers = [await asyncio.start_server(_serve, address, port, backlog=4096) for port in ports]
    print("ready", flush=True)
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    asyncio.run(main(sys.argv[1], [int(port) for port in sys.argv[2:]]))
