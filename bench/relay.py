"""``python -m bench.relay PORT PEER_PORT TARGET``: every byte through userspace, as ReAIM did it, in asyncio.

Connections to PORT were redirected by iptables and go on to where they were going (SO_ORIGINAL_DST); those to
PEER_PORT go to TARGET (address:port).
"""

from __future__ import annotations

import asyncio
import resource
import socket
import struct
import sys
from functools import partial

_SO_ORIGINAL_DST = 80


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


async def _relay(
    target: tuple[str, int] | None, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    try:
        link = writer.get_extra_info("socket")
        if target is None:
            port, address = struct.unpack_from("!2xH4s", link.getsockopt(socket.SOL_IP, _SO_ORIGINAL_DST, 16))
            target = socket.inet_ntoa(address), port
        far_reader, far_writer = await asyncio.open_connection(*target)
        for end in (link, far_writer.get_extra_info("socket")):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
        finally:
            far_writer.close()
    except ConnectionError:
        pass  # one end has gone: so goes the other
    finally:
        writer.close()


async def main(port: int, peer_port: int, target: tuple[str, int]) -> None:
    """Relay until killed; "ready" on stdout when the ports are open."""
    servers = [
        await asyncio.start_server(partial(_relay, to), "", number, backlog=4096)
        for number, to in ((port, None), (peer_port, target))
    ]
    print("ready", flush=True)
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    host, number = sys.argv[3].split(":")
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), (host, int(number))))
