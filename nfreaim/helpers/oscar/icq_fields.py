"""Where an ICQ client's endpoint stands in messages of OSCAR: the TLVs 0x000C and 0x000A, read as bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Final, NamedTuple

from nfreaim.layers.oscar_icq import DirectInfo, UserTag
from nfreaim.layers.oscar_messages import MAX_TLVS, TLV_HEADER
from nfreaim.layers.oscar_names import ARRIVED, DEPARTED, NICK_INFO_UPDATE, SET_NICKINFO_FIELDS
from nfreaim.layers.structs import header_struct

_INFO: Final = header_struct(DirectInfo)
_SEVERAL: Final = frozenset({NICK_INFO_UPDATE, ARRIVED, DEPARTED})  # SNACs that are blocks to their end
OF_INTEREST: Final = {(UserTag.DIRECT_INFO.value, _INFO.size), (UserTag.EXTERNAL_IP.value, 4)}


_BEGIN: Final = -1  # in place of a type: a user-info block begins here


class Field(NamedTuple):
    """A TLV that is read: the number of its user-info block, its type, the offset of its value.

    user  the name in the block
    """

    block: int
    tag: int
    at: int
    user: bytes = b""


def first_field(frame: bytes, name: bytes, body: int) -> int | None:
    """Offset in *frame*, whose end may be missing, of the first value of a TLV 0x000C or 0x000A; or None."""
    fields = status_fields(frame, body) if name == SET_NICKINFO_FIELDS else user_fields(frame, name, body)
    with suppress(ValueError):  # the frame's end is missing
        return next((field.at for field in fields), None)
    return None


def status_fields(frame: bytes, body: int) -> Iterator[Field]:
    """The TLVs 0x000C of a SNAC(01,1E). Raises ValueError as _tlvs does."""
    for tag, length, at in _tlvs(frame, body):
        if tag == UserTag.DIRECT_INFO and length == _INFO.size:
            yield Field(0, tag, at)


def user_fields(frame: bytes, name: bytes, body: int) -> Iterator[Field]:
    """The TLVs 0x000C and 0x000A of the user-info blocks that begin at *body*. Raises ValueError as _tlvs
    does."""
    return (field for field in _fields(frame, name, body) if field.tag != _BEGIN)


def users(frame: bytes, name: bytes, body: int) -> list[bytes]:
    """The names in the user-info blocks that begin at *body*. Raises ValueError as _tlvs does."""
    return [field.user for field in _fields(frame, name, body) if field.tag == _BEGIN]


def _fields(frame: bytes, name: bytes, body: int) -> Iterator[Field]:
    """The beginning of each user-info block, and its TLVs of interest.

    Only its count says where the TLVs of a block end; other TLVs or another block may follow. Raises
    ValueError as _tlvs does.
    """
    pos, size, block, room = body, len(frame), 0, MAX_TLVS
    while pos < size and (not block or name in _SEVERAL):
        user = frame[pos + 1 : pos + 1 + frame[pos]]
        yield Field(block, _BEGIN, pos, user)
        pos += 1 + frame[pos]
        if pos + 4 > size:
            raise ValueError("a user-info block overruns its frame")
        count = int.from_bytes(frame[pos + 2 : pos + 4], "big")
        pos += 4
        room -= count + 1  # a block without TLVs counts, too
        if room < 0:
            raise ValueError("too many TLVs")
        for tag, length, at in _tlvs(frame, pos, count):
            pos = at + length
            if (tag, length) in OF_INTEREST:
                yield Field(block, tag, at, user)
        block += 1


def _tlvs(frame: bytes, pos: int, count: int | None = None) -> Iterator[tuple[int, int, int]]:
    """Type, length and offset of the value of *count* TLVs from *pos* on; without *count*, to the frame's
    end.

    Raises ValueError at a TLV that overruns the frame. If the TLV's header is complete it is yielded first,
    for a caller that knows that the frame's end is missing.
    """
    size, room = len(frame), MAX_TLVS
    while pos < size if count is None else count:
        if not room:
            raise ValueError("too many TLVs")
        room -= 1
        if pos + TLV_HEADER.size > size:
            raise ValueError("a TLV's header overruns its frame")
        tag, length = TLV_HEADER.unpack_from(frame, pos)
        pos += TLV_HEADER.size
        yield tag, length, pos
        pos += length
        if pos > size:
            raise ValueError("a TLV's value overruns its frame")
        if count:
            count -= 1
