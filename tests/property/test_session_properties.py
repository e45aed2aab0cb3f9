"""Whole sessions, cut, repeated and shuffled in any way, against the edited stream made of whole frames."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nfreaim.core.address import Endpoint
from nfreaim.core.settings import EngineSettings
from tests.golden import load
from tests.property.profile import bounded
from tests.tcp.packets import packed
from tests.unit.fakes import CLIENT, OUTSIDE, SERVER, WITHOUT_CUSTODY
from tests.unit.oscar_fixtures import Router, Wire

GOLDEN = load()
OWN, OUT = packed(CLIENT.address), packed(OUTSIDE)
FRAMES = [
    [
        "send-file-proposal",
        "aim-proposal",
        "kopete-proposal",
        "direct-im-proposal",
        "relay-proposal",
        "stage-3a-request",
        "cancel",
        "text-message",
        "keepalive",
    ],
    ["text-message", "host-ack", "counter-proposal-received", "accept-with-snac-extra", "self-info"],
]
PORTS = {
    "send-file-proposal": 5190,
    "direct-im-proposal": 5190,
    "aim-proposal": 4000,
    "kopete-proposal": 5191,
}
isns = st.integers(0, 2**32 - 1) | st.integers(2**32 - 3000, 2**32 - 1)
spans = st.tuples(st.integers(0, 1), st.integers(0, 900), st.integers(1, 300))
names = [st.lists(st.sampled_from(each), max_size=8) for each in FRAMES]


def edited(name: str) -> bytes:
    data = GOLDEN[name].data
    if name in PORTS:
        data = data.replace(OWN, OUT).replace(bytes(b ^ 255 for b in OWN), bytes(b ^ 255 for b in OUT))
    return data


def open_ports(client: list[str]) -> list[int]:
    """The reference model of the pinholes: one per port, as long as an agreement names it."""
    agreements: dict[bytes, int] = {}
    for name in client:
        cookie = GOLDEN[name].data[16:24]
        if name in PORTS:
            agreements[cookie] = PORTS[name]
        elif name == "cancel":
            agreements.pop(cookie, None)
    return sorted(set(agreements.values()))


@given(names[0], names[1], st.lists(spans, max_size=60), st.integers(1, 400), isns, isns)
@bounded(250)
def test_any_segmentation_repetition_and_order_gives_the_stream_edited_frame_by_frame(
    client: list[str], server: list[str], early: list[tuple[int, int, int]], step: int, isn: int, other: int
) -> None:
    wire = Wire(isn=(isn, other)).sign_on()
    bases = [len(sent) for sent in wire.sent]
    streams = [b"".join(GOLDEN[name].data for name in each) for each in (client, server)]
    expected = [b"".join(edited(name) for name in client), streams[1]]
    for way, low, size in early:  # anything, at any place, in any order
        if data := streams[way][low : low + size]:
            wire.inject(way, bases[way] + low, data)
    for way in (0, 1):  # then a sender that repeats everything from the start
        for low in range(0, len(streams[way]), step):
            wire.inject(way, bases[way] + low, streams[way][low : low + step])
    assert not wire.router.open_tokens
    assert wire.c2s[bases[0] :] == expected[0]
    assert wire.s2c[bases[1] :] == expected[1]
    assert sorted(p.outside.port for p in wire.router.firewall.pinholes) == open_ports(client)


@given(st.lists(st.tuples(names[0].map(tuple), st.integers(1, 300), st.booleans()), max_size=6))
@bounded(120)
def test_whenever_the_rest_comes_each_message_leaves_edited_or_as_it_came(
    bursts: list[tuple[tuple[str, ...], int, bool]],
) -> None:
    wire = Wire(Router(WITHOUT_CUSTODY)).sign_on()
    base = len(wire.sent[0])
    messages: list[str] = []
    for client, step, late in bursts:
        data = b"".join(GOLDEN[name].data for name in client)
        messages += client
        for low in range(0, len(data), step):
            wire.client(data[low : low + step])
            if late and low % 2:
                wire.router.wait(0.03)
    wire.router.wait(0.03)
    assert not wire.router.open_tokens
    at = base
    for name in messages:
        out = wire.c2s[at : at + len(GOLDEN[name].data)]
        assert out in (GOLDEN[name].data, edited(name)), name
        at += len(out)


@given(
    st.lists(st.tuples(st.integers(0, 1), st.binary(min_size=1, max_size=120)), max_size=30),
    st.integers(0, 2),
)
@bounded(250)
def test_garbage_never_raises_and_never_changes(pieces: list[tuple[int, bytes]], begun: int) -> None:
    wire = Wire()
    wire = (wire, wire.handshake(), wire)[begun] if begun < 2 else wire.sign_on()
    for way, data in pieces:
        before = len((wire.c2s, wire.s2c)[way])
        wire.send(way, data)
        wire.router.wait(0.03)
        assert (wire.c2s, wire.s2c)[way][before:] == data
    assert not wire.router.open_tokens
    assert wire.router.engine.counters.failed_flows == 0


@given(
    st.data(), st.sampled_from([*FRAMES[0][:6], "send-file-proposal-received", "counter-proposal-received"])
)
@bounded(400)
def test_a_damaged_message_never_makes_the_helper_fail(data: st.DataObject, name: str) -> None:
    damaged = bytearray(GOLDEN[name].data)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at] = data.draw(st.sampled_from([0, 1, 2, 4, 5, 0x10, 0x7F, 0x80, 0xFF]))
    cut = data.draw(st.integers(1, len(damaged)))
    if data.draw(st.booleans()):
        del damaged[cut:]
        damaged[4:6] = max(0, len(damaged) - 6).to_bytes(2, "big")
    wire = Wire().sign_on()
    wire.client(GOLDEN["send-file-proposal"].data)
    for way in (0, 1):
        wire.send(way, bytes(damaged), [cut] if cut < len(damaged) else [])
        wire.router.wait(0.03)
        assert len((wire.c2s, wire.s2c)[way]) == len(wire.sent[way])
    assert wire.router.engine.counters.failed_flows == 0


@given(st.lists(st.tuples(st.binary(max_size=80), st.booleans(), st.integers(0, 255)), max_size=20))
@bounded(200)
def test_any_packet_gets_a_verdict(packets: list[tuple[bytes, bool, int]]) -> None:
    router = Router(EngineSettings(midstream=True))
    ends = (CLIENT, SERVER), (SERVER, CLIENT), (Endpoint("10.0.0.6", 5190), Endpoint("203.0.113.9", 80))
    for number, (noise, from_inside, flags) in enumerate(packets):
        source, destination = ends[number % 3]
        head = packed(source.address) + packed(destination.address)
        ports = source.port.to_bytes(2, "big") + destination.port.to_bytes(2, "big")
        tcp = ports + noise[:8].ljust(8, b"\x80") + b"\x50" + bytes([flags]) + bytes(6) + noise
        raw = b"\x45\0" + (20 + len(tcp)).to_bytes(2, "big") + b"\0\0\0\0\x40\6\0\0" + head + tcp
        verdicts = router.engine.process(raw, number, from_inside, float(number))
        for token, verdict in verdicts:
            if verdict.payload is not None:
                # An empty segment ahead of a gap is moved, and nothing of it but its place changes.
                assert (token, len(raw)) == (number, 40)
                assert verdict.payload[:24] + verdict.payload[28:36] + verdict.payload[38:] == (
                    raw[:24] + raw[28:36] + raw[38:]
                )
    router.engine.tick(1e9)
    assert router.engine.wakeup() is None
