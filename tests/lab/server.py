"""A stand-in OSCAR server: sign-on, the few SNACs a client needs, and relaying of rendezvous messages.

Run as ``python -m tests.lab.server --listen 203.0.113.9:5190 --mode oos --write oos`` in the server's
namespace; it prints one JSON line when it listens and ends when its stdin closes. Mode ``oos`` does to a
proposal what open-oscar-server v0.24.0 does (recorded), mode ``aol`` what AOL's servers did (public
captures). Login, BOS and services share the one listener. It keeps nothing on disk and knows every account
by the one password.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import itertools
import json
import struct
import sys
import time
from dataclasses import dataclass, field

from tests.lab.link import FlapLink, WriteMode
from tests.oscar import rendezvous as rdv
from tests.oscar.flap import FLAP_SIGNOFF, FLAP_SIGNON, FLAP_SNAC
from tests.oscar.icbm import ICBM_ACK, ICBM_RDV, icbm_head, icbm_to_client, parse_icbm
from tests.oscar.rendezvous import Rendezvous
from tests.oscar.signon import VERSION, families
from tests.oscar.snac import EXTRA_BLOCK, Snac
from tests.oscar.tlv import Tlv, first_tlv, name8, parse_tlvs, take_name8, tlv, tlvs, user_info
from tests.oscar.values import WireError, ip4

PASSWORD = "pass1"
FAMILIES = (0x18, 0x10, 0x03, 0x13, 0x04, 0x15, 0x02, 0x01, 0x09, 0x0A, 0x06, 0x08, 0x0B)
ROAST = bytes.fromhex("f32681c43986db9271a3b9e6537a957c")  # FLAP logins: XOR with the password
CHALLENGE = b"ecf58983-f614-49a4-a526-c867b9cdd140"
_RATES = bytes.fromhex(
    "0001000100000050000009c4000007d0000005dc000003200000177000001770" + "0000000000" + "00010000"
)
_REPLIES = {  # request -> (reply subtype, body): what the client waits for, as small as it may be
    (0x01, 0x06): (0x07, _RATES),
    (0x13, 0x02): (0x03, b""),
    (0x13, 0x04): (0x06, bytes(7)),
    (0x13, 0x05): (0x06, bytes(7)),
    (0x02, 0x02): (0x03, tlv(1, b"\x10\x00")),
    (0x03, 0x02): (0x03, tlv(1, b"\x03\xe8")),
    (0x04, 0x04): (0x05, struct.pack("!HIHHHI", 4, 3, 512, 999, 999, 1000)),
    (0x09, 0x02): (0x03, tlvs([(2, b"\0d"), (1, b"\0d"), (3, b"\0d")])),
}


def normal_name(name: str) -> str:
    """Screen names are compared without spaces and without case."""
    return name.replace(" ", "").lower()


def strong_md5(key: bytes, password: str) -> bytes:
    """The BUCP password digest of AIM 4.8 and later (marked by TLV 0x004C)."""
    inner = hashlib.md5(password.encode()).digest()
    return hashlib.md5(key + inner + b"AOL Instant Messenger (SM)").digest()


def relayed(block: Rendezvous, mode: str, seen_as: str) -> Rendezvous:
    """What a server makes of a rendezvous block between (04,06) and (04,07).

    A proposal with 0x0003: ``oos`` overwrites every 0x0003 with the address of the sender's connection and
    appends 0x0004 last, also behind 0x2711; ``aol`` only appends. Everything else passes unchanged.
    """
    if block.kind != rdv.PROPOSE or block.get(rdv.REQUESTER_IP) is None:
        return block
    seen = ip4(seen_as)
    items: list[Tlv] = list(block.tlvs)
    if mode == "oos":
        items = [(kind, seen if kind == rdv.REQUESTER_IP else value) for kind, value in items]
    return Rendezvous(block.kind, block.cookie, block.capability, [*items, (rdv.VERIFIED_IP, seen)])


@dataclass
class Session:
    """One signed-on account."""

    name: str
    link: FlapLink
    signed_on: int = field(default_factory=lambda: int(time.time()))
    capabilities: bytes = b""
    online: bool = False
    direct: bytes | None = None  # TLV 0x000C of its last (01,1E)

    @property
    def icq(self) -> bool:
        """Its name is a UIN."""
        return self.name.isdigit()

    def info(self, mode: str) -> bytes:
        """User-info block; both servers put types in it that mean an address and a port elsewhere."""
        when = struct.pack("!I", self.signed_on)
        if mode == "aol":
            items: list[Tlv] = [
                (0x0001, b"\0\x10"),
                (0x0005, when),
                (0x001D, b"\0\1\0\0"),
                (0x000F, bytes(4)),
            ]
            items.append((0x0003, when))
        else:
            items = [(0x0003, when), (0x0001, b"\0\x11"), (0x0006, bytes.fromhex("10020000"))]
            items += [(0x001D, bytes.fromhex("000100050201d20472")), (0x000D, self.capabilities)]
            items.append((0x001E, bytes(4)))
        if self.icq:
            # open-oscar-server repeats the client's own words; AOL's added the address they saw it at.
            items[items.index(next(item for item in items if item[0] == 0x0001))] = (0x0001, b"\0\x50")
            direct: list[Tlv] = [(0x000C, self.direct)] if self.direct else []
            items[-1:-1] = [*direct, *([(0x000A, ip4(self.link.peer_address))] if mode == "aol" else [])]
        return user_info(self.name, *(tlv(*item) for item in items))


class Server:
    """All accounts and connections of one stand-in server."""

    def __init__(self, announce: str, mode: str, write: WriteMode) -> None:
        self.announce = announce
        self.mode = mode
        self.write = write
        self.sessions: dict[str, Session] = {}
        self.cookies: dict[bytes, tuple[str, int]] = {}
        self._sent: dict[tuple[int, int], int] = {}
        self._numbers = itertools.count(1)
        self._requests = itertools.count(0x80000000)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One accepted connection, to its end."""
        link = FlapLink(reader, writer, sequence=0x0064, mode=self.write)
        session: Session | None = None
        going = True
        try:
            await link.send(FLAP_SIGNON, VERSION)
            async for channel, data in link.frames():
                if channel == FLAP_SIGNON and session is None:
                    session = await self._service_sign_on(link, data)
                elif channel == FLAP_SNAC:
                    going = await self._dispatch(link, session, Snac.decode(data))
                if channel == FLAP_SIGNOFF or not going:
                    break
        except (WireError, OSError) as error:
            print(f"{link.peer_address}: connection dropped: {error}", file=sys.stderr, flush=True)
        finally:
            if session is not None and self.sessions.get(normal_name(session.name)) is session:
                del self.sessions[normal_name(session.name)]
                await self._take_leave(session)
            await link.close()

    async def _service_sign_on(self, link: FlapLink, data: bytes) -> Session | None:
        """FLAP 1 of the client: without a cookie it wants to log in, with one it has been redirected here."""
        given = parse_tlvs(data[4:])[0]
        cookie = first_tlv(given, 0x0006)
        if cookie is None:
            if first_tlv(given, 0x0001) is not None:
                await self._flap_log_in(link, given)
            return None
        name, family = self.cookies.pop(cookie)
        await self._tell(link, 0x01, 0x03, families(FAMILIES))
        if family:
            return None
        session = Session(name, link)
        self.sessions[normal_name(name)] = session
        return session

    async def _dispatch(self, link: FlapLink, session: Session | None, snac: Snac) -> bool:
        """Answer one SNAC; False ends the connection."""
        if snac.kind == (0x17, 0x06):
            await self._answer(link, snac, 0x07, struct.pack("!H", len(CHALLENGE)) + CHALLENGE)
        elif snac.kind == (0x17, 0x02):
            await self._log_in(link, snac)
            return False
        elif snac.kind in _REPLIES:
            subtype, body = _REPLIES[snac.kind]
            await self._answer(link, snac, subtype, body)
        elif snac.kind == (0x01, 0x17):
            await self._answer(link, snac, 0x18, snac.body)
            await self._tell(link, 0x01, 0x13, struct.pack("!H", 4) + tlv(0x000B, b"stand-in"))
        elif session is not None:
            await self._session_snac(session, snac)
        return True

    async def _session_snac(self, session: Session, snac: Snac) -> None:
        link = session.link
        if snac.kind == (0x01, 0x0E):
            await self._answer(link, snac, 0x0F, session.info(self.mode))
        elif snac.kind == (0x01, 0x04):
            (family,) = struct.unpack_from("!H", snac.body)
            where = [(0x000D, snac.body[:2]), *self._redirect(session.name, family)]
            await self._answer(link, snac, 0x05, tlvs(where))
        elif snac.kind == (0x02, 0x04):
            session.capabilities = first_tlv(parse_tlvs(snac.body)[0], 0x0005) or session.capabilities
        elif snac.kind == (0x01, 0x02):
            session.online = True
            await self._introduce(session)
        elif snac.kind == (0x01, 0x1E) and session.icq:
            session.direct = first_tlv(parse_tlvs(snac.body)[0], 0x000C) or session.direct
            await self._tell(link, 0x01, 0x0F, session.info(self.mode))
            await self._announce(session)
        elif snac.kind == (0x04, 0x06):
            await self._relay_message(session, snac)
        elif snac.kind == (0x04, 0x0B) or snac.kind == (0x04, 0x14):
            to, rest = take_name8(snac.body[10:])
            await self._relay(session, snac, to, snac.body[:10] + name8(session.name) + rest)

    async def _introduce(self, session: Session) -> None:
        """Everybody with a UIN knows everybody else: all others in one message, then the new one to them."""
        others = [
            other for other in self.sessions.values() if other.icq and other.online and other != session
        ]
        if session.icq and others:
            infos = b"".join(other.info(self.mode) for other in others)
            await self._tell(session.link, 0x03, 0x0B, infos)
        await self._announce(session)

    async def _announce(self, session: Session) -> None:
        for other in list(self.sessions.values()):
            if session.icq and session.online and other.icq and other.online and other is not session:
                await self._tell(other.link, 0x03, 0x0B, session.info(self.mode))

    async def _take_leave(self, session: Session) -> None:
        """Tell everybody with a UIN that this one is gone."""
        for other in list(self.sessions.values()):
            if session.icq and session.online and other.icq and other.online:
                await self._tell(other.link, 0x03, 0x0C, user_info(session.name, tlv(0x0001, b"\0\x40")))

    async def _flap_log_in(self, link: FlapLink, given: list[Tlv]) -> None:
        """Credentials in the first frame: the answer is the content of (17,03) in FLAP 4, without a SNAC."""
        name = (first_tlv(given, 0x0001) or b"").decode("ascii", "replace")
        reply: list[Tlv] = [(0x0001, name.encode())]
        right = bytes(a ^ b for a, b in zip(PASSWORD.encode(), ROAST, strict=False))
        reply += self._redirect(name, 0) if first_tlv(given, 0x0002) == right else [(0x0008, b"\0\5")]
        await link.send(FLAP_SIGNOFF, tlvs(reply))

    async def _relay_message(self, session: Session, snac: Snac) -> None:
        message = parse_icbm(snac)
        outer: list[Tlv] = []
        for kind, value in message.outer:
            if kind == ICBM_RDV and message.channel == 2:
                block = Rendezvous.decode(value)  # WireError closes the sender's connection
                value = relayed(block, self.mode, session.link.peer_address).encode()
            if kind != ICBM_ACK:
                outer.append((kind, value))
        body = icbm_to_client(message.cookie, message.channel, session.info(self.mode), tlvs(outer))
        delivered = await self._relay(session, snac, message.name, body, subtype=0x07)
        if delivered and first_tlv(message.outer, ICBM_ACK) is not None:
            ack = icbm_head(message.cookie, message.channel) + name8(message.name)
            await self._answer(session.link, snac, 0x0C, ack)

    async def _relay(
        self, session: Session, snac: Snac, to: str, body: bytes, subtype: int | None = None
    ) -> bool:
        """Deliver to *to*, or answer (04,01) code 4 (not logged on)."""
        target = self.sessions.get(normal_name(to))
        if target is None or not target.online:
            await self._answer(session.link, snac, 0x01, struct.pack("!H", 4))
            return False
        await self._tell(target.link, 0x04, subtype or snac.subtype, body)
        return True

    async def _log_in(self, link: FlapLink, snac: Snac) -> None:
        """(17,02): check the digest, answer (17,03) and FLAP 4."""
        given = parse_tlvs(snac.body)[0]
        name = (first_tlv(given, 0x0001) or b"").decode("ascii", "replace")
        reply: list[Tlv] = [(0x0001, name.encode())]
        if first_tlv(given, 0x0025) == strong_md5(CHALLENGE, PASSWORD):
            reply += self._redirect(name, 0)
        else:
            reply += [(0x0008, b"\0\5"), (0x0004, b"http://203.0.113.9/")]
        await self._answer(link, snac, 0x03, tlvs(reply))
        await link.send(FLAP_SIGNOFF)

    def _redirect(self, name: str, family: int) -> list[Tlv]:
        """Host and port, a cookie for the next connection, TLS state; family 0 is BOS."""
        cookie = struct.pack("!HI", family, next(self._numbers)).ljust(256, b"\0")
        self.cookies[cookie] = (name, family)
        return [(0x0005, self.announce.encode()), (0x0006, cookie), (0x008E, b"\0")]

    async def _answer(self, link: FlapLink, request: Snac, subtype: int, body: bytes) -> None:
        await link.send_snac(self._dressed(Snac(request.family, subtype, body, request.request)))

    async def _tell(self, link: FlapLink, family: int, subtype: int, body: bytes) -> None:
        with contextlib.suppress(OSError):  # the target's own reader notices a broken connection
            await link.send_snac(self._dressed(Snac(family, subtype, body, next(self._requests))))

    def _dressed(self, snac: Snac) -> Snac:
        """AOL put an extra block (flag 0x8000) before some bodies: here every second SNAC of each kind has
        one."""
        if self.mode != "aol":
            return snac
        count = self._sent[snac.kind] = self._sent.get(snac.kind, 0) + 1
        if count % 2 == 0:
            return snac
        extra = tlv(0x0001, b"\0\2")
        return Snac(snac.family, snac.subtype, snac.body, snac.request, EXTRA_BLOCK, extra)

    async def command(self, order: dict[str, object]) -> None:
        """``{"cmd": "drop", "name": ...}`` cuts a session; ``{"cmd": "write", "write": {...}}`` changes the
        writes."""
        if order["cmd"] == "drop":
            await self.sessions[normal_name(str(order["name"]))].link.close()
        elif order["cmd"] == "write":
            self.write = WriteMode.of(order["write"])  # type: ignore[arg-type]
            for session in self.sessions.values():
                session.link.mode = self.write
        else:
            raise ValueError(f"unknown command {order['cmd']!r}")


async def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen", required=True, help="ADDRESS:PORT")
    parser.add_argument("--also", help="ADDRESS:PORT to listen on, too")
    parser.add_argument("--announce", help="ADDRESS:PORT told to clients; default: the one it listens on")
    parser.add_argument("--mode", choices=("oos", "aol"), default="oos")
    parser.add_argument("--write", default='{"name": "oos"}', help="write mode as JSON")
    options = parser.parse_args()
    address, port = options.listen.rsplit(":", 1)
    server = Server(options.announce or options.listen, options.mode, WriteMode.of(json.loads(options.write)))
    listeners = [await asyncio.start_server(server.serve, address, int(port))]
    if options.also:
        address, port = options.also.rsplit(":", 1)
        listeners.append(await asyncio.start_server(server.serve, address, int(port)))
    print(json.dumps({"event": "ready"}), flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.buffer.readline):
        order = json.loads(line)
        try:
            await server.command(order)
            print(json.dumps({"id": order.get("id"), "ok": True}), flush=True)
        except (KeyError, ValueError) as error:
            print(json.dumps({"id": order.get("id"), "ok": False, "error": repr(error)}), flush=True)
    for listener in listeners:
        listener.close()
    for session in list(server.sessions.values()):
        await session.link.close()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main())
