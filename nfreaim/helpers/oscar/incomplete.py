"""Where in a frame whose end is missing an edit could begin, so that what is before need not wait.

Reads by structure, as far as the bytes go; decides nothing about the message and edits nothing.
"""

from __future__ import annotations

from typing import Final

from nfreaim.core.address import Direction
from nfreaim.core.helper import Nat
from nfreaim.helpers.oscar.flap import SNAC_BODY
from nfreaim.helpers.oscar.icq import OWN_RENDEZVOUS, SET_STATUS, first_field, first_in_error
from nfreaim.helpers.oscar.proposal import EDITABLE
from nfreaim.layers.oscar_messages import (
    FLAP_HEADER,
    RENDEZVOUS_HEADER,
    SNAC_FLAG_EXTRA,
    SNAC_HEADER,
    TLV_HEADER,
    IcbmChannel,
    IcbmTag,
    IcbmToClient,
    RdvTag,
    RdvType,
)
from nfreaim.layers.structs import header_struct

TO_HOST: Final = b"\x00\x04\x00\x06"
TO_CLIENT: Final = b"\x00\x04\x00\x07"
CLIENT_ERROR: Final = b"\x00\x04\x00\x0b"
ICBM: Final = header_struct(IcbmToClient)

# Plain numbers: before Python 3.12 reading an enum's member costs as much as unpacking a header.
_RENDEZVOUS: Final = IcbmChannel.RENDEZVOUS.value


def first_in_frame(frame: bytes, direction: Direction, nat: Nat) -> int | None:
    """Where in *frame*, of which the end is missing, the first byte stands that an edit could concern."""
    name, body = frame[FLAP_HEADER.size : FLAP_HEADER.size + 4], body_of(frame)
    if nat.server_inside:
        return first_editable(frame, direction) if name == TO_CLIENT else None
    if name == SET_STATUS:
        return first_field(frame, name, body)
    if name == CLIENT_ERROR:
        return first_in_error(frame, body) if direction is Direction.ORIGINAL else None
    first = None
    if direction is Direction.REPLY and nat.has_standing():
        first = first_field(frame, name, body + (ICBM.size if name == TO_CLIENT else 0))
    if first is None and name in (TO_HOST, TO_CLIENT):
        first = first_editable(frame, direction)
    return first


def first_editable(frame: bytes, direction: Direction) -> int | None:
    """Where in *frame*, of which the end may be missing, the first byte stands that an edit could change.

    None if there is none in what is there. Read by structure, as far as the bytes go: user-info TLVs 0x0003
    and 0x0005 (sign-on time, member since) look exactly like an address and a port.
    """
    pos = body_of(frame)
    size = len(frame)
    if size < pos + ICBM.size + 1 or ICBM.unpack_from(frame, pos)[1] != _RENDEZVOUS:
        return None
    pos += ICBM.size
    pos += 1 + frame[pos]
    if direction is Direction.REPLY:  # user info: warning level and a count that alone delimits its TLVs
        count = int.from_bytes(frame[pos + 2 : pos + 4], "big")
        pos += 4
        while count and pos + TLV_HEADER.size <= size:
            pos += TLV_HEADER.size + TLV_HEADER.unpack_from(frame, pos)[1]
            count -= 1
    while pos + TLV_HEADER.size <= size:
        tag, length = TLV_HEADER.unpack_from(frame, pos)
        pos += TLV_HEADER.size
        if tag == IcbmTag.DATA:
            return _first_in_block(frame, pos, min(pos + length, size))
        pos += length
    return None


def _first_in_block(frame: bytes, pos: int, size: int) -> int | None:
    if pos + RENDEZVOUS_HEADER.size > size:
        return None
    kind, _, capability = RENDEZVOUS_HEADER.unpack_from(frame, pos)
    if kind != RdvType.PROPOSE:
        return None
    editable = EDITABLE
    if capability in OWN_RENDEZVOUS:
        editable |= {RdvTag.SVC_DATA}
    first = None
    pos += RENDEZVOUS_HEADER.size
    while pos + TLV_HEADER.size <= size:
        tag, length = TLV_HEADER.unpack_from(frame, pos)
        pos += TLV_HEADER.size
        if tag == RdvTag.USE_ARS:
            return None
        if first is None and tag in editable:
            first = pos
        pos += length
    return first


def body_of(frame: bytes) -> int:
    """Where the SNAC body begins: behind the extra block, if the flags announce one."""
    if len(frame) >= SNAC_BODY + 2 and SNAC_HEADER.unpack_from(frame, FLAP_HEADER.size)[2] & SNAC_FLAG_EXTRA:
        return SNAC_BODY + 2 + int.from_bytes(frame[SNAC_BODY : SNAC_BODY + 2], "big")
    return SNAC_BODY
