"""Leases: until when the kernel keeps each pinhole without another word from the daemon.

A set entry's time-out is short, whatever the pinhole's deadline is, so that no pinhole stays open for long
after a daemon that died and did not come back. A daemon that lives renews its entries all the time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from nfreaim.core.address import Endpoint
from nfreaim.core.firewall.pinhole import Pinhole

LEASE_S: Final = 25
"""Time-out of an entry that was just written. A daemon that crashed is back within seconds (RestartSec=1 of
its unit), so it finds its pinholes."""

RENEW_AFTER_S: Final = 5.0
"""An entry is written again when it is so old, so each has at least 20 s left at any time."""

# A renewal takes about 5 µs an entry. Of many that are due a fourth is written at each call, about every
# second, so that packets do not wait.
_SLICE: Final = 128
_SLICES: Final = 4


class Leases:
    """The end of each entry's time, by outside endpoint. Times are the daemon's clock, in seconds."""

    def __init__(self) -> None:
        self._ends: dict[Endpoint, float] = {}

    def seconds(self, pinhole: Pinhole, now: float) -> int:
        """The time-out of an entry that is written now. The kernel never closes before the deadline."""
        left = pinhole.deadline - now
        return LEASE_S if left >= LEASE_S else max(0, math.floor(left)) + 1

    def written(self, pinhole: Pinhole, now: float) -> None:
        """The entries of *pinhole* were written, with a time-out of ``seconds(pinhole, now)``."""
        self._ends[pinhole.outside] = now + self.seconds(pinhole, now)

    def gone(self, outside: Endpoint) -> None:
        """No pinhole is at *outside* any more."""
        self._ends.pop(outside, None)

    def lapsed(self, pinhole: Pinhole, now: float) -> bool:
        """Whether the kernel has closed *pinhole* by itself: nobody came to renew it."""
        return self._ends.get(pinhole.outside, math.inf) <= now

    def due(self, pinholes: Sequence[Pinhole], now: float) -> list[Pinhole]:
        """Those of *pinholes*, all that are open, that have to be written again now.

        These are all whose time is over or unknown, and of the others a share, the oldest first. None is past
        its deadline: the kernel has closed such a one, and nobody opens it again.
        """
        at_once: list[Pinhole] = []
        aged: list[tuple[float, Pinhole]] = []
        for pinhole in pinholes:
            end = self._ends.get(pinhole.outside, -math.inf)
            if pinhole.deadline <= now:
                continue
            if end <= now:
                at_once.append(pinhole)
            elif end < pinhole.deadline and end <= now + LEASE_S - RENEW_AFTER_S:
                aged.append((end, pinhole))
        share = max(_SLICE, math.ceil(len(pinholes) / _SLICES))
        aged.sort(key=lambda each: each[0])
        return at_once + [pinhole for _, pinhole in aged[:share]]
