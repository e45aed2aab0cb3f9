"""ICQ's messages in any segmentation and damaged in any way, beside a client that has published a port."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nfreaim.core.address import Endpoint
from nfreaim.core.firewall.policy import PinholePolicy
from nfreaim.layers.oscar_icq import Listening, listening, relay_message
from tests.golden import packets
from tests.oscar.icq import (
    ARRIVAL,
    FILE_ACK,
    REVERSE,
    STATUS,
)
from tests.oscar.messages import OUT
from tests.oscar.values import put
from tests.property.profile import bounded
from tests.unit.oscar_fixtures import Router, Wire, capped
from tests.unit.oscar_wires import beside

GOLDEN = packets()

HIDDEN = GOLDEN["icq-status-hidden"]
OUTGOING = {
    STATUS: put(STATUS, (34, OUT)),
    REVERSE: put(REVERSE, (81, OUT)),
    FILE_ACK: put(FILE_ACK, (77, OUT)),
    GOLDEN["text-message"]: GOLDEN["text-message"],
    GOLDEN["keepalive"]: GOLDEN["keepalive"],
}
BYTES = st.sampled_from([0, 1, 2, 4, 5, 0x0A, 0x0C, 0x1B, 0x25, 0x7F, 0x80, 0xFF])


@given(st.lists(st.sampled_from(sorted(OUTGOING)), max_size=8), st.integers(1, 300))
@bounded(120)
def test_any_segmentation_gives_the_messages_edited_one_by_one(messages: list[bytes], step: int) -> None:
    wire = Wire().sign_on()
    wire.client(STATUS)
    data = b"".join(messages)
    assert wire.client(data, range(step, len(data), step)) == b"".join(OUTGOING[each] for each in messages)
    assert any(pinhole.standing for pinhole in wire.router.firewall.pinholes)


@given(st.lists(st.sampled_from([STATUS, HIDDEN, put(STATUS, (38, b"\0\0\x0f\xa2"))]), max_size=8))
@bounded(60)
def test_what_was_said_last_is_what_is_open(said: list[bytes]) -> None:
    wire = Wire(Router(policy=PinholePolicy(caps=capped(1)))).sign_on()
    for each in said:
        wire.client(each)
    last = said[-1] if said else HIDDEN
    ports = [] if last == HIDDEN else [int.from_bytes(last[38:42], "big")]
    assert [pinhole.inside for pinhole in wire.router.firewall.pinholes] == [
        Endpoint("10.0.0.5", port) for port in ports
    ]
    assert wire.router.pinholes.has_standing() == bool(ports)


@given(st.data(), st.sampled_from([STATUS, ARRIVAL, REVERSE, FILE_ACK]), st.booleans())
@bounded(500)
def test_a_damaged_message_never_makes_the_helper_fail(
    data: st.DataObject, frame: bytes, short: bool
) -> None:
    damaged = bytearray(frame)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(10, len(damaged) - 1))] = data.draw(BYTES)
    cut = data.draw(st.integers(11, len(damaged)))
    if short:
        del damaged[cut:]
        damaged[4:6] = (len(damaged) - 6).to_bytes(2, "big")
    wire = Wire().sign_on()
    wire.client(STATUS)
    amy = beside(wire)
    for each, way in ((wire, 0), (wire, 1), (amy, 1)):
        each.send(way, bytes(damaged), [cut] if cut < len(damaged) else [])
        wire.router.wait(0.03)
        assert len((each.c2s, each.s2c)[way]) == len(each.sent[way])
    assert wire.router.engine.counters.failed_flows == 0


@given(st.data(), st.integers(1, 65535))
@bounded(300)
def test_a_type_2_message_that_names_a_port_differs_in_nothing_else_when_it_moves(
    data: st.DataObject, port: int
) -> None:
    damaged = bytearray(FILE_ACK[91:])
    for _ in range(data.draw(st.integers(0, 3))):
        damaged[data.draw(st.integers(2, len(damaged) - 1))] = data.draw(BYTES)
    message = relay_message(bytes(damaged))
    found = listening(message) if message is not None else None
    if isinstance(found, Listening):
        before = found.port
        moved = found.moved(port)
        assert len(moved) == len(damaged)
        assert sum(a != b for a, b in zip(moved, damaged, strict=True)) <= 4
        again = relay_message(moved)
        assert again is not None
        assert listening(again).moved(before) == damaged  # type: ignore[union-attr]
