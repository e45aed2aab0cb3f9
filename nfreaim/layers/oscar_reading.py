"""Reads ICBMs by readers compiled from their scapy layers (compiled.py): confirms an edit before it leaves.

What oscar_messages.dissect accepts is accepted, with the same values in the same fields, and what that
refuses is refused. Packets that can be changed and built are made by that one only.
"""

from __future__ import annotations

from typing import Final

from nfreaim.layers.compiled import Record, reader_of
from nfreaim.layers.oscar_messages import (
    FLAP,
    FLAP_HEADER,
    FLAP_MAGIC,
    ICBM_BODIES,
    SNAC,
    FlapChannel,
    RendezvousTLV,
)
from nfreaim.layers.oscar_names import spelled

_FLAP: Final = reader_of(FLAP)
_SNAC: Final = reader_of(SNAC)
_BODIES: Final = {name: reader_of(body) for name, body in ICBM_BODIES.items()}
_DATA: Final = FlapChannel.DATA.value
_NAME: Final = slice(FLAP_HEADER.size, FLAP_HEADER.size + 4)


def read_icbm(frame: bytes) -> tuple[Record, Record, Record]:
    """FLAP header, SNAC header and body of one complete frame with SNAC(04,06), (04,07) or (04,0B).

    Raises ValueError for other frames, if a length or the user-info count reaches beyond its container, if
    bytes remain that no field covers, or if a list has more than MAX_TLVS TLVs.
    """
    size = len(frame)
    flap, pos = _FLAP.read(frame, 0, size)
    if flap.magic != FLAP_MAGIC or flap.channel != _DATA or flap.length != size - pos:
        raise ValueError(f"FLAP channel {flap.channel}, length {flap.length} for {size - pos} bytes of data")
    snac, pos = _SNAC.read(frame, pos, size)
    body = _BODIES.get(frame[_NAME])
    if body is None:
        raise ValueError(f"{spelled(frame[_NAME])} is not an ICBM")
    return flap, snac, body.whole(frame, pos, size)


def rendezvous_in(icbm: Record) -> Record | None:
    """The rendezvous block of an ICBM that was read; None if there is none, or more than one."""
    blocks: list[Record] = [tlv.value for tlv in getattr(icbm, "tlvs", ()) if tlv.layer is RendezvousTLV]
    return blocks[0] if len(blocks) == 1 else None
