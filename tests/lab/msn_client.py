"""A stand-in MSN client: signs on, talks, and sends files, as one of several kinds of clients does.

Every file that is offered is taken. What a client does of itself follows hypothetic.org, aMSN and Miranda for
MSNFTP, and recordings and the source of libpurple for P2P.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

from tests.lab import msn_transfer
from tests.lab.inhabitants import Inhabitants
from tests.lab.msn_link import MsnLink
from tests.lab.msn_peer import PeerError
from tests.lab.msn_server import MsnServer
from tests.lab.msn_talk import PATIENCE, Kind, Person, Talk
from tests.lab.net import LabError
from tests.msn import msnftp, slp
from tests.msn.commands import Command
from tests.msn.fields import Message, get, text
from tests.msn.msnftp import Endpoint
from tests.msn.slp import Addresses

MSN4 = Kind((7, 6, 5, 4), p2p=False)
"""MSNFTP; announces the address of its own socket."""
MIRANDA = Kind((12, 11, 10, 9, 8), p2p=False, outside=True)
"""MSNFTP; announces the address that the server sees, its own beside it, and the ports again, disguised."""
SHY = Kind((9, 8), p2p=False, reachable=False)
"""MSNFTP; says that nobody can connect to it, so the receiver listens."""
PURPLE = Kind((18,))
"""P2P as libpurple has it: announces the address of its own socket."""
OUTSIDE = Kind((15, 14, 13), outside=True)
"""P2P; announces the address that the server sees, and its own beside it."""
DEAF = Kind((18,), listens=False)
"""P2P; does not listen when a file is offered to it, so the sender does."""
KINDS = {"msn4": MSN4, "miranda": MIRANDA, "shy": SHY, "purple": PURPLE, "outside": OUTSIDE, "deaf": DEAF}


@dataclass(frozen=True)
class Outcome:
    """What came of a file: by which way it came, whole, and which endpoint the connecting client dialled."""

    ok: bool
    seconds: float
    way: str = ""
    dialled: str = ""
    reason: str = ""


class MsnClient:
    """One account on one node; ended with the lab. *port* is the first to listen on, 0 for its kind's own."""

    def __init__(self, here: Inhabitants, node: str, kind: Kind, name: str = "", port: int = 0) -> None:
        self.me = Person(here, node, f"{name or node + '1'}@lab.test", kind, port)
        self._here = here
        self._link: MsnLink | None = None
        self._replies: dict[str, asyncio.Future[Command]] = {}
        self.talks: list[Talk] = []
        """Those to which others have called this client."""
        self._names = itertools.count(1)

    # --- what tests and the demo do with it ---

    def sign_on(self, server: MsnServer | str) -> None:
        """Sign on at ``ADDRESS:PORT``, and stay on."""
        address = server if isinstance(server, str) else server.address
        self._here.run(self._sign_on(address))

    def sign_off(self) -> None:
        """Close the connection to the notification server, as closing the program does."""
        self._here.run(self._sign_off())

    def talk(self, to: MsnClient) -> Talk:
        """A new conversation, once the other one has joined it."""
        return self._here.run(self._open(to.me.mail))

    def says(self, to: MsnClient, words: str, talk: Talk | None = None) -> Outcome:
        """Say something, in a conversation of its own unless there is one, and wait until it is read."""
        return self._here.start(self._says(to, words, talk)).result(60.0)

    def send(self, to: MsnClient, content: bytes, talk: Talk | None = None) -> Outcome:
        """Send a file, in a conversation of its own unless there is one, and look for it at the other end."""
        return self.offer(to, content, talk).result(60.0)

    def offer(self, to: MsnClient, content: bytes, talk: Talk | None = None) -> Future[Outcome]:
        """The same without waiting for the outcome."""
        return self._here.start(self._send(to, content, talk))

    def fetch(self, of: MsnClient) -> Outcome:
        """Fetch the other one's display picture, as clients do when a conversation begins."""
        return self._here.run(self._fetch(of))

    def calls(self, to: MsnClient, port: int) -> None:
        """Say that it listens there by way of the notification server, as WLM does."""
        guid = self.me.guid()
        body = slp.transport_response(Addresses(self.me.own, port), guid)
        answer = slp.Dialogue(self.me.mail, to.me.mail, guid, guid).answer(slp.RESPONSE, body)
        payload = replace(answer, ended=False).encode()
        self._here.run(self._ask("UUN", to.me.mail, 3, payload=payload))

    def waits(self) -> Callable[[], None]:
        """From now on it connects to nobody, before what is returned is called."""
        gate = self.me.gate = asyncio.Event()

        async def go() -> None:
            gate.set()

        return lambda: self._here.run(go())

    def announces(self, talk: Talk, port: int, address: str = "") -> None:
        """Say by MSNFTP, out of the blue, that somebody listens there."""
        endpoint = Endpoint(address or self.me.own, port)
        self._here.run(talk.say(msnftp.listening(4711, endpoint, 1)))

    # --- notification server ---

    async def _connect(self, address: str, port: int) -> MsnLink:
        streams = await self._here.connect(self.me.node, address, port)
        return MsnLink(streams, client=True, mode=self.me.write)

    async def _sign_on(self, server: str) -> None:
        address, port = server.rsplit(":", 1)
        self._link = await self._connect(address, int(port))
        self.me.own = self._link.own_address
        self._here.keep(self._read())
        mail, dialects = self.me.mail, self.me.kind.dialects
        await self._ask("VER", *(f"MSNP{dialect}" for dialect in dialects), "CVR0")
        newest = dialects[0]
        if newest < 8:
            await self._ask("INF")
        else:
            await self._ask("CVR", "0x0409", "winnt", "5.1", "i386", "MSNMSGR", "8.5.1302", "BC01", mail)
        way = "MD5" if newest < 8 else "TWN" if newest < 15 else "SSO"
        asked = await self._ask("USR", way, "I", mail)
        if asked.name == "XFR":
            self._link.close()
            await self._sign_on(asked.words[3])
            return
        ticket = ("t=abc", "bm9uY2U=") if way == "SSO" else ("0123456789abcdef" * 2,)
        self._replies["profile"] = told = asyncio.get_running_loop().create_future()
        if (await self._ask("USR", way, "S", *ticket)).words[2] != "OK":
            raise LabError(f"{mail}: not signed on")
        await asyncio.wait_for(told, PATIENCE)
        if newest >= 13:
            await self._ask("ADL", payload=b"<ml l='1'></ml>")
        await self._ask("CHG", "NLN", *([] if newest < 8 else ["2416181284:00", 0]))

    async def _sign_off(self) -> None:
        assert self._link is not None
        self._link.send(Command(("OUT",)))
        self._link.close()

    async def _ask(self, name: str, *words: object, payload: bytes | None = None) -> Command:
        """Send a command, and wait for what has the same transaction id."""
        assert self._link is not None
        number = self._link.ask(name, *words, payload=payload)
        reply = self._replies[number] = asyncio.get_running_loop().create_future()
        try:
            return await asyncio.wait_for(reply, PATIENCE)
        except TimeoutError:
            raise LabError(f"{self.me.mail}: no answer to {name}") from None

    async def _read(self) -> None:
        assert self._link is not None
        async for one in self._link.commands():
            if one.name == "RNG":
                self._here.keep(self._answer(one))
            elif one.name == "CHL":
                self._link.ask("QRY", "PROD0090YUAUV{2B", payload=b"0123456789abcdef" * 2)
            elif one.name == "MSG":
                self._hear(Message.decode(one.payload or b""))
            elif reply := self._replies.pop(one.transaction, None):
                reply.set_result(one)

    def _hear(self, message: Message) -> None:
        if message.content_type == "text/x-msmsgsprofile":
            self.me.seen = get(message.headers, "ClientIP") or ""
            self._replies.pop("profile").set_result(Command(("MSG",)))

    # --- switchboards ---

    async def _enter(self, where: str) -> Talk:
        """Connect to a switchboard, and read it; OSError."""
        address, port = where.rsplit(":", 1)
        link = await self._connect(address, int(port))
        talk = Talk(self.me, link)
        talk.invited, talk.offered = msn_transfer.invited, msn_transfer.offered
        self._here.keep(talk.read())
        return talk

    def _who(self) -> str:
        guid = ";{1BE99E6D-1C6E-4BEA-8B3E-9C464006A774}" if self.me.kind.dialects[0] >= 16 else ""
        return self.me.mail + guid

    async def _open(self, to: str) -> Talk:
        """LabError if the switchboard is out of reach, or the other one does not come."""
        where, _, token = (await self._ask("XFR", "SB")).words[3:6]
        try:
            talk = await self._enter(where)
            await talk.answered(talk.link.ask("USR", self._who(), token))
            await talk.answered(talk.link.ask("CAL", to))
            async with talk.changed:
                await asyncio.wait_for(talk.changed.wait_for(lambda: to in talk.others), PATIENCE)
        except (TimeoutError, OSError) as error:
            raise LabError(f"{self.me.mail}: no talk with {to} at {where}: {type(error).__name__}") from None
        return talk

    async def _answer(self, one: Command) -> None:
        session, where, _, token = one.words[1:5]
        with contextlib.suppress(OSError):  # a switchboard out of reach: nothing becomes of the talk
            talk = await self._enter(where)
            await talk.answered(talk.link.ask("ANS", self._who(), token, session))
            self.talks.append(talk)

    async def _says(self, to: MsnClient, words: str, talk: Talk | None) -> Outcome:
        async def say() -> Outcome:
            used = talk or await self._open(to.me.mail)
            await used.say(text(words))
            for _ in range(200):
                if words in to.me.texts or not used.others:
                    break
                await asyncio.sleep(0.02)
            return Outcome(words in to.me.texts, 0.0, "direct", reason="not read")

        return await self._timed(say())

    async def _fetch(self, of: MsnClient) -> Outcome:
        async def fetch() -> Outcome:
            came = await msn_transfer.fetch_p2p(await self._open(of.me.mail))
            if came.content != of.me.picture:
                raise PeerError(f"{len(came.content)} bytes of {len(of.me.picture)}")
            return Outcome(True, 0.0, came.way, came.dialled)

        return await self._timed(fetch())

    async def _send(self, to: MsnClient, content: bytes, talk: Talk | None) -> Outcome:
        name = f"{self.me.mail}-{next(self._names)}.bin"

        async def send() -> Outcome:
            used = talk or await self._open(to.me.mail)
            offer = msn_transfer.offer_p2p if self.me.kind.p2p else msn_transfer.offer_ftp
            sent = await offer(used, name, content)
            came = await asyncio.wait_for(asyncio.shield(to.me.file(name)), PATIENCE)
            if came.content != content or came.way != sent.way:
                raise PeerError(f"{len(came.content)} bytes came, {came.way}, of {len(content)}")
            return Outcome(True, 0.0, sent.way, sent.dialled or came.dialled)

        return await self._timed(send())

    @staticmethod
    async def _timed(work: Coroutine[Any, Any, Outcome]) -> Outcome:
        """Its outcome with the time it took, also if it raises."""
        began = time.monotonic()
        try:
            outcome = await work
        except (msn_transfer.GivenUp, PeerError, LabError, OSError, TimeoutError) as error:
            outcome = Outcome(False, 0.0, reason=f"{type(error).__name__}: {error}")
        return replace(outcome, seconds=time.monotonic() - began)
