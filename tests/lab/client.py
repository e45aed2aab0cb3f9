"""A stand-in client: signs on and carries out rendezvous, driven by JSON lines on stdin.

Run as ``python -m tests.lab.client --name alice1 --profile libpurple`` on the client's node;
``tests.lab.standin`` drives it. Each command ``{"id": n, "cmd": ..., ...}`` is answered by one line
``{"id": n, "ok": ..., ...}`` when it is finished; commands run side by side. The process ends when stdin
closes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import random
import socket
import struct
import sys
from collections import deque
from typing import Any, Protocol

from tests.lab.link import FlapLink, WriteMode
from tests.lab.negotiation import FIRST_PORT, Negotiation
from tests.lab.server import PASSWORD, strong_md5
from tests.oscar import rendezvous as rdv
from tests.oscar.flap import FLAP_KEEPALIVE, FLAP_SIGNOFF, FLAP_SIGNON, FLAP_SNAC
from tests.oscar.icbm import Icbm, client_error, parse_icbm, refusal
from tests.oscar.profiles import PROFILES, Profile, objection
from tests.oscar.rendezvous import Rendezvous
from tests.oscar.signon import VERSION
from tests.oscar.snac import Snac
from tests.oscar.tlv import first_tlv, parse_tlvs, take_name8, tlv, tlvs

VERSIONS = bytes.fromhex(  # families and versions libpurple announces in (01,17)
    "000b000100080001000a000100090001000100030002000100150001000400010013000400030001001000010018" + "0001"
)
CAPABILITIES = bytes.fromhex(  # ten of libpurple's, Send File and Direct IM among them
    "0138ca7b769a491588f213fc00979ea8094600004c7f11d18222444553540000094613434c7f11d18222444553540000"
    "094613454c7f11d18222444553540000094613464c7f11d18222444553540000094613494c7f11d18222444553540000"
    "0946134e4c7f11d182224445535400001a093c6cd7fd4ec59d51a6474e34f5a0563fc8090b6f41bd9f79422609dfa2f3"
    "748f2420628711d18222444553540000"
)
ONLINE = bytes.fromhex(  # (01,02): u16 family, version, module id, module version
    "000b0001010400010008000101040001000a0001011006290009000101100629000100030110062900020001011006290015"
    "00010110047c0004000101100629001300040110062900030001011006290010000100100629001800010010" + "0629"
)
_QUERIES = ((1, 0x0E), (0x13, 2), (0x13, 4), (2, 2), (3, 2), (4, 4), (9, 2))


def login_body(name: str, key: bytes) -> bytes:
    """(17,02): name, digest, "strong" marker, identity and versions in libpurple's order."""
    items = [(0x0001, name.encode()), (0x0025, strong_md5(key, PASSWORD)), (0x004C, b"")]
    items += [(0x0003, b"Purple/2.14.12"), (0x0016, b"\1\t"), (0x0017, b"\0\5"), (0x0018, b"\0\1")]
    items += [
        (0x0019, b"\0\0"),
        (0x001A, b"\x0b\xdc"),
        (0x0014, b"\0\0\6\x11"),
        (0x000F, b"en"),
        (0x000E, b"us"),
    ]
    return tlvs([*items, (0x004A, b"\1")])


def challenge_body(name: str) -> bytes:
    """(17,06): name and two empty TLVs that libpurple and AIM add."""
    return tlvs([(0x0001, name.encode()), (0x004B, b""), (0x005A, b"")])


def plain(name: str) -> str:
    """A screen name as it is compared: without blanks and case."""
    return name.replace(" ", "").lower()


class Client:
    """One account at one client program."""

    def __init__(self, name: str, profile: Profile, first_port: int = FIRST_PORT) -> None:
        self.name = name
        self.profile = profile
        self.first_port = first_port
        self.link: FlapLink | None = None
        self.services: list[FlapLink] = []
        self.proposal_mode: WriteMode | None = None
        self.policy: dict[str, Any] = {"action": "accept", "delay": 0.0, "redirect": True}
        self.negotiations: dict[tuple[bytes, str], Negotiation] = {}  # by cookie and the other party
        self.results: dict[bytes, asyncio.Future[dict[str, Any]]] = {}
        self.received: deque[Snac] = deque(maxlen=200)
        self._requests = itertools.count(1)
        self._of_request: dict[int, Negotiation] = {}
        self._random = random.Random()
        self._tasks: set[asyncio.Task[Any]] = set()

    # --- Control, as a negotiation sees it ----------

    @property
    def own_address(self) -> str:
        """Address of the control connection's own socket, which is what libpurple announces."""
        return self._on().own_address

    async def send_icbm(self, body: bytes, mode: WriteMode | None = None) -> None:
        """Send SNAC(04,06); a (04,01) that answers it ends the rendezvous it belongs to."""
        request = next(self._requests)
        if negotiation := self._known(body[:8], take_name8(body[10:])[0]):
            self._of_request[request] = negotiation
        await self._on().send_snac(Snac(4, 6, body, request), mode)

    async def send_decline(self, to: str, cookie: bytes, code: int) -> None:
        """Send SNAC(04,0B), reason 3."""
        await self._send(4, 0x0B, client_error(cookie, to, refusal(code)))

    def _on(self) -> FlapLink:
        if self.link is None:
            raise RuntimeError("not signed on")
        return self.link

    async def _send(
        self, family: int, subtype: int, body: bytes = b"", mode: WriteMode | None = None
    ) -> None:
        await self._on().send_snac(Snac(family, subtype, body, next(self._requests)), mode)

    # --- sign-on ----------

    async def sign_on(self, server: str, services: bool = False) -> None:
        """BUCP login, then BOS up to (01,02); *services* also asks for and opens one service connection."""
        host, cookie = await self._log_in(server)
        self.link = await self._connect(host, tlv(0x0006, cookie))
        frames = self.link.frames()
        await self._await(frames, (1, 3))
        await self._send(1, 0x17, VERSIONS)
        await self._await(frames, (1, 0x18))
        await self._send(1, 6)
        await self._await(frames, (1, 7))
        together = WriteMode("coalesced")  # libpurple puts these into one segment
        await self._send(1, 8, b"\0\1", together)
        for family, subtype in _QUERIES:
            await self._send(family, subtype, b"", together)
        await self._await(frames, (9, 3))
        await self._send(0x13, 7, b"", together)
        await self._send(2, 4, tlv(0x0005, CAPABILITIES), together)
        await self._send(4, 2, struct.pack("!HIHHHI", 0, 0x0B, 8000, 999, 999, 0), together)
        if services:
            await self._send(1, 4, b"\0\x18", together)
            where = parse_tlvs((await self._await(frames, (1, 5))).body)[0]
            address = (first_tlv(where, 0x0005) or b"").decode()
            service = await self._connect(address, tlv(0x0006, first_tlv(where, 0x0006) or b""))
            await self._await(service.frames(), (1, 3))
            self.services.append(service)
        await self._send(1, 2, ONLINE)
        await self._send(1, 0x0E)  # the answer proves that the server has seen (01,02)
        await self._await(frames, (1, 0x0F))
        self._keep(asyncio.create_task(self._listen(frames)))

    async def _connect(self, server: str, items: bytes = b"") -> FlapLink:
        host, port = server.rsplit(":", 1)
        opened = asyncio.open_connection(host, int(port))
        link = FlapLink(*await asyncio.wait_for(opened, 10.0))
        await link.send(FLAP_SIGNON, VERSION + items)
        return link

    async def _log_in(self, server: str) -> tuple[str, bytes]:
        link = await self._connect(server)
        self.link = link
        frames = link.frames()
        await self._send(0x17, 6, challenge_body(self.name))
        key = (await self._await(frames, (0x17, 7))).body[2:]
        await self._send(0x17, 2, login_body(self.name, key))
        reply = parse_tlvs((await self._await(frames, (0x17, 3))).body)[0]
        await link.close()
        where, cookie = first_tlv(reply, 0x0005), first_tlv(reply, 0x0006)
        if where is None or cookie is None:
            raise RuntimeError("login refused")
        return where.decode(), cookie

    async def _await(self, frames: Any, kind: tuple[int, int]) -> Snac:
        """Read until a SNAC of that kind arrives (10 s)."""
        async with asyncio.timeout(10.0):
            async for channel, data in frames:
                if channel == FLAP_SNAC:
                    snac = Snac.decode(data)
                    if snac.kind == kind:
                        return snac
                    await self._overhear(snac)
        raise RuntimeError(f"connection ended before SNAC{kind}")

    async def _overhear(self, snac: Snac) -> None:
        """What comes during sign-on beside what is waited for."""

    # --- what arrives ----------

    async def _listen(self, frames: Any) -> None:
        try:
            async for channel, data in frames:
                if channel == FLAP_SNAC:
                    snac = Snac.decode(data)
                    self.received.append(snac)
                    await self._take(snac)
        except OSError as error:
            print(f"control connection: {error}", file=sys.stderr, flush=True)
        for negotiation in self.negotiations.values():
            negotiation.messages.put_nowait("control connection lost")

    async def _take(self, snac: Snac) -> None:
        if snac.kind == (4, 7):
            message = parse_icbm(snac)
            block = message.rendezvous()
            if block is not None:
                await self._rendezvous(message, block)
        elif snac.kind == (4, 0x0B) and (
            declined := self._known(snac.body[:8], take_name8(snac.body[10:])[0])
        ):
            declined.messages.put_nowait("declined by the other side")
        elif snac.kind == (4, 1) and (refused := self._of_request.get(snac.request)):
            refused.messages.put_nowait(f"server error {int.from_bytes(snac.body[:2])}")

    async def _rendezvous(self, message: Icbm, block: Rendezvous) -> None:
        wrong = (
            objection(message.cookie, block) if self.profile.strict and block.kind == rdv.PROPOSE else None
        )
        known = self._known(block.cookie, message.name)
        if wrong is not None:
            await self.send_decline(message.name, message.cookie, 1)
            if known is None:
                self._result(block.cookie).set_result({"ok": False, "reason": wrong, "attempt": ""})
            else:
                known.messages.put_nowait(wrong)
        elif known is not None:
            known.messages.put_nowait(block)
        elif block.kind == rdv.PROPOSE and self.policy["action"] == "accept":
            answering = self._negotiation(message.name, block.cookie, block.capability)
            answering.redirect = self.policy["redirect"]
            self._keep(asyncio.create_task(self._answer(answering, block)))
        elif block.kind == rdv.PROPOSE and self.policy["action"] == "decline":
            await self.send_decline(message.name, block.cookie, 1)

    async def _answer(self, negotiation: Negotiation, block: Rendezvous) -> None:
        result = await negotiation.answer(block, self.policy["delay"])
        self._over(negotiation)
        self._result(negotiation.cookie).set_result(result)

    def _negotiation(self, other: str, cookie: bytes, capability: bytes, **more: Any) -> Negotiation:
        more.setdefault("first_port", self.first_port)
        more.setdefault("proposal_mode", self.proposal_mode)
        made = Negotiation(self, other, cookie, capability, **more)
        self.negotiations[cookie, plain(other)] = made
        return made

    def _known(self, cookie: bytes, other: str) -> Negotiation | None:
        """The negotiation of that cookie with that party: a stranger's messages concern none."""
        return self.negotiations.get((cookie, plain(other)))

    def _over(self, negotiation: Negotiation) -> None:
        self.negotiations.pop((negotiation.cookie, plain(negotiation.other)), None)

    def _result(self, cookie: bytes) -> asyncio.Future[dict[str, Any]]:
        """The result of an incoming rendezvous; a cookie that comes again starts a new one."""
        waiting = self.results.get(cookie)
        if waiting is None or waiting.done():
            waiting = self.results[cookie] = asyncio.get_running_loop().create_future()
        return waiting

    def _keep(self, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- commands ----------

    async def command(self, order: dict[str, Any]) -> dict[str, Any]:
        """Carry out one command; what it returns is added to the answer."""
        run = getattr(self, f"do_{order['cmd']}", None)
        if run is None:
            raise ValueError(f"unknown command {order['cmd']!r}")
        return {"ok": True} | (await run(**{k: v for k, v in order.items() if k not in ("id", "cmd")}) or {})

    async def do_sign_on(self, server: str, services: bool = False) -> None:
        """Sign on at ``ADDRESS:PORT``."""
        await self.sign_on(server, services)

    async def do_sign_off(self, how: str = "signoff") -> None:
        """``signoff``: FLAP 4 and close; ``close``: just close; ``reset``: TCP RST."""
        link = self._on()
        if how == "signoff":
            await link.send(FLAP_SIGNOFF)
        elif how == "reset":
            sock = link.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await link.close()

    async def do_propose(
        self,
        kind: str,
        to: str,
        cookie: str = "",
        text: str = "",
        size: int = 30000,
        seed: int = 1,
        write: dict[str, Any] | None = None,
        patience: float = 30.0,
        file_name: str = "f.bin",
    ) -> dict[str, Any]:
        """Propose ``file`` (*size* bytes made from *seed*) or ``im`` (*text*) and carry it out to the end."""
        raw = bytes.fromhex(cookie) if cookie else b"%07d\0" % self._random.randrange(1000000, 10000000)
        file = kind == "file"
        data = random.Random(seed).randbytes(size) if file else text.encode()
        more: dict[str, Any] = {"proposal_mode": WriteMode.of(write)} if write else {}
        service = rdv.SEND_FILE if file else rdv.DIRECT_IM
        proposed = self._negotiation(
            to, raw, service, data=data, patience=patience, file_name=file_name, **more
        )
        result = await proposed.propose()
        self._over(proposed)
        return result

    async def do_wait(self, cookie: str, seconds: float = 30.0) -> dict[str, Any]:
        """Result of the incoming rendezvous with that cookie; forgotten once told."""
        raw = bytes.fromhex(cookie)
        waiting = self.results.get(raw) or self._result(raw)
        try:
            return await asyncio.wait_for(asyncio.shield(waiting), seconds)
        except TimeoutError:
            return {"ok": False, "reason": "nothing came of it", "attempt": ""}
        finally:
            if waiting.done():
                self.results.pop(raw, None)

    async def do_cancel(self, cookie: str) -> None:
        """Withdraw a rendezvous under way."""
        (one,) = (each for (its, _), each in self.negotiations.items() if its == bytes.fromhex(cookie))
        await one.cancel()

    async def do_decline(self, to: str, cookie: str, code: int = 1) -> None:
        """Refuse by (04,0B), whether or not such a rendezvous is known."""
        await self.send_decline(to, bytes.fromhex(cookie), code)

    async def do_policy(self, **policy: Any) -> None:
        """What to do with incoming proposals: ``action`` accept, decline or ignore; ``delay``;
        ``redirect``."""
        self.policy |= policy

    async def do_write(self, write: dict[str, Any] | None) -> None:
        """Write mode of all further proposals and counter-proposals."""
        self.proposal_mode = WriteMode.of(write) if write else None

    async def do_send_snac(
        self, family: int, subtype: int, body: str, write: dict[str, Any] | None = None
    ) -> None:
        """Send any SNAC; *body* in hex."""
        await self._send(family, subtype, bytes.fromhex(body), WriteMode.of(write) if write else None)

    async def do_send_raw(self, data: str) -> None:
        """Send bytes (hex) on the control connection, outside all framing."""
        await self._on().send_raw(bytes.fromhex(data))

    async def do_keep_alive(self) -> None:
        """Send an empty keep-alive frame."""
        await self._on().send(FLAP_KEEPALIVE)

    async def do_received(self, family: int, subtype: int) -> dict[str, Any]:
        """Bodies (hex) of the SNACs of that kind received so far, oldest first."""
        return {"bodies": [snac.body.hex() for snac in self.received if snac.kind == (family, subtype)]}


class Obeys(Protocol):
    """A stand-in of whatever protocol."""

    async def command(self, order: dict[str, Any]) -> dict[str, Any]:
        """Carry out one order; what came of it."""


async def serve_orders(client: Obeys) -> None:
    """Carry out what comes on stdin until it closes."""
    tasks: set[asyncio.Task[None]] = set()

    async def run(order: dict[str, Any]) -> None:
        try:
            answer = await client.command(order)
        except Exception as error:  # the driver must hear of it, whatever it is
            answer = {"ok": False, "reason": f"{type(error).__name__}: {error}", "attempt": ""}
        print(json.dumps({**answer, "id": order["id"]}), flush=True)

    print(json.dumps({"event": "ready"}), flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.buffer.readline):
        task = asyncio.create_task(run(json.loads(line)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


async def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", required=True)
    parser.add_argument("--profile", choices=sorted(PROFILES), default="libpurple")
    parser.add_argument("--first-port", type=int, default=FIRST_PORT)
    options = parser.parse_args()
    await serve_orders(Client(options.name, PROFILES[options.profile], options.first_port))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main())
