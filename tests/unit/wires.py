"""Wires of flows whose edits may change lengths, with either end inside; each end counts what it has got."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

from nfreaim.core.address import End, Endpoint
from nfreaim.core.tcp.segment import ACK, RST, SYN
from nfreaim.core.verdict import Verdict
from tests.script_helper import HELLO, TEXT, script
from tests.tcp.packets import PSH_ACK, checksum_error, packed, packet, payload_at, tcp_at
from tests.unit.fakes import CLIENT, SERVER, Router, Wire

AMY = Endpoint("10.0.0.6", 40123)
VISITOR, HOME_SERVER = Endpoint("203.0.113.20", 51000), Endpoint("10.0.0.9", 5190)
BOTH = frozenset(End)


class ResizedWire(Wire):
    """Its judge reads what leaves as receivers do. *inside*: which end is the inside one.

    lenient  bytes may come again as others: receivers keep the first, and a daemon that died knew of edits
    """

    inside = End.CLIENT
    keepalive = TEXT
    lenient = False

    def __init__(
        self, router: Router | None = None, client: Endpoint = CLIENT, server: Endpoint = SERVER
    ) -> None:
        super().__init__(router, client=client, server=server)
        self.acknowledged = [0, 0]  # bytes of each direction as it leaves
        self.settled = [
            0,
            0,
        ]  # of these, those whose edits may be forgotten: their receiver drops repetitions

    def make_router(self) -> Router:
        return Router(spec=script(resizes=BOTH))

    def judge(self, raw: bytes, verdict: Verdict) -> None:
        assert verdict.accept or verdict.payload is None
        if not verdict.accept:
            return
        out = raw if verdict.payload is None else verdict.payload
        assert checksum_error(out) == 0
        assert int.from_bytes(out[2:4], "big") == len(out)
        tcp, start = tcp_at(out), payload_at(out)
        way = 0 if out[12:16] == packed(self.ends[0].address) else 1
        at = (int.from_bytes(out[tcp + 4 : tcp + 8], "big") - self.isn[way] - 1) & 0xFFFFFFFF
        if not out[tcp + 13] & (SYN | RST):
            for index, byte in enumerate(out[start:]):
                first = self.left[way].setdefault(at + index, byte)
                assert first == byte or self.lenient or at + index < self.settled[way], (
                    f"byte {at + index} left as {first:#04x} and again as {byte:#04x}"
                )
            ack = (int.from_bytes(out[tcp + 8 : tcp + 12], "big") - self.isn[1 - way] - 1) & 0xFFFFFFFF
            assert ack <= len(self.sent[1 - way]), "an end is told of bytes that it never sent"

    def raw(self, way: int, at: int, data: bytes = b"", flags: int = PSH_ACK) -> bytes:
        """Each end acknowledges what it has got, in its own count."""
        if flags & ACK:
            self.acknowledged[1 - way] = len(self.left[1 - way])
        seq = (self.isn[way] + 1 + at) & 0xFFFFFFFF
        ack = (self.isn[1 - way] + 1 + len(self.left[1 - way])) & 0xFFFFFFFF if flags & ACK else 0
        return packet(self.ends[way], self.ends[1 - way], seq, ack, flags, data)

    def inject(self, way: int, at: int, data: bytes = b"", flags: int = PSH_ACK) -> dict[int, Verdict]:
        return self.router.process(self, self.raw(way, at, data, flags), way == self.inside)

    def begun(self) -> Self:
        """Past the greetings."""
        self.handshake()
        self.server(HELLO, [1, 2, 4])
        self.client(HELLO)
        return self

    def told(self, data: bytes, cuts: Iterable[int] = ()) -> bytes:
        """The inside end sends *data*; what the other one reads of it."""
        before = len(self.left[self.inside])
        self.send(self.inside, data, cuts)
        self.send(1 - self.inside, self.keepalive)
        return self._joined(self.inside)[before:]


class HomeWire(ResizedWire):
    """A connection of a client outside to a server inside."""

    inside = End.SERVER

    def __init__(self, router: Router | None = None, client: Endpoint = VISITOR) -> None:
        super().__init__(router, client, HOME_SERVER)
