"""What a service is called that has no name: by its capability, as one reads and writes it.

AOL's own capabilities differ in two bytes only, 09461323-4C7F-11D1-8222-444553540000, and are named by these
in its documentation of 2008. This module imports no scapy, because the configuration needs it.
"""

from __future__ import annotations

import re
from typing import Final
from uuid import UUID

_UUID: Final = re.compile(r"[0-9a-f]{8}(-?[0-9a-f]{4}){3}-?[0-9a-f]{12}")
_AOL: Final = re.compile(r"0946([0-9a-f]{4})-4c7f-11d1-8222-444553540000")


NAMES: Final = rf"aim-[0-9a-f]{{4}}|{_UUID.pattern}"
"""A regular expression of all names that ``name_of`` gives."""


def name_of(capability: bytes) -> str:
    """The name of a capability of 16 bytes: "aim-1323" for one of AOL's, else its UUID."""
    text = str(UUID(bytes=capability))
    short = _AOL.fullmatch(text)
    return f"aim-{short[1]}" if short else text


def canonical(text: str) -> str:
    """The name of a service that an operator wrote; a UUID may be written with dashes or without."""
    name = text.lower()
    return name_of(UUID(name).bytes) if _UUID.fullmatch(name) else name
