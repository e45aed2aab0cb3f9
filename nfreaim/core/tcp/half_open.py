"""HalfOpen and HalfOpenTable: clients' SYNs that await an answer.

Each is one integer. The latest, up to half of the bound, are always remembered; by default these are more
than one process can be handed in a second, and a server may take a second to answer.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from nfreaim.core.address import End
from nfreaim.core.generations import Generations
from nfreaim.core.tcp.segment import wrap

# First bit of each part of the integer. The sequence number has bits 0 to 31; then whether the SYN came from
# inside, 1 + window scale or 0, the hardware address that it came from or 0, and the second of its arrival.
_INSIDE, _SCALE, _HARDWARE, _SECOND = 32, 33, 38, 86
_HARDWARE_SIZE: Final = 6
_ANSWERED_WITHIN_S: Final = 3  # a SYN not answered by then was dropped, or its answer has another route
_KEPT_FOR_S: Final = 75.0  # at least; clients repeat a SYN for the third time after 7


class HalfOpen(NamedTuple):
    """A client's SYN: its sequence number, the side it came from, its window scale (see Segment), and the
    hardware address that sent it, where the link has such addresses.
    """

    seq: int
    from_inside: bool
    scale: int | None = None
    hardware: bytes | None = None

    @property
    def inside(self) -> End:
        """The inside end of the flow."""
        return End.CLIENT if self.from_inside else End.SERVER


class HalfOpenTable(Generations):
    """At most *bound* SYNs, by the key of their packet (see Segment)."""

    def __init__(self, bound: int) -> None:
        super().__init__(bound, _KEPT_FOR_S)

    def begins(self, key: bytes, now: float) -> bool:
        """Whether a client's SYN with this key still awaits its answer."""
        found = self._find(key)
        return found is not None and now - (found >> _SECOND) < _ANSWERED_WITHIN_S

    def hardware(self, key: bytes) -> bytes | None:
        """The hardware address that sent the SYN of *key*; None without one."""
        return _hardware(self._find(key) or 0)

    def announce(self, key: bytes, syn: HalfOpen, now: float) -> int:
        """Store a client's SYN, in place of an earlier one. Returns how many others were forgotten for it."""
        kind = syn.from_inside << _INSIDE | (0 if syn.scale is None else 1 + syn.scale) << _SCALE
        kind |= int.from_bytes(syn.hardware or b"", "big") << _HARDWARE
        return self._put(key, syn.seq | kind | int(now) << _SECOND)

    def answered(self, key: bytes, ack: int, from_inside: bool) -> HalfOpen | None:
        """The SYN of *key* that this acknowledgement number from the other side answers, or None; removed."""
        found = self._find(key)
        if found is None:
            return None
        scale = (found >> _SCALE & 31) - 1
        inside = bool(found >> _INSIDE & 1)
        syn = HalfOpen(wrap(found), inside, None if scale < 0 else scale, _hardware(found))
        if wrap(syn.seq + 1) != ack or syn.from_inside is from_inside:
            return None
        self.forget(key)
        return syn


def _hardware(found: int) -> bytes | None:
    number = found >> _HARDWARE & (1 << 8 * _HARDWARE_SIZE) - 1
    return number.to_bytes(_HARDWARE_SIZE, "big") if number else None
