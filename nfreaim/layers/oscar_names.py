"""The SNACs that nfreaim reads, by AOL's names: the four bytes of family and subtype on the wire.

Source: AOL's OSCAR documentation of 2008.
"""

from __future__ import annotations

from typing import Final

HOST_ONLINE: Final = b"\0\x01\0\x03"
SERVICE_REQUEST: Final = b"\0\x01\0\x04"
SERVICE_RESPONSE: Final = b"\0\x01\0\x05"
NICK_INFO_UPDATE: Final = b"\0\x01\0\x0f"
MIGRATE_GROUPS: Final = b"\0\x01\0\x12"
SET_NICKINFO_FIELDS: Final = b"\0\x01\0\x1e"
USER_INFO_REPLY: Final = b"\0\x02\0\x06"
ARRIVED: Final = b"\0\x03\0\x0b"
DEPARTED: Final = b"\0\x03\0\x0c"
ICBM_ERR: Final = b"\0\x04\0\x01"
CHANNEL_MSG_TO_HOST: Final = b"\0\x04\0\x06"
CHANNEL_MSG_TO_CLIENT: Final = b"\0\x04\0\x07"
CLIENT_ERR: Final = b"\0\x04\0\x0b"
LOGIN_REQUEST: Final = b"\0\x17\0\x02"
LOGIN_RESPONSE: Final = b"\0\x17\0\x03"

FAMILY_ICBM: Final = CHANNEL_MSG_TO_HOST[:2]


def spelled(snac: bytes) -> str:
    """The four bytes of a SNAC's name as documents write them: SNAC(04,06)."""
    family, subtype = numbers(snac)
    return f"SNAC({family:02x},{subtype:02x})"


def numbers(snac: bytes) -> tuple[int, int]:
    """Family and subtype in the four bytes of a SNAC's name."""
    return int.from_bytes(snac[:2], "big"), int.from_bytes(snac[2:], "big")
