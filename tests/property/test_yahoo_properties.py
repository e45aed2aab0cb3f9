"""Connections of Yahoo! Messenger through the whole engine: cut, repeated, shuffled, restarted.

The reference is the plainest code there is: each packet that the client sends, with its URL replaced.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.property.profile import bounded
from tests.unit.fakes import OUTSIDE
from tests.unit.restarts import restarted
from tests.unit.yahoo_session import YahooWire
from tests.yahoo.ymsg import INFO15, MESSAGE, P2PFILEXFER, PEERTOPEER, offer, raw, sign_on, url, ymsg

INSIDE = "10.0.0.5"
HELLO, _, ANSWER, _ = sign_on()


def said(port: int, address: str = INSIDE) -> bytes:
    return offer(url(address, port, b"/Messenger.alice1.%d" % port))


LEFT = [
    ymsg(MESSAGE, [(5, b"bob1"), (14, said(6000).replace(b"\xc0\x80", b"\xc0 "))]),
    ymsg(PEERTOPEER, [(12, b"ODM4ODYwOTA="), (5, b"bob1")]),
    ymsg(INFO15, [(5, b"bob1"), (249, b"1"), (250, url(INSIDE, 6000))]),
    raw(P2PFILEXFER, b"20\xc0\x80" + url(INSIDE, 6000)),
    raw(P2PFILEXFER, b"x" * 5000),
    said(80),
    said(6000, "10.0.0.6"),
    raw(0x8A, b""),
]
EDITED = {said(port): said(port, OUTSIDE) for port in (6000, 6001, 6002)}
packets = st.lists(st.sampled_from([*EDITED, *LEFT]), max_size=8)
isns = st.integers(0, 2**32 - 1) | st.integers(2**32 - 1000, 2**32 - 1)


@given(
    packets,
    st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 300)), max_size=30),
    st.integers(1, 300),
    st.tuples(isns, isns),
)
@bounded(40)
def test_any_segmentation_repetition_and_order_gives_the_stream_edited_packet_by_packet(
    client: list[bytes], early: list[tuple[int, int]], step: int, isn: tuple[int, int]
) -> None:
    wire = YahooWire()
    wire.isn = isn
    wire.begun()
    stream, begun = b"".join(client), len(HELLO + ANSWER)
    wire.sent[0] += stream
    for low, size in early:  # anything, at any place, in any order
        if data := stream[low : low + size]:
            wire.inject(0, begun + low, data)
    for _ in range(2):  # then a sender that repeats everything from the start, and hears of the other
        for low in range(0, len(stream), step):
            wire.inject(0, begun + low, stream[low : low + step])
        wire.server(wire.keepalive)
    assert not wire.router.open_tokens
    assert wire.c2s == HELLO + ANSWER + b"".join(EDITED.get(packet, packet) for packet in client)
    counters = wire.router.engine.counters
    assert (counters.failed_flows, counters.failed_packets, counters.malformed_flows) == (0, 0, 0)
    assert {pinhole.inside.port for pinhole in wire.router.firewall.pinholes} == {
        port for port in (6000, 6001, 6002) if said(port) in client
    }


@given(st.lists(st.tuples(st.sampled_from([*EDITED, *LEFT]), st.integers(0, 400), st.booleans()), max_size=8))
@bounded(60)
def test_restarts_between_packets_break_none(steps: list[tuple[bytes, int, bool]]) -> None:
    """The first one after a restart may leave as it came, because its place is not certain yet."""
    wire = YahooWire().begun()
    certain: list[bool] = []
    for packet, cut, again in steps:
        certain.append(not certain or not steps[len(certain) - 1][2])
        wire.send(0, packet, [cut] if 0 < cut < len(packet) else [])
        wire.server(wire.keepalive)
        if again:
            wire = restarted(wire)
    left = wire.c2s[len(HELLO + ANSWER) :]
    for (packet, _, _), sure in zip(steps, certain, strict=True):
        edited = EDITED.get(packet, packet)
        (leaves,) = [one for one in ({edited} if sure else {packet, edited}) if left.startswith(one)]
        left = left[len(leaves) :]
    assert not left
    assert wire.router.engine.counters.failed_flows == 0
