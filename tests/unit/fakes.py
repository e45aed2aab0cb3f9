"""Fakes for what lies below the sans-IO core, and a wire on which a client and a server talk through it.

The wire is a judge, too: after every packet it checks that each token got one verdict, that nothing but
payload and TCP checksum was changed, that every stream byte left with the same value each time, and that
memory is bounded. Nothing here is mocked above the seam of the core.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network
from itertools import pairwise
from typing import Self

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.backend import Backend, Followed, Record
from nfreaim.core.engine import Engine
from nfreaim.core.firewall.pinhole import Firewall, Observer
from nfreaim.core.firewall.policy import PinholePolicy
from nfreaim.core.firewall.table import PinholeTable
from nfreaim.core.flow import Flow
from nfreaim.core.guarded import GuardedFirewall, GuardedObserver
from nfreaim.core.helper import Helper, HelperSpec
from nfreaim.core.settings import EngineSettings
from nfreaim.core.tcp.segment import ACK, FIN, RST, SYN, Segment
from nfreaim.core.verdict import Verdict, Verdicts
from nfreaim.errors import BackendError
from tests.script_helper import HELLO, ScriptHelper, offer, script
from tests.tcp.judge import same_place
from tests.tcp.packets import PSH_ACK, Packet, checksum_error, near, packed, packet
from tests.unit.fake_firewall import FakeFirewall
from tests.unit.fake_senders import FakeSenders
from tests.unit.fake_watcher import FakeWatcher

CLIENT = Endpoint("10.0.0.5", 40123)
SERVER = Endpoint("203.0.113.9", 5190)
OUTSIDE = "203.0.113.1"
HOLD = 0.030
"""Seconds, after which all that is held leaves."""
WITHOUT_CUSTODY = EngineSettings(hold=HOLD, patience=math.inf)
"""Of most tests: no end acknowledges anything here by itself."""


def guarded_table(policy: PinholePolicy, firewall: Firewall, observer: Observer) -> PinholeTable:
    """A table as the daemon makes it."""
    return PinholeTable(policy, GuardedFirewall(firewall), GuardedObserver(observer))


class FakeKernel:
    """Connection tracking that knows one outside address; every flow lives unless it is in `dead` (its entry
    says that it has ended) or `flushed` (there is no entry). What it met midstream is in `picked_up`, and
    what came through pinholes in `peers`."""

    def __init__(self) -> None:
        self.outside = OUTSIDE
        self.dead: set[FlowId] = set()
        self.flushed: set[FlowId] = set()
        self.picked_up: set[FlowId] = set()
        self.peers: set[FlowId] = set()
        self.senders = FakeSenders()
        self.offloaded: list[FlowId] = []
        self.known: dict[FlowId, int] = {}
        self.reached_at = Endpoint(OUTSIDE, 5190)
        self.networks = [IPv4Network("10.0.0.0/24")]
        self.isolated: set[str] = set()  # hosts that may meet no other
        self.diverted: list[Endpoint] = []
        self.followed: list[Followed] = []
        self.server_set: set[Followed] = set()
        self.protected: dict[bytes, Record] = {}
        self.resets: list[Segment] = []
        self.sent: list[bytes] = []  # packets of the daemon's own
        self.kept: dict[bytes, Record] = {}
        self.noted: dict[bytes, bytes] = {}
        self.broken = False
        self.distrusted: dict[str, str] = {}  # by host: why no server may name it
        self.met_flows: list[FlowId] = []
        self.forwards: dict[Endpoint, int] = {}
        self.unwatched = 0.0  # until when rules were missing

    @property
    def backend(self) -> Backend:
        """This, in all its parts."""
        parts = (self, self, self, self.reset, self, self.senders, self.sent.append)
        return Backend(*parts, unwatched=lambda: self.unwatched)

    def outside_address(self, flow: FlowId) -> str:
        self._fail_if_broken()
        return self.outside

    def handshake_seen(self, flow: FlowId) -> bool:
        return self.alive(flow) and flow not in self.picked_up

    def alive(self, flow: FlowId) -> bool:
        self._fail_if_broken()
        return flow not in self.dead and flow not in self.flushed

    def ended(self, flow: FlowId) -> bool:
        self._fail_if_broken()
        return flow in self.dead

    def by_pinhole(self, flow: FlowId) -> bool:
        self._fail_if_broken()
        return flow in self.peers

    def offload(self, flow: FlowId) -> None:
        self._fail_if_broken()
        self.offloaded.append(flow)

    def undo_offload(self, flow: FlowId) -> None:
        self._fail_if_broken()
        self.offloaded.remove(flow)

    def know(self, flow: FlowId) -> None:
        self._fail_if_broken()
        self.known[flow] = self.known.get(flow, 0) + 1

    def forget(self, flow: FlowId) -> None:
        self._fail_if_broken()
        self.known.pop(flow, None)

    def reached(self, flow: FlowId) -> Endpoint:
        self._fail_if_broken()
        return self.reached_at

    def is_inside_host(self, address: str) -> bool:
        return any(IPv4Address(address) in network for network in self.networks)

    def may_meet(self, one: str, other: str) -> bool:
        return not {one, other} & self.isolated

    def met(self, flow: FlowId) -> None:
        self.met_flows.append(flow)

    def why_not(self, flow: FlowId, reached: Endpoint, host: str) -> str | None:
        self._fail_if_broken()
        return self.distrusted.get(host)

    def port_of(self, server: Endpoint, address: str) -> int | None:
        self._fail_if_broken()
        return self.forwards.get(server)

    def queue_server(self, followed: Followed) -> None:
        self._fail_if_broken()
        self.diverted.append(followed.server)
        self.followed.append(followed)
        self.server_set.add(followed)

    def unqueue_server(self, followed: Followed) -> None:
        self._fail_if_broken()
        self.server_set.discard(followed)

    def protect(self, key: bytes, record: Record) -> None:
        self._fail_if_broken()
        self.kept.pop(key, None)  # a flow has one record
        self.protected[key] = record

    def unprotect(self, key: bytes) -> None:
        self.protected.pop(key, None)

    def save_session(self, key: bytes, record: Record) -> None:
        self._fail_if_broken()
        self.kept[key] = record

    def save_position(self, key: bytes, position: bytes) -> None:
        self._fail_if_broken()
        assert len(position) <= 48
        self.noted[key] = position

    def forget_session(self, key: bytes, skewed: bool) -> None:
        self.noted.pop(key, None)
        if not skewed:
            self.kept.pop(key, None)

    def reset(self, segment: Segment) -> None:
        self.resets.append(segment)

    def _fail_if_broken(self) -> None:
        if self.broken:
            raise BackendError("netlink is gone")


class Router:
    """An engine with its fakes: `router.engine`, `.pinholes`, `.firewall`, `.kernel`, `.watcher`."""

    def __init__(
        self,
        settings: EngineSettings | None = None,
        policy: PinholePolicy | None = None,
        spec: HelperSpec | None = None,
    ) -> None:
        self.firewall, self.kernel, self.watcher = FakeFirewall(), FakeKernel(), FakeWatcher()
        self.pinholes = guarded_table(policy or PinholePolicy(), self.firewall, self.watcher)
        served = {SERVER.port: spec or script()}
        settings = settings or WITHOUT_CUSTODY
        self.engine = Engine(served, self.pinholes, self.kernel.backend, self.watcher, settings)
        self.now = 1000.0
        self.open_tokens: dict[int, tuple[Wire, bytes]] = {}
        self.last_token = 0

    def process(self, wire: Wire, raw: bytes, from_inside: bool) -> dict[int, Verdict]:
        """Hand one packet in; the verdicts it causes by token, each judged by the wire of its packet."""
        self.last_token += 1
        self.open_tokens[self.last_token] = (wire, raw)
        verdicts = self.engine.process(raw, self.last_token, from_inside, self.now)
        tokens = [token for token, _ in verdicts]
        assert self.last_token not in tokens[:-1], "a packet overtakes one that was held before it"
        return self.settle(verdicts)

    def settle(self, verdicts: Verdicts) -> dict[int, Verdict]:
        for token, verdict in verdicts:
            assert token in self.open_tokens, "a second verdict, or one for a packet that never came"
            wire, raw = self.open_tokens.pop(token)
            wire.judge(raw, verdict)
        for stream in self.engine.flows.streams.values():
            assert stream.held_bytes == sum(h.segment.size for h in stream.held)
            reader_bytes = self.kept_bytes(stream.flow.reading.helper, stream.direction)
            assert stream.held_bytes + reader_bytes <= 16384, "more than 16 KiB kept for one direction"
        held = sum(len(s.held) for s in self.engine.flows.streams.values())
        assert held <= len(self.open_tokens), "a held packet has had its verdict"
        return dict(verdicts)

    def kept_bytes(self, helper: Helper, direction: int) -> int:
        """How many bytes of an incomplete message the helper keeps."""
        return len(helper.kept[direction]) if isinstance(helper, ScriptHelper) else 0

    def wait(self, seconds: float) -> dict[int, Verdict]:
        """Let time pass, and tick."""
        self.now += seconds
        return self.settle(self.engine.tick(self.now))

    def shutdown(self) -> dict[int, Verdict]:
        verdicts = self.settle(self.engine.shutdown("the daemon stops"))
        assert not self.open_tokens, "packets without a verdict"
        return verdicts


class Wire:
    """One TCP connection through a router. `c2s`, `s2c`: what has left towards the other side, in order.

    proposal  a message of the client's that opens a pinhole
    """

    proposal = offer()

    def __init__(
        self,
        router: Router | None = None,
        client: Endpoint = CLIENT,
        server: Endpoint = SERVER,
        isn: tuple[int, int] = (1000, 2**32 - 700),
    ) -> None:
        self.router = router or self.make_router()
        self.ends = (client, server)
        self.isn = isn
        self.sent = [bytearray(), bytearray()]
        self.left: list[dict[int, int]] = [{}, {}]
        self.flow_id = FlowId(client, server)

    def make_router(self) -> Router:
        """The router it runs through, if it is given none."""
        return Router()

    @property
    def c2s(self) -> bytes:
        return self._joined(0)

    @property
    def s2c(self) -> bytes:
        return self._joined(1)

    @property
    def stored(self) -> Flow:
        """The engine's flow of this connection."""
        return next(flow for flow in self.router.engine.flows if flow.id == self.flow_id)

    def _joined(self, way: int) -> bytes:
        left = self.left[way]
        return bytes(left[at] for at in range(len(left)) if at in left)

    def judge(self, raw: bytes, verdict: Verdict) -> None:
        """What must hold for every packet, whatever it carries."""
        assert verdict.accept or verdict.payload is None
        if not verdict.accept:
            return
        assert checksum_error(raw) == 0
        if verdict.payload is not None:
            same_place(raw, verdict.payload)
        self.arrive(Packet(verdict.payload or raw))

    def arrive(self, out: Packet) -> None:
        """What leaves reaches the other end."""
        way = 0 if out.raw[12:16] == packed(self.ends[0].address) else 1
        at = near(out.seq - self.isn[way] - 1, 0)
        if at >= 0 and not out.flags & (SYN | RST):
            for index, byte in enumerate(out.payload):
                first = self.left[way].setdefault(at + index, byte)
                assert first == byte, f"byte {at + index} left as {first:#04x} and again as {byte:#04x}"

    def raw(self, way: int, at: int, data: bytes = b"", flags: int = PSH_ACK) -> bytes:
        """A packet of this connection: *data* at stream offset *at* of direction *way*."""
        seq = self.isn[way] + 1 + at
        ack = self.isn[1 - way] + 1 + len(self.sent[1 - way]) if flags & ACK else 0
        return packet(self.ends[way], self.ends[1 - way], seq, ack, flags, data)

    def inject(self, way: int, at: int, data: bytes = b"", flags: int = PSH_ACK) -> dict[int, Verdict]:
        """Send *data* at *at*, whether or not that is where the stream stands."""
        return self.router.process(self, self.raw(way, at, data, flags), way == 0)

    def send(self, way: int, data: bytes, cuts: Iterable[int] = (), flags: int = PSH_ACK) -> None:
        """Send *data* as the next bytes, cut at these offsets into it."""
        for low, high in pairwise([0, *cuts, len(data)]):
            at = len(self.sent[way])
            self.sent[way] += data[low:high]
            self.inject(way, at, data[low:high], flags)

    def client(self, data: bytes, cuts: Iterable[int] = ()) -> bytes:
        """The client sends; what of it has left by then, from there on."""
        before = len(self.sent[0])
        self.send(0, data, cuts)
        return self.c2s[before:]

    def server(self, data: bytes, cuts: Iterable[int] = ()) -> bytes:
        before = len(self.sent[1])
        self.send(1, data, cuts)
        return self.s2c[before:]

    def handshake(self) -> Self:
        self.inject(0, -1, flags=SYN)
        self.inject(1, -1, flags=SYN | ACK)
        self.inject(0, 0, flags=ACK)
        return self

    def sign_on(self) -> Self:
        """Everything up to the point where proposals are read."""
        self.handshake()
        self.server(HELLO, [1, 2, 4])
        self.client(HELLO)
        return self

    def say(self, way: int, *lines: bytes) -> None:
        """These lines in one segment."""
        self.send(way, b"".join(lines))

    @property
    def read(self) -> bool:
        """Whether the helper gets its bytes."""
        return self.stored.reading.reads

    def fin(self, way: int) -> None:
        self.inject(way, len(self.sent[way]), flags=FIN | ACK)
