"""Segment: what counts as a whole TCP packet, and the checksum after an edit."""

from __future__ import annotations

import pytest

from nfreaim.core.address import Endpoint
from nfreaim.core.tcp.segment import ACK, Segment
from tests.tcp.packets import checksum_error, packet

SOURCE, DESTINATION = Endpoint("10.0.0.5", 4000), Endpoint("203.0.113.9", 5190)
DATA = bytes(range(1, 32))


def made(ip_options: bytes = b"", tcp_options: bytes = b"", data: bytes = DATA) -> bytes:
    return packet(
        SOURCE, DESTINATION, 0x01020304, 0xA0B0C0D0, ACK, data, ip_options=ip_options, tcp_options=tcp_options
    )


def replaced(raw: bytes, at: int, new: bytes) -> bytes:
    return raw[:at] + new + raw[at + len(new) :]


@pytest.mark.parametrize("ip_options", [b"", b"\x01" * 4, b"\x94\x04\0\0" * 10])
@pytest.mark.parametrize("tcp_options", [b"", b"\x01" * 12, b"\x01" * 40])
@pytest.mark.parametrize("data", [b"", b"x", DATA])
def test_every_header_length_is_read(ip_options: bytes, tcp_options: bytes, data: bytes) -> None:
    segment = Segment.parse(made(ip_options, tcp_options, data))
    assert segment is not None
    assert segment.key == bytes([10, 0, 0, 5, 203, 0, 113, 9]) + (4000).to_bytes(2, "big") + b"\x14\x46"
    assert (segment.seq, segment.ack, segment.flags) == (0x01020304, 0xA0B0C0D0, ACK)
    assert segment.tcp == 20 + len(ip_options)
    assert segment.raw[segment.start :] == data


@pytest.mark.parametrize("ip_options", [b"", b"\x01" * 8])
def test_every_truncation_is_no_segment(ip_options: bytes) -> None:
    raw = made(ip_options, b"\x01" * 12)
    assert [size for size in range(len(raw)) if Segment.parse(raw[:size])] == []


@pytest.mark.parametrize("ip_options", [b"", b"\x01" * 8])
def test_every_truncation_with_a_total_length_to_match_gets_an_answer(ip_options: bytes) -> None:
    raw = made(ip_options, b"\x01" * 12)
    headers = len(raw) - len(DATA)
    for size in range(len(raw)):
        cut = replaced(raw, 2, size.to_bytes(2, "big"))[:size]
        assert (Segment.parse(cut) is not None) == (size >= headers), size


@pytest.mark.parametrize(
    ("at", "new", "what"),
    [
        (0, b"\x65", "version 6"),
        (0, b"\x44", "IP header shorter than 20"),
        (0, b"\x40", "IP header of 0"),
        (0, b"\x4f", "IP header that reaches into the payload"),
        (2, b"\0\x50", "total length longer than the packet"),
        (2, b"\0\x46", "total length shorter than the packet"),
        (2, b"\0\0", "total length 0, as segmentation offload leaves it"),
        (6, b"\x20\0", "first fragment"),
        (6, b"\0\1", "later fragment"),
        (6, b"\x1f\xff", "last possible fragment"),
        (9, b"\x11", "UDP"),
        (32, b"\x40", "TCP header shorter than 20"),
        (32, b"\0", "TCP header of 0"),
        (32, b"\xf0", "data offset beyond the end"),
    ],
)
def test_what_is_no_whole_tcp_packet_is_no_segment(at: int, new: bytes, what: str) -> None:
    raw = made()
    assert Segment.parse(raw) is not None
    assert Segment.parse(replaced(raw, at, new)) is None, what


def test_dont_fragment_is_no_fragment() -> None:
    assert Segment.parse(replaced(made(), 6, b"\x40\0")) is not None


def test_data_offset_exactly_to_the_end_means_no_payload() -> None:
    segment = Segment.parse(made(data=b"\x01" * 12))
    assert segment is not None
    longer = Segment.parse(replaced(segment.raw, 32, b"\x80"))
    assert longer is not None
    assert longer.start == len(longer.raw)


@pytest.mark.parametrize("data", [DATA, DATA + b"\xff"], ids=["odd payload", "even payload"])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_a_patch_anywhere_keeps_the_checksum_right(data: bytes, size: int) -> None:
    segment = Segment.parse(made(tcp_options=b"\x01" * 4, data=data))
    assert segment is not None
    for at in range(segment.start, len(segment.raw) - size + 1):
        patched = segment.patched(at, b"\xcb" * size)
        new = replaced(data, at - segment.start, b"\xcb" * size)
        assert patched.raw == made(tcp_options=b"\x01" * 4, data=new), at


def test_a_wrong_checksum_stays_as_wrong() -> None:
    raw = made()
    for wrong in (b"\0\0", b"\xff\xff", b"\x12\x34"):
        segment = Segment.parse(replaced(raw, 36, wrong))
        assert segment is not None
        patched = segment.patched(segment.start + 1, b"\xcb\0\x71")
        assert checksum_error(patched.raw) == checksum_error(segment.raw) != 0


def test_a_patch_returns_a_segment_that_equals_its_own_parsing() -> None:
    segment = Segment.parse(made(b"\x01" * 4, b"\x01" * 12))
    assert segment is not None
    patched = segment.patched(segment.start, b"zz")
    again = Segment.parse(patched.raw)
    assert again is not None
    names = Segment.__slots__
    assert [getattr(again, name) for name in names] == [getattr(patched, name) for name in names]


def test_a_payload_that_becomes_all_zero_keeps_the_one_form_of_zero() -> None:
    segment = Segment.parse(made(data=b"\xff\xff\xff\xff"))
    assert segment is not None
    for new in (bytes(4), b"\xff" * 4, b"\0\0\xff\xff"):
        patched = segment.patched(segment.start, new)
        assert patched.raw == packet(SOURCE, DESTINATION, 0x01020304, 0xA0B0C0D0, ACK, new)
