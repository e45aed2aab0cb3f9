"""A stand-in Yahoo! Messenger client: offers files at its own web server, and fetches what it is offered.

Run as ``python -m tests.lab.yahoo_client --name alice1``; it is driven by JSON lines on its pipes, like
``tests.lab.client``. It announces the address of its own end of the connection to the server. Without a port
its web server listens on 80, and the URL says no port, as with Yahoo! Messenger 5; such a server answers
GET only. With ``head`` the receiver asks by HEAD first, in a connection of its own, as libpurple does.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import random
import re
import time
from typing import Any

from tests.lab.client import serve_orders
from tests.lab.yahoo_server import packets
from tests.yahoo.ymsg import AUTH, AUTHRESP, LOGOFF, LOGON, P2PFILEXFER, V9, VERIFY, offer, parse, url, ymsg

_URL = re.compile(rb"http://([0-9.]+)(?::([0-9]+))?(/.*)", re.DOTALL)
PATIENCE = 5.0  # seconds until a receiver gives up


class YahooClient:
    """One account."""

    def __init__(self, name: str) -> None:
        self.name = name.encode()
        self._writer: asyncio.StreamWriter | None = None
        self._session = 0
        self._on = asyncio.Event()
        self._told: dict[bytes, asyncio.Future[bytes]] = {}
        self._files: dict[bytes, bytes] = {}
        self._fetched: dict[bytes, asyncio.Future[str]] = {}
        self._servers: dict[int, asyncio.Server] = {}
        self._binding = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def command(self, order: dict[str, Any]) -> dict[str, Any]:
        """Carry out one order."""
        act = getattr(self, f"do_{order['cmd']}")
        arguments = {key: value for key, value in order.items() if key not in ("cmd", "id")}
        answer = await act(**arguments)
        return {"ok": True, **(answer or {})}

    async def do_sign_on(self, server: str, version: int = V9) -> None:
        """Sign on and stay on."""
        address, _, port = server.rpartition(":")
        reader, self._writer = await asyncio.open_connection(address, int(port))
        self._writer.write(ymsg(VERIFY, version=version, session=0))
        task = asyncio.create_task(self._read(reader, version))
        self._tasks.add(task)
        async with asyncio.timeout(10.0):
            await self._on.wait()

    async def do_sign_off(self) -> None:
        """Say so, and leave the connection open."""
        self._write(ymsg(LOGOFF, [(1, self.name)], session=self._session))

    async def do_offer(
        self,
        to: str,
        file: str,
        port: int | None,
        size: int = 3000,
        own: str = "",
        cuts: tuple[int, ...] = (),
    ) -> dict[str, Any]:
        """Offer a file of random bytes; the other end's wait_fetch ends with it.

        *own* is announced in place of the own address; *cuts*: the packet in pieces, 5 ms apart.
        """
        assert self._writer is not None
        path = b"/Messenger.%s.%s" % (self.name, file.encode())
        self._files[path] = random.Random(file).randbytes(size)
        self._fetched[path] = asyncio.get_running_loop().create_future()
        listened = 80 if port is None else port
        async with self._binding:
            if listened not in self._servers:
                self._servers[listened] = await asyncio.start_server(self._web, "0.0.0.0", listened)
        address = own or self._writer.get_extra_info("sockname")[0]
        packet = offer(url(address, port, path), to=to.encode())
        for low, high in zip([0, *cuts], [*cuts, len(packet)], strict=True):
            self._write(packet[low:high])
            await asyncio.sleep(0.005 if cuts else 0)
        return {"digest": hashlib.sha256(self._files[path]).hexdigest()}

    async def do_raw(self, data: str) -> None:
        """Send these bytes (hex) to the server."""
        self._write(bytes.fromhex(data))

    async def do_told(self, sender: str, file: str) -> dict[str, Any]:
        """The URL that this client was offered."""
        return {"url": (await self._url(sender, file)).decode()}

    async def do_fetch(self, sender: str, file: str, head: bool = False) -> dict[str, Any]:
        """Fetch what was offered."""
        found = _URL.fullmatch(await self._url(sender, file))
        assert found is not None
        address, port, path = found[1].decode(), int(found[2] or 80), found[3]
        began = time.monotonic()
        answer: dict[str, Any] = {"ok": False, "address": address, "port": port}
        try:
            async with asyncio.timeout(PATIENCE):
                if head:
                    await _ask(address, port, b"HEAD", path)
                body, peer = await _ask(address, port, b"GET", path)
            answer |= {"ok": True, "digest": hashlib.sha256(body).hexdigest(), "peer": peer}
        except (TimeoutError, OSError, EOFError, ValueError) as error:
            answer["reason"] = f"{type(error).__name__}: {error}"
        return {**answer, "seconds": time.monotonic() - began}

    async def do_served(self, file: str) -> dict[str, Any]:
        """Who has fetched this file, once somebody has."""
        async with asyncio.timeout(PATIENCE):
            return {"peer": await self._fetched[b"/Messenger.%s.%s" % (self.name, file.encode())]}

    def _write(self, data: bytes) -> None:
        assert self._writer is not None
        self._writer.write(data)

    async def _url(self, sender: str, file: str) -> bytes:
        async with asyncio.timeout(PATIENCE):
            return await self._slot(b"/Messenger.%s.%s" % (sender.encode(), file.encode()))

    def _slot(self, path: bytes) -> asyncio.Future[bytes]:
        return self._told.setdefault(path, asyncio.get_running_loop().create_future())

    async def _read(self, reader: asyncio.StreamReader, version: int) -> None:
        async for packet in packets(reader):
            told = parse(packet)
            if told.service == VERIFY:
                self._write(ymsg(AUTH, [(1, self.name)], version=version, session=0))
            elif told.service == AUTH:
                self._session = told.session
                answer = [(0, self.name), (6, b"x"), (96, b"x"), (1, self.name)]
                self._write(ymsg(AUTHRESP, answer, version=version, session=told.session))
            elif told.service == LOGON:
                self._on.set()
            elif told.service == P2PFILEXFER and (found := _URL.fullmatch(told.value(20))):
                slot = self._slot(found[3])
                if not slot.done():
                    slot.set_result(told.value(20))

    async def _web(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError, ValueError):
            method, path, *_ = (await reader.readuntil(b"\r\n\r\n")).split(b" ")
            body = self._files.get(path)
            status = b"404 Not Found" if body is None else b"200 OK"
            writer.write(b"HTTP/1.0 %s\r\nContent-Length: %d\r\n\r\n" % (status, len(body or b"")))
            if body is not None and method == b"GET":
                writer.write(body)
                if not self._fetched[path].done():
                    self._fetched[path].set_result(writer.get_extra_info("peername")[0])
            await writer.drain()
        writer.close()


async def _ask(address: str, port: int, method: bytes, path: bytes) -> tuple[bytes, str]:
    """The body of the answer, and the address that was reached."""
    reader, writer = await asyncio.open_connection(address, port)
    try:
        writer.write(b"%s %s HTTP/1.0\r\nHost: %s\r\n\r\n" % (method, path, address.encode()))
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in head:
            raise ValueError(head.split(b"\r\n")[0].decode())
        return await reader.read(), writer.get_extra_info("peername")[0]
    finally:
        writer.close()


async def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", required=True)
    await serve_orders(YahooClient(parser.parse_args().name))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main())
