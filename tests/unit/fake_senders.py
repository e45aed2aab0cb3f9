"""FakeSenders: says who sent a packet as a test wants it."""

from __future__ import annotations

from typing import Any

from nfreaim.core.backend import Sender


class FakeSenders:
    """Neighbours: `at` has the hardware address of each inside address that is known; unless it is empty,
    packets come from the host that their source names, or from `frame`."""

    def __init__(self) -> None:
        self.at: dict[str, bytes] = {}
        self.frame: bytes | None = None
        self.asked = 0

    def hardware(self, token: Any) -> bytes | None:
        return self.frame

    def sent(self, address: str, hardware: bytes | None) -> Sender:
        self.asked += 1
        if not self.at:
            return Sender.UNCHECKED
        if address not in self.at:
            return Sender.UNKNOWN
        return Sender.HOST if self.at[address] == hardware else Sender.STRANGER
