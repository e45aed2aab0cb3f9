"""A state machine over the whole engine: sessions, agreements, accidents and restarts in any order.

Packets are sent and judged by tests/fuzz/world.py; added here is the inner consistency of the pinhole table.
"""

from __future__ import annotations

import math

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nfreaim.core.tcp.segment import ACK, FIN, RST
from tests.fuzz.corpus import GOLDEN, signed_on
from tests.fuzz.ends import ENDS, OUTSIDES
from tests.fuzz.failures import silence
from tests.fuzz.program import Kind, Program, Step, send
from tests.fuzz.world import World
from tests.oscar.fields import announcing
from tests.oscar.flap import CLIENT, SERVER
from tests.property.profile import bounded

PROPOSALS = (
    "send-file-proposal",
    "direct-im-proposal",
    "aim-proposal",
    "kopete-proposal",
    "icq-reverse-connect",
)
RECEIVED = ("send-file-proposal-received", "send-file-proposal-received", "icq-buddy-arrival")
OTHERS = (
    "cancel",
    "decline",
    "accept",
    "text-message",
    "host-ack",
    "icq-status-hidden",
    "keepalive",
    "signoff",
)
REDIRECTS = ("login-reply", "service-redirect")

ACCIDENTS = (
    *(Step(Kind.TICK, 0, 0, True, (seconds,)) for seconds in (10, 60, 599, 600, 7200, 14_400)),
    *(Step(Kind.FAULT, 0, 0, False, (bits,)) for bits in range(1, 8)),
    *(Step(Kind.LIFE, slot, way) for slot in range(4) for way in (0, 1)),
    *(Step(Kind.MOVE, 0, 0, False, (which,)) for which in (0, 1, 2, 3)),
    *(Step(Kind.RESTART, 0, died, lost) for lost in (False, False, True) for died in (0, 1)),
    *(Step(Kind.TAKEN, 0, 0, False, (port,)) for port in (4000, 5190)),
)
slots = st.sampled_from([0, 0, 1, 2, 3])
pieces = st.sampled_from([0, 0, 1, 5, 17, 60])


def cookie(number: int) -> bytes:
    return b"COOKIE" + bytes([number, 0])


def consistent(world: World) -> None:
    """The table's parts tell the same story, and the firewall the same as the table."""
    table = world.pinholes
    live = table._index
    entries = list(live.by_target.values())
    assert {id(entry) for entry in live.by_outside.values()} == {id(entry) for entry in entries}
    assert {id(entry) for entry in live.by_agreement.values()} == {id(entry) for entry in entries}
    for entry in entries:
        pinhole = entry.pinhole
        assert live.by_outside[pinhole.outside] is entry
        assert entry.agreements, "a pinhole without an agreement"
        named = (pinhole.flow, pinhole.agreement) in entry.agreements and pinhole.deadline == entry.deadline()
        assert named or world.refused, "the kernel has it for an agreement that is over"
        assert entry.purposes.keys() == entry.agreements.keys()
        assert entry.greetings.keys() <= entry.agreements.keys()
        assert all(live.by_agreement[name] is entry for name in entry.agreements)
        deadline = entry.deadline()
        assert deadline <= world.now + world.policy.lifetime or pinhole.standing
        assert math.isinf(deadline) == bool(live.standing.keys() & entry.agreements.keys())
    assert live.standing.keys() <= live.by_agreement.keys()
    expected = {entry.pinhole for entry in entries} | set(table._unremovable.values())
    assert set(world.firewall.pinholes) <= expected, "a rule that the table does not know"
    assert {entry.pinhole for entry in entries} <= set(world.firewall.pinholes), "a pinhole without a rule"


class Sessions(RuleBasedStateMachine):
    """Rules are what clients, servers, peers and the router's other parts may do."""

    @initialize(options=st.sampled_from([0, 0, 2, 4, 4, 6, 8, 16, 32]), begun=st.sets(slots))
    def begin(self, options: int, begun: set[int]) -> None:
        silence()
        self.world = World(Program(options, ()))
        self.restarted = False
        for slot in sorted(begun):
            self.play(*signed_on(slot))

    def play(self, *steps: Step) -> None:
        for step in steps:
            self.world.step(step)

    @rule(slot=slots, piece=pieces)
    def sign_on(self, slot: int, piece: int) -> None:
        self.play(Step(Kind.OPEN, slot, 0, True, (7,)), *signed_on(slot, piece)[1:])

    @rule(slot=slots, name=st.sampled_from(PROPOSALS), piece=pieces, number=st.integers(0, 5))
    def propose(self, slot: int, name: str, piece: int, number: int) -> None:
        frame = announcing(GOLDEN[name], CLIENT, ENDS[slot][0].address)
        self.play(send(slot, 0, frame.replace(frame[16:24], cookie(number)), piece))

    @rule(slot=slots)
    def publish(self, slot: int) -> None:
        self.play(send(slot, 0, announcing(GOLDEN["icq-status"], CLIENT, ENDS[slot][0].address)))

    @rule(
        slot=slots,
        name=st.sampled_from(RECEIVED),
        piece=pieces,
        address=st.sampled_from([OUTSIDES[0]] * 4 + [*OUTSIDES, "10.0.0.77"]),
    )
    def receive(self, slot: int, name: str, piece: int, address: str) -> None:
        self.play(send(slot, 1, announcing(GOLDEN[name], SERVER, address), piece))

    @rule(slot=slots, way=st.integers(0, 1), name=st.sampled_from(OTHERS), number=st.integers(0, 5))
    def answer(self, slot: int, way: int, name: str, number: int) -> None:
        frame = GOLDEN[name]
        if len(frame) > 24:
            frame = frame.replace(frame[16:24], cookie(number))
        self.play(send(slot, way, frame))

    @rule(
        name=st.sampled_from(REDIRECTS),
        piece=pieces,
        host=st.sampled_from([b"10.0.0.9", b"10.0.0.99", b"server9"]),
    )
    def redirect(self, name: str, piece: int, host: bytes) -> None:
        old, new = b"\0\5\0\x10203.0.113.9:5190", host + b":5190"
        frame = GOLDEN[name].replace(old, b"\0\5" + len(new).to_bytes(2, "big") + new)
        self.play(send(2, 1, frame[:4] + (len(frame) - 6).to_bytes(2, "big") + frame[6:], piece))

    @rule(slot=slots, cut=st.integers(1, 120), late=st.booleans())
    def hold(self, slot: int, cut: int, late: bool) -> None:
        frame = announcing(GOLDEN["aim-proposal"], CLIENT, ENDS[slot][0].address)
        wait = Step(Kind.TICK, 0, 0, False, (31 if late else 3,))
        self.play(send(slot, 0, frame[:cut]), wait, send(slot, 0, frame[cut:]))

    @rule(slot=slots, way=st.integers(0, 1), back=st.integers(1, 600), size=st.integers(1, 400))
    def repeat(self, slot: int, way: int, back: int, size: int) -> None:
        self.play(Step(Kind.AGAIN, slot, way, False, (back, size, 0)))

    @rule(slot=slots, way=st.integers(0, 1), flags=st.sampled_from([FIN | ACK, RST, RST | ACK, ACK]))
    def bare(self, slot: int, way: int, flags: int) -> None:
        self.play(Step(Kind.BARE, slot, way, False, (32768, flags, 0)))

    @rule(which=st.integers(0, 9), peer=st.integers(1, 4))
    def claim(self, which: int, peer: int) -> None:
        self.play(Step(Kind.CLAIM, 0, 0, False, (which, peer)))

    @rule(number=st.sampled_from([29, 30, 31, 1000, 10_000]))
    def wait(self, number: int) -> None:
        self.play(Step(Kind.TICK, 0, 0, False, (number,)))

    @rule(accident=st.sampled_from(ACCIDENTS))
    def accident(self, accident: Step) -> None:
        self.play(accident)
        self.restarted = self.restarted or accident.kind is Kind.RESTART

    @rule()
    def repaired(self) -> None:
        known = (Step(Kind.LIFE, slot, way, True) for slot in range(4) for way in (0, 1))
        self.play(Step(Kind.FAULT, 0, 0, False, (0,)), *known)

    @invariant()
    def bounds(self) -> None:
        if hasattr(self, "world"):
            self.world.bounded()

    @invariant()
    def table(self) -> None:
        if hasattr(self, "world"):
            consistent(self.world)

    @precondition(lambda self: not self.restarted)
    @invariant()
    def owners(self) -> None:
        """Each pinhole has a flow that is known, as long as no restart made it outlive one."""
        if hasattr(self, "world"):
            known = {flow.id for flow in self.world.engine.flows}
            assert self.world.engine.pinholes.flows() <= known, "a pinhole without a flow"

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.end()
            consistent(self.world)


Sessions.TestCase.settings = settings(bounded(60), stateful_step_count=30)
TestSessions = Sessions.TestCase
