"""ICBM frames made to order, for tests of the wire layer."""

from __future__ import annotations

from nfreaim.layers.oscar_messages import Icbm, IcbmChannel
from tests.golden import load

GOLDEN = load()
INSIDE = bytes([10, 0, 0, 5])
OUTSIDE = bytes([203, 0, 113, 1])


def subtype_of(frame: bytes) -> tuple[int, int] | None:
    """(family, subtype) of a FLAP data frame, read without the code under test."""
    if frame[:2] != b"\x2a\x02" or len(frame) < 16:
        return None
    return int.from_bytes(frame[6:8], "big"), int.from_bytes(frame[8:10], "big")


READABLE = [name for name, g in GOLDEN.items() if subtype_of(g.data) in {(4, 6), (4, 7), (4, 0x0B)}]
BLOCKS = [name for name in READABLE if name not in {"text-message", "decline"}]


def frame(body: bytes, subtype: int = Icbm.CHANNEL_MSG_TO_HOST, flags: int = 0, sequence: int = 1) -> bytes:
    snac = b"\x00\x04" + subtype.to_bytes(2, "big") + flags.to_bytes(2, "big") + bytes(4) + body
    return b"\x2a\x02" + sequence.to_bytes(2, "big") + len(snac).to_bytes(2, "big") + snac


def to_host(tlvs: bytes, channel: int = IcbmChannel.RENDEZVOUS, name: bytes = b"bob1") -> bytes:
    return frame(b"COOKIE7\0" + channel.to_bytes(2, "big") + bytes([len(name)]) + name + tlvs)


def tlv(tlv_type: int, value: bytes, length: int | None = None) -> bytes:
    return tlv_type.to_bytes(2, "big") + (len(value) if length is None else length).to_bytes(2, "big") + value


def block(inner: bytes) -> bytes:
    return b"\x00\x00COOKIE7\0" + bytes(16) + inner


def replaced(data: bytes, offset: int, new: bytes) -> bytes:
    return data[:offset] + new + data[offset + len(new) :]
