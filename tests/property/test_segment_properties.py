"""Any edit of any packet: the checksum is as right or as wrong as before, by arithmetic from scratch."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nfreaim.core.address import Endpoint
from nfreaim.core.tcp.offsets import Edit, OffsetMap
from nfreaim.core.tcp.segment import Segment
from tests.property.profile import bounded
from tests.tcp.packets import checksum_error, packet, payload_at

ENDS = Endpoint("10.0.0.5", 4000), Endpoint("203.0.113.9", 5190)
numbers = st.integers(0, 2**32 - 1)
few_values = st.lists(st.sampled_from([0, 0, 1, 0xFE, 0xFF, 0xFF]), min_size=1, max_size=40).map(bytes)
payloads = few_values | st.binary(min_size=1, max_size=200)
options = st.integers(0, 10).map(lambda words: b"\x01" * 4 * words)


@given(st.data(), payloads, options, options, numbers, numbers)
@bounded(600)
def test_a_right_checksum_stays_right(
    data: st.DataObject, payload: bytes, ip: bytes, tcp: bytes, seq: int, ack: int
) -> None:
    segment = Segment.parse(packet(*ENDS, seq, ack, 0x18, payload, ip_options=ip, tcp_options=tcp))
    assert segment is not None
    low = data.draw(st.integers(0, len(payload) - 1))
    high = data.draw(st.integers(low + 1, len(payload)))
    new = data.draw(st.binary(min_size=high - low, max_size=high - low) | few_values)[: high - low]
    expected = payload[:low] + new + payload[low + len(new) :]
    assert segment.patched(segment.start + low, new).raw == packet(
        *ENDS, seq, ack, 0x18, expected, ip_options=ip, tcp_options=tcp
    )


@given(st.data(), payloads, st.integers(0, 0xFFFF))
@bounded(600)
def test_a_wrong_checksum_stays_as_wrong(data: st.DataObject, payload: bytes, checksum: int) -> None:
    raw = bytearray(packet(*ENDS, 1, 2, 0x18, payload))
    raw[36:38] = checksum.to_bytes(2, "big")
    segment = Segment.parse(bytes(raw))
    assert segment is not None
    at = data.draw(st.integers(0, len(payload) - 1))
    patched = segment.patched(segment.start + at, data.draw(st.binary(min_size=1, max_size=1)))
    assert checksum_error(patched.raw) % 0xFFFF == checksum_error(segment.raw) % 0xFFFF
    assert patched.patched(segment.start + at, payload[at : at + 1]).raw in (
        segment.raw,
        other_zero(segment.raw),
    )


def other_zero(raw: bytes) -> bytes:
    """The same packet with the checksum's other way to write zero."""
    swapped = {b"\0\0": b"\xff\xff", b"\xff\xff": b"\0\0"}.get(raw[36:38], raw[36:38])
    return raw[:36] + swapped + raw[38:]


@given(st.binary(max_size=120))
@bounded(500)
def test_any_bytes_are_a_segment_or_none(raw: bytes) -> None:
    for first in (0x45, 0x46, 0x4F, 0x60):
        shaped = bytearray(raw)
        if len(raw) >= 20:
            shaped[0], shaped[6:8], shaped[9] = first, b"\0\0", 6
            shaped[2:4] = len(raw).to_bytes(2, "big")
        segment = Segment.parse(bytes(shaped))
        if segment is not None:
            assert payload_at(segment.raw) == segment.start <= len(segment.raw)


@given(st.lists(st.tuples(st.integers(0, 9), st.binary(min_size=1, max_size=9)), max_size=20), st.data())
@bounded(300)
def test_every_span_of_a_stream_renders_as_that_span_of_the_edited_one(
    parts: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    edits, original, edited = OffsetMap(), bytearray(), bytearray()
    for gap, new in parts:
        original += b"." * gap
        edited += b"." * gap
        edits.add([Edit(len(original), len(original) + len(new), new)])
        original += bytes(byte ^ 0x55 for byte in new)
        edited += new
    original += b"end"
    edited += b"end"
    low = data.draw(st.integers(0, len(original) - 1))
    high = data.draw(st.integers(low + 1, len(original)))
    assert edits.render(bytes(original[low:high]), low) == edited[low:high]
