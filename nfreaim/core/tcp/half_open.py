"""HalfOpen and HalfOpenTable: clients' SYNs that await an answer, in a table that is bounded and fast when
full.

A host inside can send SYNs as fast as the wire takes them, also from made-up addresses. So each SYN is stored
as one integer, and forgetting costs nothing per SYN: the table has two generations, and drops the older one
as a whole when the younger one has filled its half of the bound. So the latest SYNs, up to half of the bound,
are always remembered; by default these are more than one process can be handed in a second, and a server may
take a second to answer. (Popping the first key of a dict looks cheap, but the search for it begins at the
first slot and passes all that were popped before: 80 microseconds with 16384 entries.)
"""

from __future__ import annotations

from typing import Final, NamedTuple

from nfreaim.core.address import End
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


class HalfOpenTable:
    """At most *bound* SYNs, by the key of their packet (see Segment)."""

    def __init__(self, bound: int) -> None:
        self._half = max(1, bound // 2)
        self._young: dict[bytes, int] = {}
        self._old: dict[bytes, int] = {}
        self._turned = 0.0

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def __contains__(self, key: bytes) -> bool:
        return key in self._young or key in self._old

    def begins(self, key: bytes, now: float) -> bool:
        """Whether a client's SYN with this key still awaits its answer."""
        found = self._young.get(key, self._old.get(key))
        return found is not None and now - (found >> _SECOND) < _ANSWERED_WITHIN_S

    def hardware(self, key: bytes) -> bytes | None:
        """The hardware address that sent the SYN of *key*; None without one."""
        return _hardware(self._young.get(key, self._old.get(key, 0)))

    def announce(self, key: bytes, syn: HalfOpen, now: float) -> int:
        """Store a client's SYN, in place of an earlier one. Returns how many others were forgotten for it."""
        forgotten = 0
        if len(self._young) >= self._half and key not in self._young:
            forgotten = self._turn()
        self._old.pop(key, None)
        kind = syn.from_inside << _INSIDE | (0 if syn.scale is None else 1 + syn.scale) << _SCALE
        kind |= int.from_bytes(syn.hardware or b"", "big") << _HARDWARE
        self._young[key] = syn.seq | kind | int(now) << _SECOND
        return forgotten

    def answered(self, key: bytes, ack: int, from_inside: bool) -> HalfOpen | None:
        """The SYN of *key* that this acknowledgement number from the other side answers, or None; removed."""
        found = self._young.get(key)
        if found is None:
            found = self._old.get(key)
        if found is None:
            return None
        scale = (found >> _SCALE & 31) - 1
        inside = bool(found >> _INSIDE & 1)
        syn = HalfOpen(wrap(found), inside, None if scale < 0 else scale, _hardware(found))
        if wrap(syn.seq + 1) != ack or syn.from_inside is from_inside:
            return None
        self._young.pop(key, None)
        self._old.pop(key, None)
        return syn

    def expire(self, now: float) -> None:
        """Forget SYNs that are too old to be answered. Call it now and then."""
        if now - self._turned >= _KEPT_FOR_S:
            self._turn()
            self._turned = now

    def _turn(self) -> int:
        forgotten = len(self._old)
        self._old, self._young = self._young, {}
        return forgotten


def _hardware(found: int) -> bytes | None:
    number = found >> _HARDWARE & (1 << 8 * _HARDWARE_SIZE) - 1
    return number.to_bytes(_HARDWARE_SIZE, "big") if number else None
