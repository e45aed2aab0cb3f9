"""A stand-in MSN server: a notification server and a switchboard server on two ports, as Escargot has them.

Everybody may sign on under any name and is online for everybody. Dialects MSNP2 to 18 with their three kinds
of sign-on; what is relayed passes unchanged. A switchboard closes on a message over 1664 bytes. Order and
form of the answers as recorded from Escargot.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from tests.lab.inhabitants import Inhabitants
from tests.lab.link import WriteMode
from tests.lab.msn_link import MsnLink
from tests.lab.net import SERVER
from tests.msn.commands import Command, command
from tests.msn.fields import profile

NS_PORT, SB_PORT = 1863, 1864
LARGEST = 1664
"""The longest message that a switchboard relays, in bytes."""
_POLICIES = b'<Policies>\r\n\t<Policy type="P2P"><ObjStr SndDly="1" /></Policy>\r\n</Policies>'
_ECHOED = frozenset("BLP CHG GTC PRP SBP".split())


@dataclass(eq=False)
class Account:
    """Somebody who is signed on."""

    mail: str
    dialect: int
    link: MsnLink

    @property
    def nick(self) -> str:
        """The part before the @."""
        return self.mail.partition("@")[0]

    def named(self, host: str) -> list[str]:
        """What follows an announcement of a switchboard in this dialect."""
        return ["U", host, "1"] if self.dialect >= 14 else ["U", host] if self.dialect == 13 else []


@dataclass(eq=False)
class Board:
    """One conversation: who is in it, by mail."""

    name: str
    members: dict[str, MsnLink] = field(default_factory=dict)


class MsnServer:
    """Both servers on *address* of *node*; *announced* is the host that XFR and RNG name.

    ports   of the notification server and the switchboard server; they may be one, as Microsoft's were
    behind  if not 0, the port of a dispatch server, which sends everybody on to the notification server
    write   how its commands become segments, from the next connection on
    """

    write = WriteMode()

    def __init__(
        self,
        here: Inhabitants,
        node: str = "server",
        address: str = SERVER,
        announced: str = "",
        ports: tuple[int, int] = (NS_PORT, SB_PORT),
        behind: int = 0,
    ) -> None:
        self.address = f"{address}:{behind or ports[0]}"
        self.relayed: deque[tuple[str, bytes]] = deque(maxlen=500)
        """Who said it, and the payload, as it arrived here."""
        self.dropped: list[str] = []
        """Who was cut off, and why."""
        self._session, self._announced = (f"{announced or address}:{port}" for port in ports)
        self.here = here
        self._accounts: dict[str, Account] = {}
        self._invited: dict[str, tuple[str, Board]] = {}
        self._boards: list[Board] = []
        self._sessions = itertools.count(1)
        for port in set(ports):
            here.run(here.listen(node, address, port, self._serve))
        if behind:
            here.run(here.listen(node, address, behind, self._dispatch))

    def said(self, word: bytes) -> list[bytes]:
        """The relayed payloads that hold *word*."""
        return [payload for _, payload in self.relayed if word in payload]

    def close_boards(self) -> None:
        """End every conversation."""

        async def close() -> None:
            for board in self._boards:
                for link in board.members.values():
                    link.close()

        self.here.run(close())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Either server, on whichever port: the first command says which one is meant."""
        link = MsnLink((reader, writer), client=False, mode=self.write)
        commands = link.commands()
        try:
            first = await anext(commands, None)
        except (OSError, ValueError) as error:
            self.dropped.append(f"unknown: {error}")
            first = None
        if first is None:
            link.close()
        else:
            serve = self._notify if first.name == "VER" else self._switch
            await serve(link, _chained(first, commands))

    # --- notification server ---

    async def _notify(self, link: MsnLink, commands: AsyncIterator[Command]) -> None:
        account = Account("", 0, link)
        try:
            async for one in commands:
                if one.name == "OUT":
                    break
                self._answer(account, one)
        except (OSError, ValueError) as error:
            self.dropped.append(f"{account.mail}: {error}")
        finally:
            if self._accounts.get(account.mail) is account:
                del self._accounts[account.mail]
            link.close()

    async def _dispatch(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A dispatch server: it answers the first USR by the notification server's name, and closes."""
        link = MsnLink((reader, writer), client=False, mode=self.write)
        account = Account("", 0, link)
        async for one in link.commands():
            if one.name == "USR":
                more = ("U", "D") if account.dialect >= 13 else ("0", self.address)
                link.send(command("XFR", one.transaction, "NS", self._session, *more))
                break
            self._answer(account, one)
        link.close()

    def _answer(self, account: Account, one: Command) -> None:
        link, number = account.link, one.transaction
        if one.name == "VER":
            dialects = [int(word[4:]) for word in one.words[2:] if word.startswith("MSNP")]
            account.dialect = max(dialect for dialect in dialects if 2 <= dialect <= 18)
            link.send(command("VER", number, f"MSNP{account.dialect}"))
        elif one.name == "CVR":
            link.send(command("CVR", number, "8.5.1302", "8.5.1302", "8.5.1302", "http://a", "http://a"))
        elif one.name == "INF":
            link.send(command("INF", number, "MD5"))
        elif one.name == "USR":
            self._sign_on(account, one)
        elif one.name in _ECHOED:
            link.send(one)
            if one.name == "CHG":
                self._introduce(account)
        elif one.name == "XFR":
            self._open(account, number)
        elif one.name == "UUN":
            self._pass_on(account, one)
        else:
            link.send(*_plain(one, account.dialect))

    def _sign_on(self, account: Account, one: Command) -> None:
        """Ask for a ticket, and then believe it."""
        number, way, step = one.words[1:4]
        link = account.link
        if (way, step) == ("SHA", "A"):
            link.send(command("USR", number, "OK", account.mail, 0, 0))
        elif step == "I":
            account.mail = one.words[4]
            if account.dialect >= 13:
                link.send(command("GCF", 0, payload=_POLICIES))
            ticket = {
                "SSO": ("MBI_KEY_OLD", "bm9uY2U="),
                "TWN": ("lc=1033,id=507",),
                "MD5": ("1013928519.693957190",),
            }
            link.send(command("USR", number, way, "S", *ticket[way]))
        else:
            self._accounts[account.mail] = account
            named = [account.nick] if account.dialect < 10 else []
            last = {True: [], False: [1, 0]}[account.dialect < 8]
            link.send(command("USR", number, "OK", account.mail, *named, *last))
            if account.dialect >= 13:
                link.send(command("SBS", 0, "null"))
            seen = link.peer if account.dialect >= 8 else None
            link.send(command("MSG", "Hotmail", "Hotmail", payload=profile(seen).encode()))
            if account.dialect >= 6:
                link.send(command("CHL", 0, "15570131571988941333"))

    def _introduce(self, account: Account) -> None:
        """Tell everybody of everybody."""
        for other in self._accounts.values():
            if other is not account:
                other.link.send(*_online(account, other.dialect))
                account.link.send(*_online(other, account.dialect))

    def _open(self, account: Account, number: str) -> None:
        token = self._token(account.mail, Board(f"{next(self._sessions):x}a0b1c2d3e4f"))
        where = account.named("messenger.msn.com")
        account.link.send(command("XFR", number, "SB", self._announced, "CKI", token, *where))

    def _pass_on(self, account: Account, one: Command) -> None:
        """A UUN becomes a UBN of the other client; both name only the address of the account."""
        account.link.send(command("UUN", one.transaction, "OK"))
        if target := self._accounts.get(one.words[2].partition(";")[0]):
            self.relayed.append((account.mail, one.payload or b""))
            target.link.send(command("UBN", account.mail, one.words[3], payload=one.payload or b""))

    def _token(self, mail: str, board: Board) -> str:
        token = secrets.token_hex(10)
        self._invited[token] = mail, board
        return token

    # --- switchboards ---

    async def _switch(self, link: MsnLink, commands: AsyncIterator[Command]) -> None:
        mail, board = "", Board("")
        try:
            async for one in commands:
                if one.name in ("USR", "ANS"):
                    mail, board = self._enter(link, one)
                elif one.name == "CAL":
                    self._call(mail, board, link, one)
                elif one.name == "MSG":
                    self._relay(mail, board, link, one)
                elif one.name == "OUT":
                    break
                else:
                    raise ValueError(f"{one.name} on a switchboard")
        except (OSError, ValueError) as error:
            self.dropped.append(f"{mail}: {error}")
        finally:
            if board.members.get(mail) is link:
                del board.members[mail]
                for other, its in board.members.items():
                    for words in self._shown(mail, other):
                        its.send(command("BYE", words[0]))
            link.close()

    def _enter(self, link: MsnLink, one: Command) -> tuple[str, Board]:
        """USR opens a conversation, ANS joins one; ValueError for a ticket that was not given out."""
        who, token = one.words[2:4]
        mail, board = self._invited.pop(token, ("", Board("")))
        if not mail or mail != who.partition(";")[0]:
            raise ValueError(f"no such ticket: {who}")
        account = self._accounts[mail]
        if one.name == "USR":
            self._boards.append(board)
            link.send(command("USR", one.transaction, "OK", who, account.nick))
        else:
            there = [words for other in board.members for words in self._shown(other, mail)]
            for at, words in enumerate(there, 1):
                link.send(command("IRO", one.transaction, at, len(there), *words))
            link.send(command("ANS", one.transaction, "OK"))
            if account.dialect >= 18:
                link.send(command("JOI", *self._shown(mail, mail)[-1]))
            for other, its in board.members.items():
                for words in self._shown(mail, other):
                    its.send(command("JOI", *words))
        board.members[mail] = link
        return mail, board

    def _shown(self, mail: str, to: str) -> list[list[object]]:
        """How a member is shown to another one: from MSNP16 on once with its endpoint and once without."""
        dialect = self._accounts[to].dialect if to in self._accounts else 0
        nick = mail.partition("@")[0]
        if dialect < 12:
            return [[mail, nick]]
        if dialect < 16:
            return [[mail, nick, 1985855524]]
        guid = "{1be99e6d-1c6e-4bea-8b3e-9c464006a774}"
        return [[f"{mail};{guid}", nick, "2416181284:00"], [mail, nick, "2416181284:00"]]

    def _call(self, mail: str, board: Board, link: MsnLink, one: Command) -> None:
        called = self._accounts.get(one.words[2])
        if called is None:
            link.send(command(217, one.transaction))
            return
        link.send(command("CAL", one.transaction, "RINGING", board.name))
        token = self._token(called.mail, board)
        where = called.named("messenger.hotmail.com")
        nick = self._accounts[mail].nick
        called.link.send(command("RNG", board.name, self._announced, "CKI", token, mail, nick, *where))

    def _relay(self, mail: str, board: Board, link: MsnLink, one: Command) -> None:
        """ValueError for a message that is too long, which ends the connection."""
        payload = one.payload or b""
        if len(payload) > LARGEST:
            raise ValueError(f"a message of {len(payload)} bytes")
        self.relayed.append((mail, payload))
        others = [other for name, other in board.members.items() if name != mail]
        for other in others:
            other.send(command("MSG", mail, mail.partition("@")[0], payload=payload))
        if one.words[2] in "AD" and others:
            link.send(command("ACK", one.transaction))
        elif one.words[2] in "AND" and not others:
            link.send(command("NAK", one.transaction))


async def _chained(first: Command, rest: AsyncIterator[Command]) -> AsyncIterator[Command]:
    """*first*, and what comes behind it."""
    yield first
    async for one in rest:
        yield one


def _plain(one: Command, dialect: int) -> list[Command]:
    """What a notification server answers to commands that concern nobody else."""
    if one.name == "PNG":
        return [command("QNG", 60) if dialect >= 9 else command("QNG")]
    if one.name in ("ADL", "RML"):
        return [command(one.name, one.transaction, "OK")]
    if one.name == "UUX":
        return [command("UUX", one.transaction, 0)]
    if one.name == "QRY":
        return [command("QRY", one.transaction)]
    if one.name == "SYN":
        return [command("SYN", one.transaction, 0)]
    with contextlib.suppress(IndexError):
        return [command(200, one.transaction)]  # a syntax error
    return []


def _online(account: Account, dialect: int) -> list[Command]:
    """That somebody is there, as a client of this dialect is told it."""
    if dialect < 8:
        return [command("NLN", "NLN", account.mail, account.nick)]
    if dialect < 14:
        return [command("NLN", "NLN", account.mail, account.nick, 268435456)]
    who = f"1:{account.mail}" if dialect >= 18 else account.mail
    words = [who] if dialect >= 18 else [who, 1]
    online = command("NLN", "NLN", *words, account.nick, "2416181284:00", 0)
    return [online, command("UBX", *words, payload=b"")]
