"""What a session remembers of its proposals: tables of the latest few, which most sessions never need."""

from __future__ import annotations

from typing import Any, Final, TypeVar

from nfreaim.layers.oscar_messages import FLAP_HEADER, SNAC_HEADER

NONE: Final[dict[Any, Any]] = {}
"""In place of a table as long as it is empty; never changed."""

_MOST: Final = 8  # an ordinary session has one or two proposals at a time

_K = TypeVar("_K")
_V = TypeVar("_V")


def remembered(table: dict[_K, _V], key: _K, value: _V) -> dict[_K, _V]:
    """*table*, or a new one in place of NONE, with one more entry and at most the latest eight."""
    table = table or {}
    table[key] = value
    if len(table) > _MOST:
        del table[next(iter(table))]
    return table


def request_of(data: bytes) -> int:
    """The request number of the SNAC in the frame *data*, by which an error names its message."""
    number: int = SNAC_HEADER.unpack_from(data, FLAP_HEADER.size)[3]
    return number
