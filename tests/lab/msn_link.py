"""One connection of an MSN client or server: commands out and in."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator

from tests.lab.link import WriteMode
from tests.msn.commands import Command, CommandReader, command


class MsnLink:
    """A notification server's or a switchboard's connection, seen from either end.

    mode  how commands become writes, each of which is a segment; pauses are none
    """

    def __init__(
        self,
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        client: bool,
        mode: WriteMode | None = None,
    ) -> None:
        self._reader, self.writer = streams
        self._mode = mode or WriteMode()
        self._waiting = b""
        self._commands = CommandReader(from_client=not client)
        self._numbers = itertools.count(1)

    @property
    def own_address(self) -> str:
        """Address of this end."""
        return str(self.writer.get_extra_info("sockname")[0])

    @property
    def peer(self) -> tuple[str, int]:
        """Address and port of the other end, as this one sees it."""
        address, port = self.writer.get_extra_info("peername")[:2]
        return str(address), int(port)

    def ask(self, name: str, *words: object, payload: bytes | None = None) -> str:
        """Send a client's command with the next transaction id, which is returned."""
        number = next(self._numbers)
        self.send(command(name, number, *words, payload=payload))
        return str(number)

    def send(self, *commands: Command) -> None:
        """Send commands; if nothing else is wanted in one write, as the real servers and clients do."""
        data = b"".join(one.encode() for one in commands)
        if self._mode.name == "coalesced":
            self._waiting += data
            asyncio.get_running_loop().call_later(0.005, self._flush)
        elif not self.writer.is_closing():
            for piece in self._mode.pieces(data):
                self.writer.write(piece)

    def _flush(self) -> None:
        if not self.writer.is_closing():
            self.writer.write(self._waiting)
        self._waiting = b""

    async def commands(self) -> AsyncIterator[Command]:
        """Each command until the other end closes; OSError, and ValueError for what is no MSN."""
        while data := await self._reader.read(65536):
            for one in self._commands.feed(data):
                yield one

    def close(self) -> None:
        """Close, and do not wait for it."""
        self._flush()
        self.writer.close()
