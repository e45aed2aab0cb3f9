"""The packet that ends a flow whose state is lost, and the numbers in it."""

from __future__ import annotations

import pytest

from nfreaim.core.tcp.segment import ACK, FIN, RST, SYN, Segment, bare_packet
from nfreaim.host.netfilter import tcp_reset

KEY = bytes([203, 0, 113, 20, 10, 0, 0, 9, 0x9C, 0x40, 0x14, 0x46])


def sums_to_zero(data: bytes) -> bool:
    total = sum(int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total == 0xFFFF


def test_reset_is_a_packet_with_right_checksums_and_nothing_in_it() -> None:
    raw = bare_packet(KEY, 0x1_0000_0005, -1, RST | ACK)
    segment = Segment.parse(raw)
    assert segment is not None
    assert (segment.key, segment.seq, segment.ack) == (KEY, 5, 0xFFFFFFFF)
    assert segment.flags == RST | ACK
    assert segment.start == len(raw) == 40
    assert sums_to_zero(raw[:20])
    assert sums_to_zero(raw[12:20] + b"\0\x06\0\x14" + raw[20:])


@pytest.mark.parametrize(
    ("flags", "payload", "expected"),
    [
        (ACK, b"", (700, 500)),
        (ACK, b"four", (700, 504)),
        (ACK | FIN, b"four", (700, 505)),
        (SYN, b"", (0, 501)),
        (RST | ACK, b"", None),
    ],
)
def test_answer_has_the_numbers_that_the_sender_knows(
    flags: int, payload: bytes, expected: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[bytes | int, ...]] = []
    monkeypatch.setattr(tcp_reset.ResetSender, "__init__", lambda self: None)
    answering = tcp_reset.ResetSender()
    monkeypatch.setattr(answering, "send", lambda *what: sent.append(what))
    raw = bytearray(bare_packet(KEY, 500, 700, RST | ACK) + payload)
    raw[2:4] = len(raw).to_bytes(2, "big")
    raw[33] = flags
    segment = Segment.parse(bytes(raw))
    assert segment is not None
    answering.answer(segment)
    back = KEY[4:8] + KEY[:4] + KEY[10:12] + KEY[8:10]
    # The other end is asked for its numbers by something that it cannot take for data of the connection.
    asked = (KEY, 500 - 2048, 700, ACK)
    assert sent == ([] if expected is None else [(back, *expected), asked])
