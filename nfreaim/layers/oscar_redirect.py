"""Redirects: the messages by which a server sends its client to the next server, as scapy layers.

    SNAC(17,03)  login reply       TLVs to the end
    SNAC(01,05)  service redirect  TLVs to the end
    SNAC(01,12)  migration         count:2, as many families:2 each, then TLVs to the end
    FLAP 4       login reply of the old sign-on (AIM 1 to 3, ICQ 2000 to 2003): the TLVs without a SNAC header

TLV 0x0005 is the next server, "host" or "host:port" in ASCII, TLV 0x0006 the cookie for the connection to it.
Recorded from open-oscar-server v0.24.0; the migration and the reply in FLAP 4 were read from client sources.

As in oscar_messages, a length is computed only if it was left out.
"""

# ruff: noqa: RUF012 - fields_desc is a plain class attribute, as everywhere in scapy
from __future__ import annotations

from typing import Final

from scapy.fields import FieldLenField, FieldListField, PacketListField, XShortField
from scapy.packet import Packet, bind_layers

from nfreaim.layers.oscar_messages import (
    FLAP,
    FLAP_HEADER,
    FLAP_MAGIC,
    MAX_TLVS,
    SNAC,
    SNAC_HEADER,
    TLV,
    FlapChannel,
    check_tlvs,
)
from nfreaim.layers.oscar_names import LOGIN_RESPONSE, MIGRATE_GROUPS, SERVICE_RESPONSE, numbers

SERVER_TLV: Final = 0x0005
"""The TLV that names the next server."""
MAX_FAMILIES: Final = 64


class Redirect(Packet):
    """TLVs to the end; a refused login has 0x0008 (a code) and no 0x0005."""

    fields_desc = [PacketListField("tlvs", [], TLV, max_count=MAX_TLVS)]


class Migration(Packet):
    """count:2, families:2 each, then TLVs to the end."""

    fields_desc = [
        FieldLenField("count", None, count_of="families"),
        FieldListField(
            "families", [], XShortField("", 0), count_from=lambda pkt: min(pkt.count, MAX_FAMILIES)
        ),
        PacketListField("tlvs", [], TLV, max_count=MAX_TLVS),
    ]


_BODIES: Final[dict[bytes, type[Packet]]] = {
    LOGIN_RESPONSE: Redirect,
    SERVICE_RESPONSE: Redirect,
    MIGRATE_GROUPS: Migration,
}
REDIRECTS: Final = frozenset(_BODIES)
"""The SNACs that redirect a client (see oscar_names)."""

bind_layers(FLAP, Redirect, channel=FlapChannel.SIGNOFF)
for _name, _body in _BODIES.items():
    bind_layers(SNAC, _body, **dict(zip(("family", "subtype"), numbers(_name), strict=True)))


def dissect_redirect(frame: bytes) -> FLAP:
    """The layers of one complete FLAP frame, one of REDIRECTS or of channel 4.

    Raises ValueError for other frames, if a length or count reaches beyond its container, if bytes remain
    that no TLV covers, or if a list is longer than MAX_TLVS or MAX_FAMILIES.
    """
    if len(frame) < FLAP_HEADER.size:
        raise ValueError(f"{len(frame)} bytes are too short for a FLAP header")
    magic, channel, _, length = FLAP_HEADER.unpack_from(frame)
    if magic != FLAP_MAGIC or length != len(frame) - FLAP_HEADER.size:
        raise ValueError(
            f"FLAP magic {magic:#04x}, length {length} for {len(frame) - FLAP_HEADER.size} bytes of data"
        )
    body: type[Packet] | None = Redirect
    if channel != FlapChannel.SIGNOFF:
        short = channel != FlapChannel.DATA or len(frame) < FLAP_HEADER.size + SNAC_HEADER.size
        body = None if short else _BODIES.get(frame[FLAP_HEADER.size : FLAP_HEADER.size + 4])
    if body is None:
        raise ValueError(f"FLAP channel {channel}, {length} bytes: not a redirect")
    flap = FLAP(bytes(frame))
    found = _tlvs_in(flap)
    if type(found) is not body:
        raise ValueError("cut short, an extra block that overruns, or too many TLVs")
    if isinstance(found, Migration) and not found.count == len(found.families) <= MAX_FAMILIES:
        raise ValueError(f"migration announces {found.count} families and has {len(found.families)}")
    check_tlvs(found.tlvs, "the redirect")
    return flap


def servers_of(flap: FLAP) -> list[tuple[int, bytes]]:
    """Offset in the frame and value of every TLV 0x0005 of a dissected redirect."""
    found: list[tuple[int, bytes]] = []
    pos = FLAP_HEADER.size + flap.length
    for tlv in reversed(_tlvs_in(flap).tlvs):
        pos -= 4 + tlv.length
        if tlv.type == SERVER_TLV:
            found.insert(0, (pos, bytes(tlv.value)))
    return found


def _tlvs_in(flap: FLAP) -> Packet:
    return flap.payload if flap.channel == FlapChannel.SIGNOFF else flap.payload.payload
