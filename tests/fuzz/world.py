"""World: plays a program through an engine that stands on fakes, and checks after every step what must hold.

settings   1 midstream, 2 another address is announced, 4 small limits, 8 names of inside servers,
           16 sequence numbers about to wrap, 32 private outside address, 64 ends at once,
           128 frames have the numbers that are in the program
slots      0 Alice, 1 Amy beside her, 2 Bob outside with the server inside, 3 Alice again
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Final

from nfreaim.core.address import Endpoint, FlowId, flow_id, reverse
from nfreaim.core.engine import Engine
from nfreaim.core.firewall.pinhole import Pinhole
from nfreaim.core.firewall.policy import PinholePolicy
from nfreaim.core.flow_table import FlowLimits
from nfreaim.core.settings import EngineSettings
from nfreaim.core.tcp.segment import ACK, RST, SYN, Segment
from nfreaim.core.verdict import Verdicts
from nfreaim.errors import BackendError
from nfreaim.helpers.oscar import OSCAR
from nfreaim.helpers.oscar.peer_greetings import greetings
from nfreaim.helpers.oscar.session import OscarHelper
from tests.fuzz.accidents import befall
from tests.fuzz.ends import ANNOUNCED, ENDS, OUTSIDES
from tests.fuzz.failures import failures
from tests.fuzz.line import Line
from tests.fuzz.numbers import RENEWALS, Numbers
from tests.fuzz.program import Kind, Program, Step
from tests.oscar.flap import CLIENT, SERVER
from tests.tcp.packets import PSH_ACK
from tests.unit.fakes import SERVER as SERVER_END
from tests.unit.fakes import guarded_table
from tests.unit.oscar_fixtures import Router, capped, kept_bytes

SEGMENT: Final = 1400
HOLD: Final = 0.030
MOST: Final = 2000
"""Packets of one execution before what is sent is no longer cut."""
SMALL: Final = PinholePolicy(per_flow=2, per_host=2, total=3, caps=capped(1), rate_per_host=4, rate_total=6)


class World:
    """One execution."""

    def __init__(self, program: Program) -> None:
        failures.clear()
        settings = program.settings
        self.program = program
        self.numbers = Numbers(settings)
        self.quick = bool(settings & 64)
        self.midstream = bool(settings & 1)
        small = bool(settings & 4)
        self.settings = EngineSettings(
            hold=HOLD,
            patience=HOLD,
            midstream=self.midstream,
            home_names=frozenset({"home.example"} if settings & 8 else ()),
            limits=FlowLimits(flows=2, half_open=2) if small else FlowLimits(flows=16, half_open=16),
            hold_packets=3 if small else 64,
        )
        ports = range(40000, 40003) if small else range(40000, 40032)
        announce = ANNOUNCED if settings & 2 else None
        self.policy = replace(SMALL if small else PinholePolicy(), ports=ports, announce=announce)
        self.router = Router(self.settings, self.policy, OscarHelper)
        self.kernel, self.firewall = self.router.kernel, self.router.firewall
        self._open, self.puts = self.firewall.open, list[Pinhole]()
        self.firewall.open = self.put  # type: ignore[method-assign]
        self.kernel.undo_offload = self.reclaim  # type: ignore[method-assign]
        self.engine = self.router.engine
        self.pinholes = self.router.pinholes
        if settings & 32:
            self.kernel.outside = OUTSIDES[3]
        self.kernel.reached_at = Endpoint("198.51.100.200", 45190)
        self.now = 1000.0
        self.tokens: dict[int, tuple[Line | None, bytes, bool]] = {}
        self.token = 0
        self.renewed = [0] * len(ENDS)
        self.slots = [
            (Line(client, server, CLIENT, n == 2), Line(server, client, SERVER, n == 2))
            for n, (client, server) in enumerate(ENDS)
        ]
        for number, (one, two) in enumerate(self.slots):
            base = 2**32 - 300 if settings & 16 else 1_000_000 * (number + 1)
            one.begin(base)
            two.begin(base + 77)
        self.lines = {bytes(line.packet(0, 0, 0)[12:24]): line for pair in self.slots for line in pair}
        self.flows: dict[int, object] = {}
        self.ever: list[Pinhole] = []
        self.refused = False  # a wish of the table, and it was not asked again
        self.signed_on: set[FlowId] = set()
        self.lost: dict[bytes, object] = {}

    # --- playing ---

    def run(self) -> None:
        """Raises AssertionError, or whatever the engine raises."""
        for step in self.program.steps:
            self.step(step)
            self.bounded()
        self.end()
        self.forget(*self.slots[2])

    def step(self, step: Step) -> None:
        step = self.numbers.of(step)
        line, other = self.slots[step.slot][step.way], self.slots[step.slot][1 - step.way]
        numbers, kind = step.numbers, step.kind
        if kind is Kind.SEND:
            size = min(numbers[0] or SEGMENT, SEGMENT)
            if len(step.data) > 64 * size or self.token > MOST:
                size = SEGMENT  # a step is bounded in packets
            for low in range(0, len(step.data), size):
                piece, at = step.data[low : low + size], len(line.sent)
                line.sent += piece
                if not step.flag:
                    self.arrive(line.packet(at, self.ack(line, other), PSH_ACK, piece), self.inside(line))
        elif kind is Kind.AGAIN:
            at = max(len(line.sent) - numbers[0], 0)
            piece = bytes(line.sent[at : at + min(numbers[1], SEGMENT)])
            if numbers[2]:
                line.steady = False
                piece = bytes(byte ^ numbers[2] for byte in piece)
            self.arrive(line.packet(at, self.ack(line, other), PSH_ACK, piece), self.inside(line))
        elif kind is Kind.OPEN:
            self.open(step)
        elif kind is Kind.BARE:
            at = len(line.sent) + numbers[0] - 32768
            sack = b""
            if numbers[2] & 7:
                edges = [(other.base + other.out_end + x * numbers[2]) & 0xFFFFFFFF for x in (1, 2)]
                sack = bytes([1, 1, 5, 10]) + b"".join(edge.to_bytes(4, "big") for edge in edges)
            raw = line.packet(at, self.ack(line, other), numbers[1] & ~SYN, options=sack)
            self.arrive(raw, self.inside(line) is not step.flag)
        elif kind is Kind.PIECE:
            at = len(line.sent) + numbers[0] - 32768
            line.steady = False
            raw = line.packet(at, self.ack(line, other), numbers[1], step.data[:SEGMENT])
            self.arrive(raw, self.inside(line) is not step.flag)
        elif kind is Kind.RAW:
            self.arrive(step.data, step.flag)
        else:
            self.circumstance(step)

    def circumstance(self, step: Step) -> None:
        """What happens around the packets."""
        numbers, kind = step.numbers, step.kind
        if kind is Kind.TICK:
            self.tick(float(numbers[0]) if step.flag else numbers[0] / 1000)
        elif kind is Kind.RESTART:
            self.restart(step.flag, died=bool(step.way))
        elif kind is Kind.CLAIM:
            if pinholes := list(self.pinholes):
                pinhole = pinholes[numbers[0] % len(pinholes)]
                self.pinholes.claimed(pinhole.outside, f"192.0.2.{numbers[1]}", self.now)
        else:
            befall(self.router, self.slots[step.slot][step.way], step)

    def reclaim(self, flow: FlowId) -> None:
        """As the kernel's set does it: what is not there is gone already."""
        if self.kernel.broken:
            raise BackendError("netlink is gone")
        if flow in self.kernel.offloaded:
            self.kernel.offloaded.remove(flow)

    def inside(self, line: Line) -> bool:
        return (line.way == CLIENT) is not line.server_inside

    def ack(self, line: Line, other: Line) -> int:
        """What *line* acknowledges of *other*."""
        if not line.lie:
            return other.base + other.out_end
        return other.base + (len(other.sent) + 0x20000 + line.lie if line.lie & 1 else -1 - line.lie)

    def open(self, step: Step) -> None:
        client, server = self.slots[step.slot]
        if step.flag and self.renewed[step.slot] < RENEWALS:
            self.renewed[step.slot] += 1
            self.forget(client, server)
            for line in (client, server):
                line.begin(line.base + (1 << 28))
        inside, what = self.inside(client), step.numbers[0]
        if what & 1:
            self.arrive(client.packet(-1, 0, SYN), inside)
        if what & 2:
            self.arrive(server.packet(-1, client.base, SYN | ACK), not inside)
        if what & 4:
            self.arrive(client.packet(0, server.base, ACK), inside)

    def arrive(self, raw: bytes, from_inside: bool) -> None:
        """A packet reaches the engine."""
        segment = Segment.parse(raw)
        line = self.lines.get(segment.key) if segment else None
        # What comes from the wrong side is no part of the stream, and leaves as it came.
        ours = line is not None and self.inside(line) is from_inside
        skewed = counts = False
        if segment and line:
            other = self.lines[reverse(segment.key)]
            right = ours and not segment.flags & (SYN | RST)
            counts = right and line.acknowledges(raw, other)
            client = segment.key if line.way == CLIENT else reverse(segment.key)
            skewed = client in self.kernel.protected
            if right and segment.flags & ACK:
                other.offered(segment.ack, segment.window)
            if counts and segment.key in self.engine.flows.streams:
                line.arrived(line.offset(segment.seq), raw[segment.start :])
        self.token += 1
        self.tokens[self.token] = (line if ours else None, raw, counts)
        verdicts = self.engine.process(raw, self.token, from_inside, self.now, skewed)
        stream = self.engine.flows.streams.get(segment.key) if segment else None
        if line and line.resumed and stream and stream.edge is None:
            line.edge = None  # after a restart no window is known until both places are
        assert self.token not in [token for token, _ in verdicts[:-1]], "a packet overtakes a held one"
        earlier = [verdict for verdict in verdicts if verdict[0] != self.token]
        self.settle(earlier)
        begun = [id(each) for each in self.follow(begun=True)] if line else []
        if line and segment and counts and id(line) in begun:
            # This packet is the first of the flow, and what it carries and offers counts.
            line.blind = len(line.sent) > segment.size
            line.arrived(line.offset(segment.seq), raw[segment.start :])
            self.lines[reverse(segment.key)].offered(segment.ack, segment.window)
        self.settle(verdicts[len(earlier) :])
        if line:
            self.follow()

    def follow(self, begun: bool = False) -> list[Line]:
        """Where the engine began a flow afresh, or knows it no more, what was seen of it counts no more.

        begun  only look for flows that began. Returns the lines of all that are others than before.
        """
        changed: list[Line] = []
        for number, pair in enumerate(self.slots):
            stream = self.engine.flows.streams.get(pair[0].packet(0, 0, 0)[12:24])
            flow = stream.flow if stream else None
            if flow is self.flows.get(number) or (begun and flow is None):
                continue
            self.flows[number] = flow
            self.forget(*pair)
            changed += pair
            for line in pair:
                line.resumed = False
                line.blind = flow is None or bool(line.sent)  # or it is begun anew in the middle
        return changed

    def forget(self, *lines: Line) -> None:
        """What was seen so far has to be right, and does not count any more."""
        for line in lines:
            if line.server_inside and not self.midstream:
                told = self.policy.announce or self.kernel.reached_at.address
                line.compare(Endpoint(told, self.kernel.reached_at.port), self.moves_out)
            line.forget()

    def settle(self, verdicts: Verdicts) -> None:
        assert not failures, failures[0]
        self.opened()
        for token, verdict in verdicts:
            assert token in self.tokens, "a second verdict, or one for a packet that never came"
            line, raw, counts = self.tokens.pop(token)
            assert verdict.accept or verdict.payload is None
            if not verdict.accept:
                continue
            if line is None:
                assert verdict.payload is None, "a packet of no flow was changed"
                continue
            out = raw if verdict.payload is None else verdict.payload
            if not self.midstream:
                outward = line.way is (SERVER if line.server_inside else CLIENT)
                line.judge(raw, out, counts, self.moves_out if outward else self.moves_in)
            if counts:
                line.taken(out)

    def tick(self, seconds: float) -> None:
        self.now += seconds
        self.refused = False
        self.settle(self.engine.tick(self.now))
        self.engine.save()
        self.follow()
        wakeup = self.engine.wakeup()
        assert wakeup is None or wakeup > self.now, "a packet is held for longer than it may"

    def restart(self, lost: bool, died: bool) -> None:
        """The kernel drops what waits in the queue; pinholes and records are what remains.

        lost  not even these, but for the pinholes; *died*: where flows stand was not written down any more
        """
        self.tokens.clear()
        kernel = self.kernel
        if not died:
            self.engine.save()
        if lost:
            self.lost = dict(kernel.protected)
            kernel.kept.clear()
            kernel.noted.clear()
        self.pinholes = table = guarded_table(self.policy, self.firewall, self.router.watcher)
        self.engine = Engine(
            {SERVER_END.port: OSCAR}, table, kernel.backend, self.router.watcher, self.settings
        )
        for key, record in {**kernel.kept, **kernel.protected}.items():
            if self.lost.get(key) is record:
                continue
            if flow_id(key) in kernel.dead | kernel.flushed:  # as the host's state does it
                kernel.unprotect(key)
                kernel.forget_session(key, False)
                continue
            again = json.loads(json.dumps(record))
            place = {"position": kernel.noted[key]} if key in kernel.noted else {}
            self.engine.restore(again | place, self.now)
        table.adopt(
            lambda flow: flow not in kernel.dead | kernel.flushed,
            self.now,
            lambda _, service: greetings(service),
        )
        self.opened()
        for number, pair in enumerate(self.slots):
            stream = self.engine.flows.streams.get(pair[0].packet(0, 0, 0)[12:24])
            self.flows[number] = stream.flow if stream else None
            if stream is None:
                self.forget(*pair)
                continue
            self.signed_on.add(stream.flow.id)
            for line in pair:
                line.resume(stream.flow.skewed)

    def put(self, pinhole: Pinhole, earlier: Pinhole | None) -> None:
        self.refused |= self.firewall.refuse_add is True
        self._open(pinhole, earlier)
        self.puts.append(pinhole)

    # --- judging ---

    def moves_out(self) -> Iterable[tuple[Endpoint, Endpoint]]:
        for pinhole in self.ever:
            yield pinhole.inside, pinhole.outside
            if self.policy.announce:
                yield pinhole.inside, Endpoint(self.policy.announce, pinhole.outside.port)

    def moves_in(self) -> Iterable[tuple[Endpoint, Endpoint]]:
        return ((after, before) for before, after in self.moves_out())

    def opened(self) -> None:
        """Each new pinhole: for whom, where to, and whether that flow may have any."""
        puts, self.puts = self.puts, []
        for pinhole in puts:
            slot = ENDS.index((pinhole.flow.client, pinhole.flow.server))
            client, server = self.slots[slot]
            if self.midstream or (
                client.reader.signed_on and server.reader.signed_on and server.reader.lists_icbm
            ):
                self.signed_on.add(pinhole.flow)
            assert pinhole.flow in self.signed_on, "a pinhole for a flow that is not past sign-on"
            host = pinhole.inside.address
            if slot == 2:
                assert IPv4Address(host) in self.kernel.networks[0], "a pinhole out of the inside networks"
            else:
                assert host == client.here.address, "a pinhole to somebody else"
            assert 1024 <= pinhole.inside.port <= 65535
            assert 1024 <= pinhole.outside.port <= 65535
            assert pinhole.inside.port not in self.policy.deny_ports
            allowed = self.now + self.policy.lifetime
            assert pinhole.deadline <= allowed or pinhole.standing, "no deadline"
            self.ever.append(pinhole)

    def bounded(self) -> None:
        engine, policy, limits = self.engine, self.policy, self.settings.limits
        assert len(engine.flows) <= limits.flows + len(engine.flows.skewed)
        assert len(engine.flows.half_open) <= limits.half_open
        assert len(engine.pinholes) <= policy.total
        hosts = Counter(pinhole.inside.address for pinhole in self.pinholes)
        assert max(hosts.values(), default=0) <= policy.per_host, "more than per_host"
        held = sum(len(stream.held) for stream in engine.flows.streams.values())
        for stream in engine.flows.streams.values():
            assert stream.held_bytes <= self.settings.hold_bytes
            assert kept_bytes(stream.flow.reading.helper, stream.direction) <= 8192 + SEGMENT
        assert held <= self.settings.hold_packets
        assert held <= len(self.tokens), "a held packet has had its verdict"
        assert len(self.tokens) == held, "a packet is neither held nor has it a verdict"

    def end(self) -> None:
        """Nothing may remain of what is over."""
        self.kernel.broken = self.firewall.refuse_add = self.firewall.refuse_remove = False
        if not self.quick:
            self.kernel.dead = {FlowId(*ends) for ends in ENDS}
            self.kernel.flushed.clear()
            for _ in range(3):
                self.tick(5 * 3600.0)
            assert not self.engine.flows.streams, "a flow without a connection is remembered"
            assert not len(self.engine.pinholes), "a pinhole has outlived its flow"
            assert not self.firewall.pinholes, "a rule has outlived its pinhole"
            assert not self.kernel.kept, "the record of a flow has outlived it"
            assert not self.kernel.noted, "the place of a flow has outlived it"
            assert not {k for k, v in self.kernel.protected.items() if self.lost.get(k) is not v}
        self.settle(self.engine.shutdown("the daemon stops"))
        assert not self.tokens, "packets without a verdict"
        assert not self.firewall.pinholes, "a rule has outlived the daemon"
