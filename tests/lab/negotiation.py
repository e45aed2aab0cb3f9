"""One rendezvous as a client carries it out: propose, dial, counter-propose, give up.

Behaviour recorded from libpurple 2.12.1: the receiver dials 0x0004 and, only if it differs, 0x0003, both at
once, for 5 s; refused everywhere ends that at once; without 0x0004 or with port 0 it does not dial. Then it
listens itself and counter-proposes (same cookie, 0x000A + 1), the proposer dials in the same way, and when
that fails cancels. The accept (type 2) is sent by the side that connected, after it has connected. There is
no relay.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from typing import Any, Protocol

from tests.lab import peer
from tests.lab.link import WriteMode
from tests.oscar import rendezvous as rdv
from tests.oscar.profiles import Offer, Profile
from tests.oscar.rendezvous import Rendezvous

DIAL_SECONDS = 5.0
FIRST_PORT, LAST_PORT = 5190, 5290

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class GivenUp(Exception):
    """The rendezvous ended without a peer link; the text says why."""


class Control(Protocol):
    """What a negotiation needs of its client's control connection."""

    name: str
    profile: Profile

    @property
    def own_address(self) -> str: ...

    async def send_icbm(self, body: bytes, mode: WriteMode | None = None) -> None: ...

    async def send_decline(self, to: str, cookie: bytes, code: int) -> None: ...


class Listener:
    """The first free port of 5190-5290; accepts exactly one connection."""

    def __init__(self) -> None:
        self.accepted: asyncio.Future[Streams] = asyncio.get_running_loop().create_future()
        self.port = 0
        self._server: asyncio.Server | None = None

    async def open(self, first_port: int) -> Listener:
        """Bind; OSError if the whole range is taken."""
        for port in range(first_port, first_port + LAST_PORT - FIRST_PORT + 1):
            with contextlib.suppress(OSError):
                self._server = await asyncio.start_server(self._one, "0.0.0.0", port)
                self.port = port
                return self
        raise OSError("no free port")

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.accepted.done():
            writer.close()
            return
        self.accepted.set_result((reader, writer))
        self.close()

    def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
            self._server = None


async def dial(block: Rendezvous, tried: list[str], seconds: float = DIAL_SECONDS) -> Streams | None:
    """Dial the addresses of a proposal at the same time; the first connection wins. *tried* gets one line
    each."""
    verified, requester, port = (
        block.address(rdv.VERIFIED_IP),
        block.address(rdv.REQUESTER_IP),
        block.number(rdv.PORT),
    )
    if verified is None or port == 0:
        tried.append("not dialled: no verified address or no port")
        return None
    addresses = [verified, *([requester] if requester not in (None, verified) else [])]

    async def one(address: str | None) -> Streams:
        try:
            return await asyncio.wait_for(asyncio.open_connection(address, port), seconds)
        except (TimeoutError, OSError) as error:
            tried.append(f"{address}:{port} {type(error).__name__}")
            raise

    pending = {asyncio.create_task(one(address)) for address in addresses}
    won: Streams | None = None
    try:
        while pending and won is None:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if task.exception() is None and won is None:
                    won = task.result()
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
    return won


@dataclass
class Negotiation:
    """One rendezvous at one client, as proposer (``data`` is what it sends) or as receiver (``data`` is
    None)."""

    control: Control
    other: str
    cookie: bytes
    capability: bytes
    data: bytes | None = None
    file_name: str = "f.bin"
    first_port: int = FIRST_PORT
    proposal_mode: WriteMode | None = None
    redirect: bool = True
    patience: float = 30.0
    messages: asyncio.Queue[Rendezvous | str] = field(default_factory=asyncio.Queue)
    tried: list[str] = field(default_factory=list)

    async def propose(self) -> dict[str, Any]:
        """The proposer's side, to the end; returns the result."""
        return await self._timed("proposer", self._propose())

    async def answer(self, block: Rendezvous, delay: float = 0.0) -> dict[str, Any]:
        """The receiver's side, from the proposal to the end; returns the result."""
        return await self._timed("receiver", self._answer(block, delay))

    async def cancel(self) -> None:
        """Withdraw (type 1), from either side, and end."""
        await self.control.send_icbm(self.control.profile.cancel(self.other, self.cookie, self.capability))
        self.messages.put_nowait("cancelled here")

    # --- the two roles ----------

    async def _propose(self) -> dict[str, Any]:
        listener = await Listener().open(self.first_port)
        try:
            await self._offer(listener.port, 1)
            counter = await self._connection_or_message(listener)
            if isinstance(counter, tuple):
                return await self._talk(counter, "direct", opened_it=False)
            streams = await self._while_wanted(dial(counter, self.tried))
            if streams is None:
                await self.cancel()
                raise GivenUp("neither side could connect")
            await self._accept()
            return await self._talk(streams, "redirect", opened_it=True)
        finally:
            listener.close()

    async def _answer(self, block: Rendezvous, delay: float) -> dict[str, Any]:
        if delay:
            await self._while_wanted(asyncio.sleep(delay))
        streams = await self._while_wanted(dial(block, self.tried))
        if streams is not None:
            await self._accept()
            return await self._talk(streams, "direct", opened_it=True)
        if not self.redirect:
            raise GivenUp("could not connect")
        listener = await Listener().open(self.first_port)
        try:
            await self._offer(listener.port, block.number(rdv.SEQUENCE) + 1)
            streams = await self._connection_or_message(listener)
            if not isinstance(streams, tuple):
                raise GivenUp("proposer wants yet another way")
            return await self._talk(streams, "redirect", opened_it=False)
        finally:
            listener.close()

    # --- steps ----------

    async def _offer(self, port: int, stage: int) -> None:
        size = len(self.data or b"")
        offer = Offer(
            self.cookie, self.capability, self.control.own_address, port, stage, self.file_name, size
        )
        await self.control.send_icbm(self.control.profile.proposal(self.other, offer), self.proposal_mode)

    async def _accept(self) -> None:
        await self.control.send_icbm(self.control.profile.accept(self.other, self.cookie, self.capability))

    async def _next_proposal(self) -> Rendezvous:
        """The other side's next proposal; whatever ends the rendezvous raises GivenUp."""
        while True:
            message = await self.messages.get()
            if isinstance(message, str):
                raise GivenUp(message)
            if message.kind == rdv.CANCEL:
                raise GivenUp("cancelled by the other side")
            if message.kind == rdv.PROPOSE:
                return message

    async def _connection_or_message(self, listener: Listener) -> Streams | Rendezvous:
        """Wait for the peer to call or to propose."""
        proposal = asyncio.create_task(self._next_proposal())
        try:
            waiting: set[asyncio.Future[Any]] = {proposal, listener.accepted}
            done, _ = await asyncio.wait(waiting, timeout=self.patience, return_when=asyncio.FIRST_COMPLETED)
            if listener.accepted in done:
                return listener.accepted.result()
            if proposal in done:
                return proposal.result()
            raise GivenUp("nobody called")
        finally:
            proposal.cancel()
            await asyncio.gather(proposal, return_exceptions=True)

    async def _while_wanted(self, work: Any) -> Any:
        """Do *work* unless the rendezvous is ended meanwhile (GivenUp)."""
        task, end = asyncio.ensure_future(work), asyncio.create_task(self._next_proposal())
        try:
            await asyncio.wait({task, end}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done() and end.exception() is not None:
                end.result()
            return await task
        finally:
            for one in (task, end):
                one.cancel()
            await asyncio.gather(task, end, return_exceptions=True)

    async def _talk(self, streams: Streams, attempt: str, opened_it: bool) -> dict[str, Any]:
        reader, writer = streams
        host, port = writer.get_extra_info("peername")[:2]
        work = self._exchange(reader, writer, opened_it)
        try:
            exchange = await asyncio.wait_for(work, self.patience)
        finally:
            writer.close()
        return {"ok": True, "attempt": attempt, "peer": f"{host}:{port}", **vars(exchange)}

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, opened_it: bool
    ) -> peer.Exchange:
        if self.capability == rdv.DIRECT_IM:
            return await peer.direct_im(reader, writer, self.cookie, self.control.name, opened_it, self.data)
        if self.data is None:
            return await peer.receive_file(reader, writer, self.cookie)
        in_prompt = self.control.profile.cookie_in_prompt
        return await peer.send_file(reader, writer, self.cookie, self.data, self.file_name, in_prompt)

    async def _timed(self, role: str, work: Any) -> dict[str, Any]:
        began = time.monotonic()
        result: dict[str, Any] = {
            "ok": False,
            "attempt": "",
            "peer": "",
            "sent": "",
            "received": "",
            "reason": "",
        }
        try:
            result |= await work
        except GivenUp as error:
            result["reason"] = str(error)
        except (TimeoutError, OSError, EOFError, peer.PeerError) as error:
            result["reason"] = f"{type(error).__name__}: {error}"
        result |= {"role": role, "other": self.other, "tried": self.tried, "cookie": self.cookie.hex()}
        return result | {"seconds": time.monotonic() - began}
