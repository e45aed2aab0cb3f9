"""Wires of OSCAR: of a server's client, of a home server's, of one that numbers its frames."""

from __future__ import annotations

from nfreaim.core.address import Endpoint
from nfreaim.core.firewall.policy import PinholePolicy
from nfreaim.helpers.oscar.session import OscarHelper
from tests.golden import packets
from tests.oscar.flap import numbered
from tests.oscar.signon import CLIENT_SIGNON, HOST_ONLINE, SIGNON, hello
from tests.unit import fakes, wires
from tests.unit.fakes import OUTSIDE, SERVER
from tests.unit.oscar_fixtures import Router, Wire
from tests.unit.wires import AMY

PROPOSAL, TEXT = packets()["send-file-proposal"], packets()["text-message"]


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


def reasons(wire: fakes.Wire) -> list[str]:
    return [report.reason for report in wire.router.watcher.reports]


def ends(wire: fakes.Wire) -> list[str]:
    return [reason for _, reason in wire.router.watcher.closes]


class Numbered(Wire):
    """A connection whose ends number their frames; *due* is the next number of each."""

    proposal = PROPOSAL

    def __init__(self, router: fakes.Router | None = None, server: Endpoint = SERVER) -> None:
        super().__init__(router, server=server)
        self.due = [0x1234, 0x64]

    def make_router(self) -> fakes.Router:
        return Router(helper=OscarHelper)

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


class HomeWire(wires.HomeWire):
    """A connection of a client outside to an OSCAR server inside."""

    keepalive = packets()["keepalive"]

    def make_router(self) -> fakes.Router:
        return Router()

    def begun(self) -> HomeWire:
        self.handshake()
        self.server(SIGNON, [1, 2, 4, 6])
        self.client(CLIENT_SIGNON)
        return self

    def online(self) -> HomeWire:
        self.begun().server(HOST_ONLINE, [1, 2, 4, 6])
        return self
