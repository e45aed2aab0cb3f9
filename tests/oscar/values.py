"""Addresses and ports as bytes, their complements, and bytes put over others."""

from __future__ import annotations

import ipaddress


class WireError(ValueError):
    """The bytes are not what their framing promises."""


def ip4(text: str) -> bytes:
    """Four bytes of a dotted address."""
    return ipaddress.IPv4Address(text).packed


def ip_text(raw: bytes) -> str:
    """Dotted form of four bytes."""
    return str(ipaddress.IPv4Address(raw))


def u16(number: int) -> bytes:
    """Two bytes."""
    return number.to_bytes(2, "big")


def complement(value: bytes) -> bytes:
    """Bitwise inverse, as in TLV 0x0016 of 0x0002 and in TLV 0x0017 of 0x0005."""
    return bytes(byte ^ 0xFF for byte in value)


def put(data: bytes, *changes: tuple[int, bytes]) -> bytes:
    """*data* with other bytes at these offsets."""
    for at, new in changes:
        data = data[:at] + new + data[at + len(new) :]
    return data
