"""Wires for particular tests: of a server's client, of a home server's, of one that numbers its frames."""

from __future__ import annotations

from collections.abc import Iterable

from nfreaim.core.address import Endpoint
from nfreaim.core.firewall.policy import PinholePolicy
from nfreaim.core.tcp.segment import ACK, RST, SYN
from nfreaim.core.verdict import Verdict
from nfreaim.helpers.oscar.session import OscarHelper
from tests.golden import packets
from tests.oscar.flap import numbered
from tests.oscar.signon import CLIENT_SIGNON, HOST_ONLINE, SIGNON, hello
from tests.tcp.packets import checksum_error, packed, packet, payload_at, tcp_at
from tests.unit.fakes import OUTSIDE, SERVER, Router, Wire

AMY = Endpoint("10.0.0.6", 40123)
VISITOR, HOME_SERVER = Endpoint("203.0.113.20", 51000), Endpoint("10.0.0.9", 5190)
PROPOSAL = packets()["send-file-proposal"]


def wire_of(name: str = "", taken: tuple[int, ...] = (), **policy: object) -> Wire:
    address = {"counter-proposal": "192.168.7.5"}.get(name, "192.0.2.2" if "loopback" in name else "10.0.0.5")
    wire = Wire(Router(policy=PinholePolicy(**policy)), client=Endpoint(address, 40123))  # type: ignore[arg-type]
    wire.router.firewall.taken = {Endpoint(OUTSIDE, port) for port in taken}
    return wire.sign_on()


def moved_wire() -> Wire:
    """Another host has the announced ports outside."""
    return wire_of(taken=(4001, 4010), ports=range(40001, 40010))


def beside(wire: Wire) -> Wire:
    """Amy, on the same LAN."""
    return Wire(wire.router, client=AMY).sign_on()


def reasons(wire: Wire) -> list[str]:
    return [report.reason for report in wire.router.watcher.reports]


def ends(wire: Wire) -> list[str]:
    return [reason for _, reason in wire.router.watcher.closes]


class Numbered(Wire):
    """A connection whose ends number their frames; *due* is the next number of each."""

    def __init__(self, router: Router | None = None, server: Endpoint = SERVER) -> None:
        super().__init__(router or Router(helper=OscarHelper), server=server)
        self.due = [0x1234, 0x64]

    def say(self, way: int, *frames: bytes, number: int | None = None) -> None:
        """These frames in one segment, the first with *number* if that is given."""
        self.due[way] = self.due[way] if number is None else number
        data = b""
        for frame in frames:
            data += numbered(frame, self.due[way])
            self.due[way] += 1
        self.send(way, data)

    def begin(self) -> Numbered:
        self.handshake()
        self.say(1, hello())
        self.say(0, CLIENT_SIGNON)
        return self

    def online(self) -> Numbered:
        self.begin().say(1, HOST_ONLINE)
        return self

    def opens(self) -> bool:
        """Whether a proposal of the client opens anything now, or anything has been opened before."""
        self.say(0, PROPOSAL)
        changed = self.c2s != bytes(self.sent[0])
        assert changed is bool(self.router.firewall.changes)
        return changed

    @property
    def read(self) -> bool:
        return self.stored.reading.reads


class HomeWire(Wire):
    """A connection of a client outside to a server inside; its judge reads what leaves as receivers do."""

    def __init__(self, router: Router | None = None, client: Endpoint = VISITOR) -> None:
        super().__init__(router, client=client, server=HOME_SERVER)

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
                assert first == byte, f"byte {at + index} left as {first:#04x} and again as {byte:#04x}"
            ack = (int.from_bytes(out[tcp + 8 : tcp + 12], "big") - self.isn[1 - way] - 1) & 0xFFFFFFFF
            assert ack <= len(self.sent[1 - way]) if way == 0 else ack <= len(self.left[0])

    def raw(self, way: int, at: int, data: bytes = b"", flags: int = ACK | 8) -> bytes:
        """Each end acknowledges what it has got, in its own count."""
        seq = (self.isn[way] + 1 + at) & 0xFFFFFFFF
        ack = (self.isn[1 - way] + 1 + len(self.left[1 - way])) & 0xFFFFFFFF if flags & ACK else 0
        return packet(self.ends[way], self.ends[1 - way], seq, ack, flags, data)

    def inject(self, way: int, at: int, data: bytes = b"", flags: int = ACK | 8) -> dict[int, Verdict]:
        return self.router.process(self, self.raw(way, at, data, flags), way == 1)

    def begun(self) -> HomeWire:
        self.handshake()
        self.server(SIGNON, [1, 2, 4, 6])
        self.client(CLIENT_SIGNON)
        return self

    def online(self) -> HomeWire:
        self.begun().server(HOST_ONLINE, [1, 2, 4, 6])
        return self

    def told(self, data: bytes, cuts: Iterable[int] = ()) -> bytes:
        """The server sends *data*; what its client reads of it."""
        before = len(self.left[1])
        self.send(1, data, cuts)
        self.client(packets()["keepalive"])
        return self.s2c[before:]
