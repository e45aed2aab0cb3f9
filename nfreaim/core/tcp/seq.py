"""Sequence number arithmetic (RFC 9293 section 3.4): 32 bits, modulo 2**32."""

from __future__ import annotations

from typing import Final

MASK: Final = 0xFFFFFFFF
_HALF: Final = 0x80000000


def wrap(number: int) -> int:
    """*number* as it stands in a header."""
    return number & MASK


def distance(start: int, number: int) -> int:
    """How far *number* lies behind *start*, from -2**31 to 2**31 - 1; negative: before it."""
    return ((number - start + _HALF) & MASK) - _HALF
