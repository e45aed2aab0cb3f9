"""Masking: addresses in a text become names, the same name for the same address throughout.

Somebody can then send a report to a stranger who helps: what is the same stays the same, and whether an
address is private can still be seen.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import Final

_NUMBER: Final = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
_IPV4: Final = rf"(?<![\d.])(?:{_NUMBER}\.){{3}}{_NUMBER}(?!\.?\d)"
_MAC: Final = r"(?<![0-9A-Fa-f:])(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}(?![0-9A-Fa-f:])"
_IPV6: Final = r"(?<![\w:.])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:.])"
_SHARED: Final = IPv4Network("100.64.0.0/10")
_PRIVATE: Final = [
    IPv4Network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16")
]


class Mask:
    """Replaces IPv4, IPv6 and hardware addresses, and the *words* (such as host names), in texts."""

    def __init__(self, words: Iterable[str] = ()) -> None:
        self._names: dict[str, str] = {}
        self._counts: dict[str, int] = {}
        self._words = set(words)
        named = sorted(map(re.escape, self._words), key=len, reverse=True)
        self._pattern = re.compile(
            "|".join([*(rf"(?<!\w){word}(?!\w)" for word in named), _MAC, _IPV4, _IPV6])
        )

    def __call__(self, text: str) -> str:
        """*text* with names in place of addresses."""
        return self._pattern.sub(lambda found: self._name(found[0]), text)

    def _name(self, found: str) -> str:
        kind = self._kind(found)
        if not kind:
            return found
        if found not in self._names:
            self._counts[kind] = self._counts.get(kind, 0) + 1
            self._names[found] = f"{kind}-{self._counts[kind]}"
        return self._names[found]

    def _kind(self, found: str) -> str:
        """What the name begins with; "" for what says nothing about anybody."""
        if found in self._words:
            return "name"
        if re.fullmatch(_MAC, found):
            return "hardware"
        try:
            address = IPv4Address(found) if "." in found else IPv6Address(found)
        except ValueError:  # a time of day
            return ""
        if address.is_loopback or address.is_unspecified:
            return ""
        if isinstance(address, IPv6Address):
            return "ipv6"
        if address in _SHARED:
            return "carrier"
        return "private" if any(address in network for network in _PRIVATE) else "public"
