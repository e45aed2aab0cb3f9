"""What may differ between a packet that came and the one that left in its place."""

from __future__ import annotations

from typing import Final

from tests.tcp.packets import FIN, checksum_error, ip_checksum_error, payload_at, tcp_at

_DF: Final = 0x40


def same_place(raw: bytes, out: bytes) -> None:
    """Nothing but payload and TCP checksum differ, and the checksum is as right or wrong as it was."""
    tcp, start = tcp_at(raw), payload_at(raw)
    assert out != raw, "a packet that did not change is written back"
    assert len(out) == len(raw), "the length changed"
    assert out[: tcp + 16] == raw[: tcp + 16], "more than payload and TCP checksum changed"
    assert out[tcp + 18 : start] == raw[tcp + 18 : start], "more than payload and TCP checksum changed"
    same_checksums(raw, out)


def same_headers(raw: bytes, out: bytes) -> None:
    """What no translation of sequence numbers may touch."""
    tcp, start = tcp_at(raw), payload_at(raw)
    assert out != raw, "a packet that did not change is written back"
    assert len(out) == int.from_bytes(out[2:4], "big"), "the length in the IP header is wrong"
    assert out[:2] + out[4:6] + out[8:10] + out[12:tcp] == raw[:2] + raw[4:6] + raw[8:10] + raw[12:tcp]
    allowed = {raw[6]} | ({raw[6] & ~_DF} if len(out) > len(raw) else set())
    assert (out[6] in allowed, out[7]) == (True, raw[7]), "fragmentation"
    flags = {raw[tcp + 13], raw[tcp + 13] & ~FIN}  # a FIN that does not fit into the window comes again
    assert out[tcp + 13] in flags, "flags"
    for low, high in ((0, 4), (12, 13), (14, 16), (18, 20)):
        assert out[tcp + low : tcp + high] == raw[tcp + low : tcp + high], "ports, window or urgent pointer"
    assert payload_at(out) == start, "the options have another size"
    same_checksums(raw, out)
    if b"\x05" not in raw[tcp + 20 : start]:
        assert out[tcp + 20 : start] == raw[tcp + 20 : start], "options changed"


def same_checksums(raw: bytes, out: bytes) -> None:
    """Both checksums are as right, or wrong by as much, as they were."""
    assert checksum_error(out) == checksum_error(raw), "the checksum was right before, or wrong otherwise"
    assert _ip_error(out) == _ip_error(raw), "the IP checksum"


def _ip_error(raw: bytes) -> int:
    return ip_checksum_error(raw) % 0xFFFF
