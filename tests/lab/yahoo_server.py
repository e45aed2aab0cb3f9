"""A stand-in Yahoo! Messenger server: sign-on, and relaying of what is about files and links.

Run as ``python -m tests.lab.yahoo_server --listen 203.0.113.9:5050`` in the server's namespace; it prints one
JSON line when it listens and ends when its stdin closes. What it relays it copies, as Escargot's front end
does: key 4 in place of 1, and no look at any URL or address. What is for nobody who is on goes nowhere.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator

from tests.yahoo.ymsg import (
    ACCEPT15,
    AUTH,
    AUTHRESP,
    HEAD,
    INFO15,
    LIST,
    LOGON,
    MAGIC,
    MESSAGE,
    OFFER15,
    P2PFILEXFER,
    PEERTOPEER,
    VERIFY,
    parse,
    relayed,
    ymsg,
)

RELAYED = frozenset({MESSAGE, P2PFILEXFER, PEERTOPEER, OFFER15, INFO15, ACCEPT15})


async def packets(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Whole packets, until the other end closes."""
    while True:
        try:
            head = await reader.readexactly(HEAD)
            if not head.startswith(MAGIC):
                return
            yield head + await reader.readexactly(int.from_bytes(head[8:10], "big"))
        except (asyncio.IncompleteReadError, ConnectionError):
            return


class YahooServer:
    """All sessions of one server, by name."""

    def __init__(self) -> None:
        self._online: dict[bytes, asyncio.StreamWriter] = {}
        self._next = 0x10000

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until it ends."""
        name, session = b"", self._next
        self._next += 1
        async for packet in packets(reader):
            sent = parse(packet)
            if sent.service == VERIFY:
                writer.write(ymsg(VERIFY, status=1, version=0, session=0))
            elif sent.service == AUTH:
                name = sent.value(1)
                challenge = [(1, name), (94, b"challenge"), (13, b"0")]
                writer.write(ymsg(AUTH, challenge, status=1, version=0, session=session))
            elif sent.service == AUTHRESP:
                self._online[name] = writer
                for service, pairs in ((LIST, [(87, b""), (89, name)]), (LOGON, [(1, name), (8, b"0")])):
                    writer.write(ymsg(service, pairs, version=0, session=session))
            elif sent.service in RELAYED and sent.value(5) in self._online:
                self._online[sent.value(5)].write(relayed(packet, session=session))
        if self._online.get(name) is writer:
            del self._online[name]
        writer.close()


async def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen", required=True)
    address, _, port = parser.parse_args().listen.rpartition(":")
    await asyncio.start_server(YahooServer().serve, address, int(port))
    print(json.dumps({"event": "ready"}), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main())
