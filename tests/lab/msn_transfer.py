"""How an MSN client sends and receives a file: who listens, who connects, and what if nobody gets through.

P2P: the receiver listens, or the sender where the receiver does not want to. The connecting side tries the
pair of the own network, then the other one, 5 s each (libpurple), or both at once (clients that announce the
outside address); then the file goes through the switchboard. A connection that is refused leaves libpurple
waiting for ever. MSNFTP: the sender listens, or the receiver where the sender says that it cannot be reached;
there is no second way.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tests.lab import msn_peer
from tests.lab.inhabitants import Streams
from tests.lab.msn_talk import PATIENCE, Person, Received, Talk
from tests.msn import msnftp, p2p, slp
from tests.msn.fields import Fields, get
from tests.msn.msnftp import Endpoint
from tests.msn.p2p import Header
from tests.msn.slp import Addresses, Dialogue, Slp

DIAL_SECONDS = 5.0
LISTEN_SECONDS = 15.0
FIRST_FTP_PORT = 6891

Pair = tuple[str, int]


class GivenUp(Exception):
    """No file came over; the text says why."""


@dataclass(frozen=True)
class Sent:
    """How a file left: "direct" or "switchboard", and if this end connected, whereto."""

    way: str
    dialled: str = ""


class Listener:
    """Accepts one connection."""

    def __init__(self) -> None:
        self.accepted: asyncio.Future[Streams] = asyncio.get_running_loop().create_future()
        self.port = 0
        self._server: asyncio.Server | None = None

    @classmethod
    async def open(cls, me: Person, first: int = 0) -> Listener:
        """On the first free port from *first* on, or for 0 from where the client listens, or any."""
        made = cls()
        first = me.port or first
        for port in range(first, first + 100) if first else (0,):
            with contextlib.suppress(OSError):
                made._server, made.port = await me.here.listen(me.node, "0.0.0.0", port, made._one)
                return made
        raise OSError("no free port")

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.accepted.done():
            writer.close()
            return
        self.accepted.set_result((reader, writer))
        self.close()

    async def connection(self) -> Streams | None:
        """The one connection; None if there is none in time."""
        try:
            return await asyncio.wait_for(asyncio.shield(self.accepted), LISTEN_SECONDS)
        except TimeoutError:
            return None
        finally:
            self.close()

    def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
            self._server = None


async def dial(me: Person, pairs: list[Pair], at_once: bool) -> tuple[Streams, str] | None:
    """A connection to one of these endpoints, and which; None if there is only silence.

    GivenUp for a client that does not get over being refused.
    """

    async def one(pair: Pair) -> tuple[Streams, str]:
        return await me.here.connect(me.node, *pair, seconds=DIAL_SECONDS), "{}:{}".format(*pair)

    if me.gate is not None:
        await me.gate.wait()
    if me.cut_off:
        return None
    for group in [pairs] if at_once else [[pair] for pair in pairs]:
        waiting = [asyncio.ensure_future(one(pair)) for pair in group]
        results = await _first(waiting)
        for result in results:
            if isinstance(result, tuple):
                return result
            if not at_once and not isinstance(result, TimeoutError):
                raise GivenUp(f"{group[0]} refuses, and this client waits for ever: {result}")
    return None


async def _first(tasks: Sequence[asyncio.Future[Any]]) -> list[Any]:
    """The first result that is no exception, alone, or else all exceptions."""
    try:
        for next_one in asyncio.as_completed(tasks):
            with contextlib.suppress(OSError, TimeoutError):
                return [await next_one]
    finally:
        for task in tasks:
            task.cancel()
    return await asyncio.gather(*tasks, return_exceptions=True)


# --- P2P ---


def addresses(me: Person, port: int) -> Addresses:
    """Where this client says that it listens."""
    return Addresses(me.seen, port, me.own, port) if me.kind.outside else Addresses(me.own, port)


def _nonce(text: Slp) -> str:
    return get(text.body, "Nonce") or slp.NO_NONCE


async def offer_p2p(talk: Talk, name: str, content: bytes) -> Sent:
    """Send a file."""
    me = talk.me
    session, streams, dialled = await _agreed_p2p(
        talk, lambda session: slp.file_session(session, name, len(content))
    )
    head = Header(session, next(me.numbers), flags=p2p.FLAG_FILE, ack=me.random.getrandbits(32))
    if streams is None:
        await asyncio.wait_for(await talk.send(head, content, p2p.FOOTER_FILE), PATIENCE)
        return Sent("switchboard")
    await msn_peer.send_p2p(streams, head, content)
    streams[1].close()
    return Sent("direct", dialled)


async def fetch_p2p(talk: Talk) -> Received:
    """Fetch the other one's display picture, directly or not at all."""
    _, streams, dialled = await _agreed_p2p(talk, slp.object_session)
    if streams is None:
        raise GivenUp("no connection")
    content = await msn_peer.receive_p2p(streams, next(talk.me.numbers))
    streams[1].close()
    return Received(content, "direct", dialled)


async def _agreed_p2p(talk: Talk, body: Callable[[int], Fields]) -> tuple[int, Streams | None, str]:
    """Invite the other one to a session, and to a connection: number, connection, and what was dialled."""
    me = talk.me
    session, call = me.random.getrandbits(31) | 1, me.guid()
    offer = Dialogue(me.mail, talk.other, me.guid(), call)
    if (await talk.ask(offer.invitation(slp.SESSION, body(session)))).start != slp.OK:
        raise GivenUp("declined")
    bridge = replace(offer, branch=me.guid())
    answer = await talk.ask(bridge.invitation(slp.REQUEST, slp.transport_request()))
    if get(answer.body, "Listening") != "true":
        return session, await _called(talk, replace(bridge, branch=me.guid())), ""
    found = await dial(me, Addresses.pairs(answer.body), me.kind.outside)
    if found is None:
        return session, None, ""
    await msn_peer.greet(found[0], _nonce(answer), next(me.numbers))
    return session, *found


async def _called(talk: Talk, bridge: Dialogue) -> Streams | None:
    """Listen as the file's sender, say so, and wait for the receiver."""
    me, nonce = talk.me, talk.me.guid()
    listener = await Listener.open(me)
    await talk.tell(
        bridge.invitation(slp.RESPONSE, slp.transport_response(addresses(me, listener.port), nonce))
    )
    streams = await listener.connection()
    if streams is not None:
        await msn_peer.greeted(streams, nonce, next(me.numbers))
    return streams


async def invited(talk: Talk, text: Slp) -> None:
    """Answer an invitation as the file's receiver, and take the file."""
    me, who = talk.me, talk.answer(text)
    if text.content_type == slp.SESSION:
        if me.refuses:
            await talk.tell(who.answer(slp.SESSION, (), slp.DECLINE))
            return
        _expect(talk, text)
        await talk.tell(who.answer(slp.SESSION, (("SessionID", get(text.body, "SessionID") or ""),)))
    elif text.content_type == slp.REQUEST and me.kind.listens:
        listener, nonce = await Listener.open(me), me.guid()
        body = slp.transport_response(addresses(me, listener.port), nonce)
        await talk.tell(who.answer(slp.RESPONSE, body))
        if streams := await listener.connection():
            await msn_peer.greeted(streams, nonce, next(me.numbers))
            await (_receive if talk.offers[text.call] else _show)(talk, text.call, streams, "")
    elif text.content_type == slp.REQUEST:
        await talk.tell(who.answer(slp.RESPONSE, slp.transport_response(None)))
    elif found := await dial(me, Addresses.pairs(text.body), me.kind.outside):
        await msn_peer.greet(found[0], _nonce(text), next(me.numbers))
        await _receive(talk, text.call, *found)


def _expect(talk: Talk, text: Slp) -> None:
    """Let what comes in that session be the file, if the file comes through the switchboard."""
    session = int(get(text.body, "SessionID") or 0)
    if get(text.body, "EUF-GUID") == slp.OBJECT_GUID:
        talk.offers[text.call] = ""
        return
    context = base64.b64decode(get(text.body, "Context") or "")
    name = context[20:].decode("utf-16-le", "replace").partition("\0")[0]
    talk.offers[text.call] = name
    talk.incoming[session] = lambda content: talk.me.file(name).set_result(Received(content, "switchboard"))


async def _receive(talk: Talk, call: str, streams: Streams, dialled: str) -> None:
    content = await msn_peer.receive_p2p(streams, next(talk.me.numbers))
    talk.me.file(talk.offers[call]).set_result(Received(content, "direct", dialled))
    streams[1].close()


async def _show(talk: Talk, call: str, streams: Streams, dialled: str) -> None:
    """Send one's own display picture."""
    await msn_peer.send_p2p(streams, Header(message=next(talk.me.numbers)), talk.me.picture)


# --- MSNFTP ---


def endpoint(me: Person, port: int) -> Endpoint:
    """Where this client says that it listens."""
    return Endpoint(me.seen, port, me.own, port, True) if me.kind.outside else Endpoint(me.own, port)


def _pairs(where: Endpoint) -> list[Pair]:
    inside = [(where.internal, where.internal_port or where.port)] if where.internal else []
    return [*inside, (where.address, where.port)]


async def offer_ftp(talk: Talk, name: str, content: bytes) -> Sent:
    """Send a file."""
    me = talk.me
    cookie, auth = me.random.getrandbits(31), me.random.getrandbits(31)
    await talk.say(msnftp.invite(cookie, name, len(content), me.kind.reachable))
    fields = await _agreed(talk, cookie)
    if get(fields, "Sender-Connect") == "TRUE":
        found = await dial(me, _pairs(Endpoint.of(fields)), at_once=True)
        if found is None:
            await talk.say(msnftp.cancel(cookie, "FAIL"))
            raise GivenUp("no connection")
        streams, dialled = found
        await msn_peer.send_ftp(streams, True, int(get(fields, "AuthCookie") or 0), content)
        return Sent("direct", dialled)
    listener = await Listener.open(me, FIRST_FTP_PORT)
    await talk.say(msnftp.listening(cookie, endpoint(me, listener.port), auth))
    over = asyncio.ensure_future(_agreed(talk, cookie))
    waiting: set[asyncio.Future[Any]] = {over, listener.accepted}
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if not listener.accepted.done():
            raise GivenUp(f"nobody connected: {over.exception() or over.result()}")
        streams = listener.accepted.result()
    finally:
        over.cancel()
        listener.close()
    await msn_peer.send_ftp(streams, False, auth, content)
    return Sent("direct")


async def _agreed(talk: Talk, cookie: int | str) -> Fields:
    """What the other one says next about this invitation; GivenUp if that is no."""
    fields = await asyncio.wait_for(talk.about(cookie).get(), LISTEN_SECONDS)
    if get(fields, "Invitation-Command") != "ACCEPT":
        raise GivenUp(f"cancelled: {get(fields, 'Cancel-Code')}")
    return fields


async def offered(talk: Talk, fields: Fields) -> None:
    """Answer an invitation as the file's receiver, and take the file."""
    me = talk.me
    cookie, name = get(fields, "Invitation-Cookie") or "", get(fields, "Application-File") or ""
    if me.refuses:
        await talk.say(msnftp.cancel(int(cookie), "REJECT"))
        return
    if get(fields, "Connectivity") == "N":
        listener, auth = await Listener.open(me, FIRST_FTP_PORT), me.random.getrandbits(31)
        await talk.say(msnftp.sender_connect(int(cookie), endpoint(me, listener.port), auth))
        if streams := await listener.connection():
            content = await msn_peer.receive_ftp(streams, False, auth, me.mail)
            me.file(name).set_result(Received(content, "direct"))
        return
    await talk.say(msnftp.accept(int(cookie)))
    with contextlib.suppress(GivenUp):
        fields = await _agreed(talk, cookie)
        found = await dial(me, _pairs(Endpoint.of(fields)), at_once=True)
        if found is None:
            await talk.say(msnftp.cancel(int(cookie), "FAIL"))
            return
        streams, dialled = found
        auth = int(get(fields, "AuthCookie") or 0)
        content = await msn_peer.receive_ftp(streams, True, auth, me.mail)
        me.file(name).set_result(Received(content, "direct", dialled))
