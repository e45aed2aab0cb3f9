"""A stand-in ICQ client: publishes where it listens, and calls others where they say that they do.

Run as ``python -m tests.lab.icq_client --name 100003 --login xor``; driven like ``tests.lab.client``, whose
commands it has, too. Behaviour after climm and Licq: a contact is called at its external address (TLV
0x000A) if that is known and not one's own, else at the address in TLV 0x000C; a request to call back names
the address and port that were published; a chat is offered in a type-2 message with a port of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import time
from dataclasses import dataclass
from typing import Any

from tests.lab import icq_peer, peer
from tests.lab.client import Client, serve_orders
from tests.lab.server import PASSWORD, ROAST
from tests.oscar import icq
from tests.oscar import rendezvous as rdv
from tests.oscar.flap import FLAP_SIGNOFF
from tests.oscar.icbm import ICBM_RDV, RENDEZVOUS, Icbm, icbm_to_server
from tests.oscar.profiles import PROFILES
from tests.oscar.rendezvous import Rendezvous
from tests.oscar.snac import Snac
from tests.oscar.tlv import Tlv, first_tlv, parse_tlvs, take_user_info, tlv, tlvs
from tests.oscar.values import ip4, ip_text, u16

DIAL_SECONDS = 5.0


def roasted(password: str) -> bytes:
    """The password as FLAP logins carry it; the same again undoes it."""
    return bytes(byte ^ ROAST[at % len(ROAST)] for at, byte in enumerate(password.encode()))


@dataclass
class Contact:
    """Where somebody listens, as the server told."""

    address: str
    port: int
    cookie: int
    external: str | None

    def callable_at(self, own_external: str | None) -> str:
        """The address to call."""
        return self.external if self.external and self.external != own_external else self.address


class IcqClient(Client):
    """One UIN. Everybody who calls is answered; ``calls`` holds the outcomes."""

    def __init__(self, name: str, login: str, first_port: int) -> None:
        super().__init__(name, PROFILES["libpurple"], first_port)
        self.login = login
        self.cookie = random.Random(name).getrandbits(32)
        self.port = 0
        self.contacts: dict[str, Contact] = {}
        self.external: str | None = None
        self.calls: dict[int, asyncio.Queue[dict[str, Any]]] = {}
        self.outgoing: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._news = asyncio.Condition()
        self._seen_self = 0
        self._listeners: list[asyncio.Server] = []

    def _self(self, port: int) -> icq_peer.Self:
        return icq_peer.Self(
            int(self.name), self.own_address, self.external or self.own_address, port, self.cookie
        )

    async def _log_in(self, server: str) -> tuple[str, bytes]:
        if self.login == "md5":
            return await super()._log_in(server)
        items = [(1, self.name.encode()), (2, roasted(PASSWORD)), (3, b"ICQBasic"), (0x16, b"\1\x0a")]
        link = await self._connect(server, tlvs(items))
        async for channel, data in link.frames():
            if channel == FLAP_SIGNOFF:
                reply = parse_tlvs(data)[0]
                await link.close()
                return (first_tlv(reply, 5) or b"").decode(), first_tlv(reply, 6) or b""
        raise RuntimeError("login refused")

    async def sign_on(self, server: str, services: bool = False) -> None:
        """Sign on, listen, and publish it."""
        await super().sign_on(server, services)
        self.port = await self._listen_on(self.first_port)
        await self._publish(self.port)

    async def _listen_on(self, first: int) -> int:
        for port in range(first, first + 100):
            with contextlib.suppress(OSError):
                answer = lambda reader, writer, port=port: self._called(reader, writer, port)  # noqa: E731
                self._listeners.append(await asyncio.start_server(answer, "0.0.0.0", port))
                return port
        raise OSError("no free port")

    async def _publish(self, port: int, kind: int = 4, address_of: str = "") -> None:
        address = ip4(address_of or self.own_address) if port else bytes(4)
        info = icq.direct(address, port, kind, self.cookie)
        seen = self._seen_self
        await self._send(1, 0x1E, icq.set_status(info))
        async with self._news, asyncio.timeout(10.0):  # the server answers with our own info
            await self._news.wait_for(lambda: self._seen_self > seen)

    async def _called(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
        outcome: dict[str, Any] = {"ok": False, "peer": writer.get_extra_info("peername")[0]}
        uin = 0
        try:
            async with asyncio.timeout(10.0):
                uin, exchange = await icq_peer.answered(reader, writer, self._self(port))
            outcome |= {"ok": True, "port": port, **vars(exchange)}
        except (TimeoutError, OSError, EOFError, peer.PeerError) as error:
            outcome["reason"] = f"{type(error).__name__}: {error}"
        finally:
            writer.close()
        self.calls.setdefault(uin, asyncio.Queue()).put_nowait(outcome)

    async def _take(self, snac: Snac) -> None:
        if snac.kind in ((3, 0x0B), (1, 0x0F)):
            rest = snac.body
            while rest:
                name, items, rest = take_user_info(rest)
                await self._learn(name, items, snac.kind == (1, 0x0F))
        await super()._take(snac)

    async def _overhear(self, snac: Snac) -> None:
        await self._take(snac)

    async def _learn(self, name: str, items: list[Tlv], own: bool) -> None:
        info, external = first_tlv(items, icq.DIRECT_INFO), first_tlv(items, icq.EXTERNAL)
        seen = ip_text(external) if external else None
        if own:
            self.external = seen or self.external
            async with self._news:
                self._seen_self += 1
                self._news.notify_all()
        elif info is not None:
            address, port, _, _, cookie, *_ = icq.DIRECT.unpack(info)
            async with self._news:
                self.contacts[name] = Contact(ip_text(address), port, cookie, seen)
                self._news.notify_all()

    async def _rendezvous(self, message: Icbm, block: Rendezvous) -> None:
        data = block.get(rdv.SERVICE_DATA) or b""
        if block.capability == rdv.REVERSE:
            _, address, port, *_ = icq.CALL_BACK.unpack(data)
            work = self._call(message.name, ip_text(address), port, "you asked me to call")
        elif block.capability == rdv.RELAY:
            contact = await self._contact(message.name)
            where = contact.callable_at(self.external)
            work = self._call(message.name, where, icq.offered_port(data), "let us chat")
        else:
            await super()._rendezvous(message, block)
            return
        self._keep(asyncio.create_task(self._note(work)))

    async def _note(self, work: Any) -> None:
        self.outgoing.put_nowait(await work)

    async def _contact(self, name: str) -> Contact:
        async with self._news, asyncio.timeout(10.0):
            await self._news.wait_for(lambda: name in self.contacts and self.contacts[name].port)
        return self.contacts[name]

    async def _call(self, name: str, address: str, port: int, text: str) -> dict[str, Any]:
        began = time.monotonic()
        outcome: dict[str, Any] = {"ok": False, "reason": "", "called": f"{address}:{port}"}
        writer = None
        try:
            contact = await self._contact(name)
            opened = asyncio.open_connection(address, port)
            reader, writer = await asyncio.wait_for(opened, DIAL_SECONDS)
            async with asyncio.timeout(10.0):
                exchange = await icq_peer.dialled(
                    reader, writer, self._self(self.port), int(name), contact.cookie, text.encode()
                )
            outcome |= {"ok": True, **vars(exchange)}
        except (TimeoutError, OSError, EOFError, peer.PeerError) as error:
            outcome["reason"] = f"{address}:{port} {type(error).__name__}: {error}"
        finally:
            if writer is not None:
                writer.close()
        return outcome | {"seconds": time.monotonic() - began}

    # --- commands ----------

    async def do_dial(self, to: str, text: str) -> dict[str, Any]:
        """Call a contact where it says that it listens; one message and its answer."""
        contact = await self._contact(to)
        return await self._call(to, contact.callable_at(self.external), contact.port, text)

    async def do_ask_back(self, to: str) -> None:
        """Ask a contact to call us: capability 1344."""
        data = icq.call_back(int(self.name), ip4(self.own_address), self.port)
        await self._offer(to, rdv.REVERSE, data)

    async def do_chat(self, to: str) -> dict[str, Any]:
        """Offer a chat on a listener of its own: capability 1349."""
        port = await self._listen_on(self.first_port + 500)
        await self._offer(to, rdv.RELAY, icq.chat_request(port))
        return {"port": port}

    async def _offer(self, to: str, service: bytes, data: bytes) -> None:
        cookie = random.Random().randbytes(8)
        inner = [(rdv.SEQUENCE, u16(1)), (rdv.HOST_CHECK, b""), (rdv.SERVICE_DATA, data)]
        block = Rendezvous(rdv.PROPOSE, cookie, service, inner).encode()
        await self.send_icbm(icbm_to_server(cookie, RENDEZVOUS, to, tlv(ICBM_RDV, block)))

    async def do_publish(self, port: int | None = None, kind: int = 4, address: str = "") -> None:
        """Say again where it listens; port 0 says that it does not. *address*: a lie."""
        await self._publish(self.port if port is None else port, kind, address)

    async def do_await_call(self, uin: str, seconds: float = 12.0) -> dict[str, Any]:
        """The next call of that UIN."""
        return await self._next(self.calls.setdefault(int(uin), asyncio.Queue()), seconds)

    async def do_await_outgoing(self, seconds: float = 12.0) -> dict[str, Any]:
        """The next call that somebody asked this client to make."""
        return await self._next(self.outgoing, seconds)

    @staticmethod
    async def _next(queue: asyncio.Queue[dict[str, Any]], seconds: float) -> dict[str, Any]:
        try:
            return await asyncio.wait_for(queue.get(), seconds)
        except TimeoutError:
            return {"ok": False, "reason": "nobody called"}

    async def do_contact(self, name: str) -> dict[str, Any]:
        """Where that contact listens."""
        return vars(await self._contact(name))


async def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", required=True, help="the UIN")
    parser.add_argument("--login", choices=("xor", "md5"), default="xor")
    parser.add_argument("--first-port", type=int, default=4000)
    options = parser.parse_args()
    await serve_orders(IcqClient(options.name, options.login, options.first_port))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main())
