"""Sessions of lines, with either end inside and changed lengths: cut, repeated, shuffled, restarted.

The reference is the plainest code there is: each line that the inside end sends, with its address replaced.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from nfreaim.core.address import End, Endpoint
from tests.property.profile import bounded
from tests.script_helper import HELLO, TEXT, address, offer
from tests.unit.fakes import OUTSIDE
from tests.unit.restarts import restarted, unread
from tests.unit.wires import HomeWire, ResizedWire

WIRES = (ResizedWire, HomeWire)  # by the inside end


def opened(number: int, dotted: bool) -> bytes:
    return offer(b"%d" % number, at=Endpoint("10.0.0.5", 6000 + number), dotted=dotted, before=40, behind=9)


def edited(line: bytes) -> bytes:
    """*line* as it leaves for outside."""
    for dotted in (False, True):
        old, new = (address(Endpoint(host, 1), dotted).split(b":")[0] for host in ("10.0.0.5", OUTSIDE))
        line = line.replace(b"@" + old + b":", b"@" + new + b":")
    return line


LINES = (*(opened(number, dotted) for number in range(3) for dotted in (False, True)), TEXT, b"text\n")
lines = st.lists(st.sampled_from(LINES), max_size=8)
isns = st.integers(0, 2**32 - 1) | st.integers(2**32 - 1000, 2**32 - 1)
spans = st.tuples(st.integers(0, 1), st.integers(0, 500), st.integers(1, 300))


def begun(inside: End, isn: tuple[int, int]) -> ResizedWire:
    wire = WIRES[inside]()
    wire.isn = isn
    return wire.begun()


@given(
    st.sampled_from(End),
    lines,
    lines,
    st.lists(spans, max_size=40),
    st.integers(1, 300),
    st.tuples(isns, isns),
)
@bounded(250)
def test_any_segmentation_repetition_and_order_gives_the_stream_edited_line_by_line(
    inside: End,
    client: list[bytes],
    server: list[bytes],
    early: list[tuple[int, int, int]],
    step: int,
    isn: tuple[int, int],
) -> None:
    wire = begun(inside, isn)
    streams = [b"".join(client), b"".join(server)]
    left = [client, server]
    left[inside] = [edited(line) for line in left[inside]]
    for way, stream in enumerate(streams):
        wire.sent[way] += stream  # an end may acknowledge what it got of it, in any order
    for way, low, size in early:  # anything, at any place, in any order
        if data := streams[way][low : low + size]:
            wire.inject(way, len(HELLO) + low, data)
    for _ in range(2):  # then senders that repeat everything from the start, each hearing of the other's
        for way in (0, 1):
            for low in range(0, len(streams[way]), step):
                wire.inject(way, len(HELLO) + low, streams[way][low : low + step])
    assert not wire.router.open_tokens
    assert [wire.c2s, wire.s2c] == [HELLO + b"".join(each) for each in left]
    assert wire.router.engine.counters.failed_flows == 0
    dotted = any(b"10.0.0.5:" in line for line in (client, server)[inside])
    assert wire.stored.skewed is dotted
    assert bool(wire.router.kernel.protected) is dotted


class Session(RuleBasedStateMachine):
    """One connection, and what may happen to it: each line leaves as it came or edited, and nothing else."""

    inside = End.CLIENT

    def __init__(self) -> None:
        super().__init__()
        self.wire = begun(self.inside, (2**32 - 300, 2**32 - 400))
        self.said: tuple[list[bytes], list[bytes]] = ([HELLO], [HELLO])

    @rule(way=st.integers(0, 1), line=st.sampled_from(LINES), cuts=st.sets(st.integers(1, 40), max_size=3))
    def say(self, way: int, line: bytes, cuts: set[int]) -> None:
        self.said[way].append(line)
        self.wire.send(way, line, sorted(cut for cut in cuts if cut < len(line)))

    @rule(way=st.integers(0, 1), line=st.sampled_from(LINES), cut=st.integers(1, 60))
    def say_late(self, way: int, line: bytes, cut: int) -> None:
        self.said[way].append(line)
        self.wire.send(way, line[:cut])
        self.wire.router.wait(0.05)
        self.wire.send(way, line[cut:])

    @rule(way=st.integers(0, 1), back=st.integers(1, 400), size=st.integers(1, 200))
    def repeat(self, way: int, back: int, size: int) -> None:
        at = max(0, len(self.wire.sent[way]) - back)
        self.wire.inject(way, at, bytes(self.wire.sent[way][at : at + size]))

    @rule(way=st.integers(0, 1))
    def acknowledge(self, way: int) -> None:
        self.wire.inject(way, len(self.wire.sent[way]), flags=0x10)

    @rule(seconds=st.sampled_from([0.01, 0.03, 1.0, 50.0, 700.0]))
    def wait(self, seconds: float) -> None:
        self.wire.router.wait(seconds)
        if seconds >= 50.0:  # edits that were acknowledged are forgotten after a minute without a packet
            self.wire.settled = [*self.wire.acknowledged]

    @rule(broken=st.booleans())
    def fault(self, broken: bool) -> None:
        self.wire.router.kernel.broken = broken

    @rule(died=st.booleans())
    def restart(self, died: bool) -> None:
        """What is held is lost with the old daemon, and comes again."""
        self.wire.router.kernel.broken = False
        self.wire = restarted(self.wire, lost=died)
        self.wire.lenient = True
        self.resend()

    @precondition(lambda self: not self.wire.router.kernel.protected)
    @rule(way=st.integers(0, 1), line=st.sampled_from(LINES))
    def pass_unread(self, way: int, line: bytes) -> None:
        """While no daemon runs. What fails closed would not pass."""
        self.restart(died=True)
        if not self.wire.router.kernel.protected:
            self.said[way].append(line)
            unread(self.wire, way, line)

    def resend(self) -> None:
        """Each end sends again what the other lacks, as far as it can tell."""
        for _ in range(2):
            for way in (0, 1):
                for low in range(0, len(self.wire.sent[way]), 150):
                    self.wire.inject(way, low, bytes(self.wire.sent[way][low : low + 150]))
            self.wire.router.wait(0.05)

    @invariant()
    def sane(self) -> None:
        counters = self.wire.router.engine.counters
        assert (counters.failed_flows, counters.failed_packets, counters.malformed_flows) == (0, 0, 0)
        assert self.wire.stored.skewed is bool(self.wire.router.kernel.protected)
        assert len(self.wire.router.kernel.resets) == 0

    def teardown(self) -> None:
        self.wire.router.kernel.broken = False
        self.resend()
        assert not self.wire.router.open_tokens
        for way, out in ((0, self.wire.c2s), (1, self.wire.s2c)):
            left = out.splitlines(keepends=True)
            assert len(left) == len(self.said[way])
            for line, came in zip(left, self.said[way], strict=True):
                assert line in ((came, edited(came)) if way == self.inside else (came,))


class ServerSession(Session):
    inside = End.SERVER


Session.TestCase.settings = settings(bounded(60), stateful_step_count=25)
ServerSession.TestCase.settings = Session.TestCase.settings
TestClientInside = Session.TestCase
TestServerInside = ServerSession.TestCase
