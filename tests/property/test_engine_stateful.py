"""A state machine over the whole engine: sessions, agreements, accidents and restarts in any order.

Packets are sent and judged by tests/fuzz/world.py; added here is the inner consistency of the pinhole table.
"""

from __future__ import annotations

import math

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nfreaim.core.packet import ACK, FIN, RST
from tests.fuzz.corpus import GOLDEN, naming, signed_on
from tests.fuzz.program import Kind, Program, Step, send
from tests.fuzz.world import ENDS, OUTSIDES, World, silence
from tests.property.profile import bounded

PROPOSALS = (
    "send-file-proposal",
    "direct-im-proposal",
    "aim-proposal",
    "kopete-proposal",
    "icq-reverse-connect",
)
RECEIVED = ("send-file-proposal-received", "counter-proposal-received", "icq-buddy-arrival")
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

slots = st.integers(0, 3)
pieces = st.sampled_from([0, 0, 1, 5, 17, 60])


def consistent(world: World) -> None:
    """The table's parts tell the same story, and the firewall the same as the table."""
    table = world.engine.pinholes
    entries = list(table._entries.values())
    assert {id(entry) for entry in table._outside.values()} == {id(entry) for entry in entries}
    assert {id(entry) for entry in table._agreements.values()} == {id(entry) for entry in entries}
    for entry in entries:
        pinhole = entry.pinhole
        assert table._outside[pinhole.outside] is entry
        assert entry.agreements, "a pinhole without an agreement"
        assert (pinhole.owner, pinhole.cookie) in entry.agreements, "a rule that names nobody's agreement"
        assert all(table._agreements[name] is entry for name in entry.agreements)
        deadline = entry.deadline()
        assert deadline <= world.now + world.policy.lifetime or pinhole.session
        assert math.isinf(deadline) == bool(table._sessions & entry.agreements.keys())
    assert table._sessions <= table._agreements.keys()
    expected = {entry.pinhole for entry in entries} | set(table._undead)
    assert set(world.firewall.pinholes) <= expected, "a rule that the table does not know"
    assert {entry.pinhole for entry in entries} <= set(world.firewall.pinholes), "a pinhole without a rule"


class Sessions(RuleBasedStateMachine):
    """Rules are what clients, servers, peers and the router's other parts may do."""

    @initialize(options=st.sampled_from([0, 0, 2, 4, 4, 6, 8, 16, 32]))
    def begin(self, options: int) -> None:
        silence()
        self.world = World(Program(options, ()))
        self.restarted = False

    def play(self, *steps: Step) -> None:
        for step in steps:
            self.world.step(step)

    @rule(slot=slots, piece=pieces)
    def sign_on(self, slot: int, piece: int) -> None:
        self.play(Step(Kind.OPEN, slot, 0, True, (7,)), *signed_on(slot, piece)[1:])

    @rule(slot=slots, name=st.sampled_from(PROPOSALS), piece=pieces, number=st.integers(0, 5))
    def propose(self, slot: int, name: str, piece: int, number: int) -> None:
        frame = bytearray(naming(GOLDEN[name], 0, ENDS[slot][0].address))
        cookie = bytes(frame[16:24])
        frame = frame.replace(cookie, cookie[:6] + bytes([number, 0]))
        self.play(send(slot, 0, bytes(frame), piece))

    @rule(slot=slots)
    def publish(self, slot: int) -> None:
        self.play(send(slot, 0, naming(GOLDEN["icq-status"], 0, ENDS[slot][0].address)))

    @rule(
        slot=slots,
        name=st.sampled_from(RECEIVED),
        piece=pieces,
        address=st.sampled_from([*OUTSIDES, "10.0.0.77"]),
    )
    def receive(self, slot: int, name: str, piece: int, address: str) -> None:
        self.play(send(slot, 1, naming(GOLDEN[name], 1, address), piece))

    @rule(slot=slots, way=st.integers(0, 1), name=st.sampled_from(OTHERS), number=st.integers(0, 5))
    def answer(self, slot: int, way: int, name: str, number: int) -> None:
        frame = GOLDEN[name]
        cookie = GOLDEN["send-file-proposal"][16:24]
        self.play(send(slot, way, frame.replace(frame[16:24], cookie[:6] + bytes([number, 0]))))

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
        frame = naming(GOLDEN["aim-proposal"], 0, ENDS[slot][0].address)
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

    @rule(seconds=st.sampled_from([10, 60, 599, 600, 7200, 14_400]))
    def jump(self, seconds: int) -> None:
        self.play(Step(Kind.TICK, 0, 0, True, (seconds,)))

    @rule(bits=st.integers(0, 7))
    def fault(self, bits: int) -> None:
        self.play(Step(Kind.FAULT, 0, 0, False, (bits,)))

    @rule()
    def repaired(self) -> None:
        self.play(Step(Kind.FAULT, 0, 0, False, (0,)))

    @rule(slot=slots, alive=st.booleans())
    def connection_tracking(self, slot: int, alive: bool) -> None:
        self.play(Step(Kind.LIFE, slot, 0, alive))

    @rule(which=st.integers(0, 3))
    def outside_address(self, which: int) -> None:
        self.play(Step(Kind.MOVE, 0, 0, False, (which,)))

    @rule(lost=st.booleans())
    def restart(self, lost: bool) -> None:
        self.play(Step(Kind.RESTART, 0, 0, lost))
        self.restarted = True

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
            known = {flow.owner for flow in self.world.engine.flows}
            assert self.world.engine.pinholes.owners() <= known, "a pinhole without a flow"

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.end()
            consistent(self.world)


Sessions.TestCase.settings = settings(bounded(60), stateful_step_count=40)
TestSessions = Sessions.TestCase
