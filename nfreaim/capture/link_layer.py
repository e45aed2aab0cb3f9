"""Finds the IPv4 header in a captured frame, and reads no further than its first byte."""

from __future__ import annotations

from typing import Final

_ETHERTYPE_IPV4, _ETHERTYPE_PPPOE, _PPP_IPV4 = 0x0800, 0x8864, 0x0021
_VLAN_TAGS: Final = frozenset((0x8100, 0x88A8, 0x9100))
_AF_INET: Final = (b"\x02\x00\x00\x00", b"\x00\x00\x00\x02")


def network_offset(link: int, data: bytes) -> int | None:
    """Offset of the IPv4 header in a frame of link type *link*; None if the frame holds no IPv4.

    Known link types: Ethernet (1), Linux cooked v1 (113) and v2 (276), with VLAN tags (IEEE 802.1Q, 802.1ad)
    and PPPoE sessions (RFC 2516); raw IP (12, 14, 101, 228); BSD loopback (0 in its machine's byte order,
    108).
    """
    if link == 1:
        at = _behind_ethertype(data, 12, 14)
    elif link == 113:
        at = _behind_ethertype(data, 14, 16)
    elif link == 276:
        at = _behind_ethertype(data, 0, 20)
    elif link in (12, 14, 101, 228):
        at = 0
    elif link in (0, 108) and data[:4] in _AF_INET:
        at = 4
    else:
        return None
    return at if at is not None and data[at : at + 1].hex().startswith("4") else None


def _behind_ethertype(data: bytes, kind_at: int, at: int) -> int | None:
    """Offset of the IPv4 header behind the EtherType at *kind_at* and any tags from *at* on; None if none.

    A field that is cut off matches no known value.
    """
    kind = int.from_bytes(data[kind_at : kind_at + 2])
    while kind in _VLAN_TAGS:
        kind = int.from_bytes(data[at + 2 : at + 4])
        at += 4
    if kind == _ETHERTYPE_PPPOE and int.from_bytes(data[at + 6 : at + 8]) == _PPP_IPV4:
        return at + 8
    return at if kind == _ETHERTYPE_IPV4 else None
