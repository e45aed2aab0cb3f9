"""One conversation of an MSN client on a switchboard: messages, P2P frames, and who waits for which."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from tests.lab.inhabitants import Inhabitants
from tests.lab.link import WriteMode
from tests.lab.msn_link import MsnLink
from tests.msn import p2p, slp
from tests.msn.commands import Command
from tests.msn.fields import Fields, Message, get
from tests.msn.msnftp import INVITATION, fields_of
from tests.msn.p2p import Frame, Header
from tests.msn.slp import Slp

PATIENCE = 10.0
"""How long an answer is waited for, in seconds."""


@dataclass(frozen=True)
class Kind:
    """A kind of client.

    dialects   what it offers in VER, the newest first
    p2p        offers files by P2P; else by MSNFTP
    outside    announces the address that the server says it sees, and its own address in fields of their own
    listens    is ready to listen when a file is offered to it by P2P
    reachable  says of itself, as sender by MSNFTP, that it may be connected to
    """

    dialects: tuple[int, ...]
    p2p: bool = True
    outside: bool = False
    listens: bool = True
    reachable: bool = True


@dataclass(frozen=True)
class Received:
    """A file that has come: by which way ("direct" or "switchboard"), and if this end connected, whereto."""

    content: bytes
    way: str
    dialled: str = ""


@dataclass(eq=False)
class Person:
    """A client's user, and what all conversations of the client share.

    own, seen   address of its socket, and the one that the server says it sees
    port        the first port to listen on, 0 for any
    write       how its commands become segments
    refuses     says no to every file
    gate        connects to nobody before it is set
    cut_off     its connections to other clients lead nowhere
    complaints  what came that its client would not have understood, or that was not what had been sent
    """

    here: Inhabitants
    node: str
    mail: str
    kind: Kind
    port: int = 0
    own: str = ""
    seen: str = ""
    picture: bytes = b""
    received: dict[str, asyncio.Future[Received]] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    write: WriteMode = field(default_factory=WriteMode)
    refuses: bool = False
    gate: asyncio.Event | None = None
    cut_off: bool = False
    # As libpurple's unseeded rand(): every client makes the same identifiers in the same order.
    random: random.Random = field(default_factory=lambda: random.Random(0))
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(0x12200858))

    def guid(self) -> str:
        """A new one."""
        return "{" + str(uuid.UUID(int=self.random.getrandbits(128))).upper() + "}"

    def file(self, name: str) -> asyncio.Future[Received]:
        """The file of that name, when it has come."""
        return self.received.setdefault(name, asyncio.get_running_loop().create_future())


class Talk:
    """A conversation, once its connection is there."""

    def __init__(self, me: Person, link: MsnLink) -> None:
        self.me, self.link = me, link
        self.others: set[str] = set()
        self.changed = asyncio.Condition()
        self.invited: Callable[[Talk, Slp], Coroutine[Any, Any, None]]
        """What to do with an INVITE of P2P."""
        self.offered: Callable[[Talk, Fields], Coroutine[Any, Any, None]]
        """What to do with an INVITE of MSNFTP."""
        self.incoming: dict[int, Callable[[bytes], None]] = {}
        """Who takes what comes in a session, by its number."""
        self.offers: dict[str, str] = {}
        """Names of the files that were offered, by Call-ID; "" where the own picture was asked for."""
        self._answers: dict[str, asyncio.Future[Slp]] = {}
        self._replies: dict[str, asyncio.Future[Command]] = {}
        self._acknowledged: dict[int, tuple[int, asyncio.Future[None]]] = {}
        self._parts: dict[int, bytes] = {}
        self._cookies: dict[str, asyncio.Queue[Fields]] = {}

    @property
    def other(self) -> str:
        """Whom the talk is with."""
        return next(iter(self.others))

    async def read(self) -> None:
        """Take what comes until the connection ends."""
        with contextlib.suppress(OSError):
            async for one in self.link.commands():
                await self._take(one)
        async with self.changed:
            self.others.clear()
            self.changed.notify_all()

    async def _take(self, one: Command) -> None:
        if one.name in ("JOI", "IRO", "BYE"):
            mail = one.words[4 if one.name == "IRO" else 1].partition(";")[0]
            async with self.changed:
                if mail != self.me.mail:
                    (self.others.discard if one.name == "BYE" else self.others.add)(mail)
                self.changed.notify_all()
        elif one.name == "MSG":
            await self._hear(Message.decode(one.payload or b""))
        elif reply := self._replies.pop(one.transaction, None):
            reply.set_result(one)

    async def answered(self, number: str) -> Command:
        """The server's answer to the command with this transaction id."""
        reply = self._replies[number] = asyncio.get_running_loop().create_future()
        return await asyncio.wait_for(reply, PATIENCE)

    async def say(self, message: Message, kind: str = "N") -> None:
        """Send a message; of kind D it waits until the server has acknowledged it."""
        number = self.link.ask("MSG", kind, payload=message.encode())
        if kind == "D" and (await self.answered(number)).name != "ACK":
            raise OSError("the switchboard did not deliver it")

    async def _hear(self, message: Message) -> None:
        if message.content_type == "text/plain":
            async with self.changed:
                self.me.texts.append(message.body.decode())
                self.changed.notify_all()
        elif message.content_type == INVITATION:
            await self._hear_fields(fields_of(message))
        elif message.content_type == p2p.P2P:
            frame = Frame.of(message)
            if frame.to == self.me.mail:
                await self._hear_frame(frame)

    # --- MSNFTP ---

    async def _hear_fields(self, fields: Fields) -> None:
        cookie = get(fields, "Invitation-Cookie") or ""
        if get(fields, "Invitation-Command") == "INVITE":
            self.me.here.keep(self.offered(self, fields))
        else:
            self.about(cookie).put_nowait(fields)

    def about(self, cookie: int | str) -> asyncio.Queue[Fields]:
        """What is said about the invitation with this cookie, but the invitation itself."""
        return self._cookies.setdefault(str(cookie), asyncio.Queue())

    # --- P2P ---

    async def tell(self, text: Slp) -> None:
        """Send a text in one frame."""
        await self.send(Header(ack=self.me.random.getrandbits(32)), text.encode())

    async def ask(self, text: Slp) -> Slp:
        """Send an invitation, and wait for its answer."""
        answer = self._answers[text.branch] = asyncio.get_running_loop().create_future()
        await self.tell(text)
        return await asyncio.wait_for(answer, PATIENCE)

    async def send(self, header: Header, content: bytes, footer: int = 0) -> asyncio.Future[None]:
        """Send a message in as many frames as it takes; done when the other client has acknowledged it."""
        number = next(self.me.numbers)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._acknowledged[number] = len(content), done
        base = Header(header.session, number, flags=header.flags, ack=header.ack)
        for head, data in p2p.frames(base, content):
            await self.say(Frame(self.other, head, data, footer).message(), "D")
        return done

    async def _hear_frame(self, frame: Frame) -> None:
        header = frame.header
        if header.flags & p2p.FLAG_ACK:
            self._hear_acknowledgement(header)
        elif header.size != len(frame.data):
            self.me.complaints.append(f"{header.size} bytes announced, {len(frame.data)} there")
        else:
            before = self._parts.pop(header.message, b"")
            if header.offset != len(before):
                self.me.complaints.append(f"offset {header.offset} behind {len(before)} bytes")
            elif header.offset + header.size < header.total:
                self._parts[header.message] = before + frame.data
            else:
                self.acknowledge(header)
                await self._hear_whole(header, before + frame.data)

    async def _hear_whole(self, header: Header, content: bytes) -> None:
        if len(content) != header.total:
            self.me.complaints.append(f"{len(content)} bytes instead of {header.total}")
        if not header.session:
            await self._hear_text(Slp.decode(content))
        elif take := self.incoming.get(header.session):
            take(content)

    def acknowledge(self, header: Header) -> None:
        """Tell the other client that the message which ends with this frame is there."""
        frame = Frame(self.other, header.acknowledged(next(self.me.numbers)))
        self.link.ask("MSG", "D", payload=frame.message().encode())

    def _hear_acknowledgement(self, header: Header) -> None:
        size, done = self._acknowledged.pop(header.ack, (None, None))
        if size != header.ack_total or header.total not in (0, size):
            self.me.complaints.append(f"{header.ack_total} and {header.total} bytes acknowledged of {size}")
        if done is not None:
            done.set_result(None)

    async def _hear_text(self, text: Slp) -> None:
        if text.length is not None:
            self.me.complaints.append(f"Content-Length {text.length} of {text.content_type}")
        if text.start.startswith("MSNSLP/1.0"):
            if answer := self._answers.pop(text.branch, None):
                answer.set_result(text)
        elif text.start.startswith("INVITE"):
            self.me.here.keep(self.invited(self, text))

    def answer(self, text: Slp) -> slp.Dialogue:
        """Who answers an invitation."""
        return slp.Dialogue(self.me.mail, self.other, text.branch, text.call)
