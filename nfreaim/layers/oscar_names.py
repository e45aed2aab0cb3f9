"""The SNACs that nfreaim reads, by AOL's names: family and subtype as they stand on the wire, four bytes.

Source: AOL's OSCAR documentation of 2008.
"""

from __future__ import annotations

from typing import Final

HOST_ONLINE: Final = b"\0\x01\0\x03"
SERVICE_RESPONSE: Final = b"\0\x01\0\x05"
NICK_INFO_UPDATE: Final = b"\0\x01\0\x0f"
MIGRATE_GROUPS: Final = b"\0\x01\0\x12"
SET_NICKINFO_FIELDS: Final = b"\0\x01\0\x1e"
USER_INFO_REPLY: Final = b"\0\x02\0\x06"
ARRIVED: Final = b"\0\x03\0\x0b"
ICBM_ERR: Final = b"\0\x04\0\x01"
CHANNEL_MSG_TO_HOST: Final = b"\0\x04\0\x06"
CHANNEL_MSG_TO_CLIENT: Final = b"\0\x04\0\x07"
CLIENT_ERR: Final = b"\0\x04\0\x0b"
LOGIN_RESPONSE: Final = b"\0\x17\0\x03"

FAMILY_ICBM: Final = CHANNEL_MSG_TO_HOST[:2]


def spelled(snac: bytes) -> str:
    """One of these, or any other, as documents write it: SNAC(04,06)."""
    family, subtype = numbers(snac)
    return f"SNAC({family:02x},{subtype:02x})"


def numbers(snac: bytes) -> tuple[int, int]:
    """Family and subtype of one of these."""
    return int.from_bytes(snac[:2], "big"), int.from_bytes(snac[2:], "big")
