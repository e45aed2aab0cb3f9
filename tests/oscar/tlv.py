"""TLVs (u16 type, u16 length, value), names (u8 length, ASCII), and user info, which is made of both."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from tests.oscar.values import WireError

Tlv = tuple[int, bytes]


def tlv(kind: int, value: bytes = b"", length: int | None = None) -> bytes:
    """One TLV; *length* is what it says of itself, if that is not true."""
    return struct.pack("!HH", kind, len(value) if length is None else length) + value


def tlvs(items: Iterable[Tlv]) -> bytes:
    """Several TLVs in the order given."""
    return b"".join(tlv(kind, value) for kind, value in items)


def whole_tlvs(data: bytes, count: int | None = None) -> tuple[list[Tlv], bytes]:
    """*count* TLVs, or all to the end, or to the first that overruns; what is left behind them."""
    items: list[Tlv] = []
    while len(data) >= 4 and (count is None or len(items) < count):
        kind, length = struct.unpack_from("!HH", data)
        if len(data) < 4 + length:
            break
        items.append((kind, data[4 : 4 + length]))
        data = data[4 + length :]
    return items, data


def parse_tlvs(data: bytes, count: int | None = None) -> tuple[list[Tlv], bytes]:
    """*count* TLVs, or all to the end; what is left behind them."""
    items, rest = whole_tlvs(data, count)
    if rest if count is None else len(items) < count:
        raise WireError(f"TLV {len(items)} is cut off")
    return items, rest


def first_tlv(items: Iterable[Tlv], kind: int) -> bytes | None:
    """Value of the first TLV of that type (libpurple's choice where a type occurs twice)."""
    return next((value for k, value in items if k == kind), None)


def name8(name: str | bytes) -> bytes:
    """u8 length and the name."""
    raw = name.encode("ascii") if isinstance(name, str) else name
    return bytes([len(raw)]) + raw


def take_name8(data: bytes) -> tuple[str, bytes]:
    """Inverse of :func:`name8`; also returns the rest."""
    if not data or len(data) < 1 + data[0]:
        raise WireError("name cut off")
    return data[1 : 1 + data[0]].decode("ascii", "replace"), data[1 + data[0] :]


def user_info(name: str | bytes, *items: bytes, warning: int = 0) -> bytes:
    """u8 name length, name, u16 warning level, u16 count, TLVs, each as its bytes."""
    return name8(name) + struct.pack("!HH", warning, len(items)) + b"".join(items)


def take_user_info(data: bytes) -> tuple[str, list[Tlv], bytes]:
    """Name, TLVs and what follows the block; the count is the only delimiter."""
    name, rest = take_name8(data)
    if len(rest) < 4:
        raise WireError("user info cut off")
    items, rest = parse_tlvs(rest[4:], struct.unpack_from("!H", rest, 2)[0])
    return name, items, rest
