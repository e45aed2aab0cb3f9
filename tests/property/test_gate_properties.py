"""The peer gate under any cutting, reordering, repetition, loss and forgery of what comes from outside."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from nfreaim.core.greeting import match
from tests.oscar.peer_headers import oft
from tests.property.choices import Choices
from tests.property.profile import bounded
from tests.unit.peer_link import COOKIE, Gate, Link, odc

FIRST = [
    (odc(), True),
    (odc(b"other\0\0\0"), False),
    (odc()[:19] + b"x" + bytes(40), False),
    (oft(0x0101), False),
    (b"GET / HTTP/1.0\r\n\r\n" + bytes(60), False),
    (b"ODC2\x00\x4d" + bytes(70), False),
]


@bounded(300)
@given(st.integers(0, len(FIRST) - 1), st.integers(0, 2**32))
def test_decision_does_not_depend_on_how_the_bytes_come(which: int, seed: int) -> None:
    data, good = FIRST[which]
    choose = Choices(seed)
    link = Link(Gate(), isn=choose.below(2**32)).handshake()
    for _ in range(4000):
        if link.released or link.world.house.bad:
            break
        # A sender: what is not acknowledged yet, cut and ordered anyhow; the network loses some of it.
        at = len(link.received)
        at = (
            max(0, at - choose.below(6))
            if choose.one_in(3)
            else at + (choose.below(40) if choose.one_in(3) else 0)
        )
        size = 1 + choose.below(30)
        link.outside(at, data[at : at + size], lost=choose.one_in(4))
    assert link.released is good
    assert bool(link.world.house.bad) is not good
    assert link.received == data[: len(link.received)]


@bounded(500)
@given(st.integers(0, 2**32))
@example(0)
def test_connection_that_is_released_began_with_a_greeting_at_the_receiver(seed: int) -> None:
    """The peer forges: several versions of each byte, gaps, early SYNs, packets that arrive or do not."""
    choose = Choices(seed)
    gate = Gate()
    gate.expect("direct-im", COOKIE)
    expected = gate.house.expecting[next(iter(gate.house.expecting))]
    versions = [data for data, _ in FIRST]
    link = Link(gate, isn=choose.below(2**32)).handshake()
    for _ in range(60):
        if link.released or link.reset_inside:
            break
        at = choose.below(24) - 2
        data = versions[0 if choose.one_in(2) else choose.below(len(versions))]
        size = choose.below(80)
        if choose.one_in(12):
            link.outside(choose.below(40) - 20, flags=0x02, ack=choose.one_in(2))
            continue
        link.outside(at, data[max(at, 0) : max(at, 0) + size], lost=choose.one_in(3), ack=choose.one_in(2))
    if link.released:
        assert match(link.received, expected) is True
    else:
        assert match(link.received, expected) is not False


@bounded(200)
@given(st.binary(max_size=100), st.integers(0, 100))
def test_more_bytes_never_change_an_answer(data: bytes, cut: int) -> None:
    for start in (b"", odc()[:6], odc()[:20], oft(0x0202)[:8]):
        expected = Gate().house.expecting[next(iter(Gate().house.expecting))]
        early = match((start + data)[:cut], expected)
        assert early is None or match(start + data, expected) is early
