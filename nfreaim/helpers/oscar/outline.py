"""Outline: where the fields of a rendezvous message are, read from its bytes before any layer sees them.

An outline keeps what is asked for and nothing else, and decides about nearly every message: only one that is
edited is read by its layers, to confirm the edit (layers/oscar_reading.py).
What has more than MAX_TLVS TLVs in all, or another number of rendezvous blocks than one, is no message of a
client that was seen, and has no outline.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from nfreaim.core.tcp.offsets import Edit
from nfreaim.helpers.oscar.flap import SNAC_BODY
from nfreaim.layers.oscar_icq import UserTag
from nfreaim.layers.oscar_messages import (
    FLAP_HEADER,
    MAX_TLVS,
    RENDEZVOUS_HEADER,
    SNAC_HEADER,
    TLV_HEADER,
    IcbmTag,
    RdvTag,
)
from nfreaim.layers.oscar_names import CHANNEL_MSG_TO_CLIENT

_ICBM: Final = 10  # cookie:8, channel:2
# Plain numbers and names of this module: before Python 3.12 reading an enum's member is slow.
_DATA: Final = IcbmTag.DATA.value
_TLV_SIZE: Final = TLV_HEADER.size
_BLOCK_SIZE: Final = RENDEZVOUS_HEADER.size
_unpack = TLV_HEADER.unpack_from
_OF_BLOCK: Final = frozenset(
    tag.value
    for tag in (
        *(RdvTag.RDV_IP, RdvTag.REQUESTER_IP, RdvTag.VERIFIED_IP, RdvTag.PORT, RdvTag.SEQ_NUM),
        *(RdvTag.USE_ARS, RdvTag.REQUEST_SECURE, RdvTag.IP_XOR, RdvTag.PORT_XOR, RdvTag.SVC_DATA),
    )
)
_OF_SENDER: Final = frozenset(tag.value for tag in UserTag)


class Item:
    """A TLV: its type, the offset of its value in the frame, and that value, which may be set."""

    __slots__ = ("at", "type", "value")

    def __init__(self, tag: int, at: int, value: bytes) -> None:
        self.type = tag
        self.at = at
        self.value = value


class Outline:
    """A message with one rendezvous block.

    request     id of the SNAC
    cookie      of the message; *agreement* is the block's own
    whom        screen name of the other party, as it is written
    kind        of the block, an RdvType
    capability  16 bytes
    items       the TLVs of the block that anybody reads, in order; *sender* those of the sender's user info
    """

    __slots__ = ("agreement", "capability", "cookie", "items", "kind", "request", "sender", "whom")

    def __init__(self, frame: bytes, body: int) -> None:
        """Of *frame*, a whole SNAC(04,06) or (04,07) on channel 2, whose body begins at *body*.

        Raises ValueError if a length reaches beyond its container, if bytes remain that no TLV covers, and
        for the bounds above.
        """
        size = len(frame)
        self.request: int = SNAC_HEADER.unpack_from(frame, FLAP_HEADER.size)[3]
        pos = body + _ICBM
        if size <= pos or body < SNAC_BODY:
            raise ValueError("cut short")
        self.cookie = frame[body : body + 8]
        length = frame[pos]
        pos += 1
        self.whom = frame[pos : pos + length]
        pos += length
        room = MAX_TLVS
        self.sender: list[Item] = []
        if frame[FLAP_HEADER.size : FLAP_HEADER.size + 4] == CHANNEL_MSG_TO_CLIENT:
            count = int.from_bytes(frame[pos + 2 : pos + 4], "big")
            pos += 4
            if count > room or pos > size:
                raise ValueError("user info is cut short, or has too many TLVs")
            for _ in range(count):
                if pos + _TLV_SIZE > size:
                    raise ValueError("user info is cut short")
                tag, length = _unpack(frame, pos)
                pos += _TLV_SIZE
                if tag in _OF_SENDER:
                    self.sender.append(Item(tag, pos, frame[pos : pos + length]))
                pos += length
            room -= count
        if pos > size:
            raise ValueError("cut short")
        begin = end = 0
        for tag, at, after in tlvs_in(frame, pos, size, room):
            room -= 1
            if tag == _DATA:
                if begin:
                    raise ValueError("several rendezvous blocks")
                begin, end = at, after
        if end - begin < _BLOCK_SIZE:
            raise ValueError("no rendezvous block, or one that is too short")
        self.kind: int
        self.agreement: bytes
        self.capability: bytes
        self.kind, self.agreement, self.capability = RENDEZVOUS_HEADER.unpack_from(frame, begin)
        self.items = [
            Item(tag, at, frame[at:after])
            for tag, at, after in tlvs_in(frame, begin + _BLOCK_SIZE, end, room)
            if tag in _OF_BLOCK
        ]

    def first(self, tag: int) -> Item | None:
        """The first TLV of that type in the block; None if there is none."""
        return next((item for item in self.items if item.type == tag), None)

    def all(self, tag: int) -> list[Item]:
        """Every TLV of that type in the block, in order."""
        return [item for item in self.items if item.type == tag]

    def told(self) -> list[tuple[int, bytes]]:
        """Type and value of the items."""
        return [(item.type, item.value) for item in self.items]

    def has_within(self, edit: Edit, at: int) -> bool:
        """Whether *edit* of the frame at stream offset *at* changes bytes of one value only."""
        return any(
            item.at <= edit.start - at and edit.end - at <= item.at + len(item.value) for item in self.items
        )

    def patched(self, frame: bytes) -> bytes | None:
        """*frame* with the values that were set; None if one has another length than it had."""
        data = bytearray(frame)
        for item in self.items:
            if len(item.value) != _unpack(frame, item.at - _TLV_SIZE)[1]:
                return None
            data[item.at : item.at + len(item.value)] = item.value
        return bytes(data)


def tlvs_in(frame: bytes, pos: int, end: int, most: int = MAX_TLVS) -> Iterator[tuple[int, int, int]]:
    """Type, and where the value begins and ends, of the TLVs that fill [pos, end), which are *most* at most.

    Raises ValueError at what is none, and at one too many.
    """
    while pos < end:
        if pos + _TLV_SIZE > end or not most:
            raise ValueError("bytes are left over" if most else "too many TLVs")
        most -= 1
        tag, length = _unpack(frame, pos)
        pos += _TLV_SIZE
        if pos + length > end:
            raise ValueError("a TLV overruns")
        yield tag, pos, pos + length
        pos += length
