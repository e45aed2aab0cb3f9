"""HalfOpen and HalfOpenTable: clients' SYNs that no server has answered yet. Bounded, and as fast when full.

Anybody inside can send SYNs, from made-up addresses, too, as fast as the wire takes them. So there is one
integer for each, and forgetting costs nothing per SYN: they come in two generations, of which the older is
dropped as a whole when the younger has filled its half of the bound. The younger half of the bound is
therefore always remembered; by default, more SYNs than one can be handed in a second, which is how long a
server may take to answer. (Popping the first key of a dict looks cheap, but the dict is searched from its
beginning for it, past all that were popped before: 80 microseconds with 16384 entries.)
"""

from __future__ import annotations

from typing import Final, NamedTuple

from nfreaim.core.address import End
from nfreaim.core.tcp.segment import wrap

# What the integer holds, from bit 0: sequence number, where it came from, 1 + window scale or 0, second.
_INSIDE, _SCALE, _SECOND = 32, 33, 38
_ANSWERED: Final = 3  # seconds; what has no answer by then was dropped, or its answer takes another way
_PATIENCE: Final = 75.0  # seconds, at least: clients send the third repetition of a SYN after 7


class HalfOpen(NamedTuple):
    """A client's SYN: its sequence number, where it came from, and its window scale (see Segment)."""

    seq: int
    from_inside: bool
    scale: int | None = None

    @property
    def inside(self) -> End:
        """Which end of the flow is the inside one."""
        return End.CLIENT if self.from_inside else End.SERVER


class HalfOpenTable:
    """At most *bound* SYNs by the key of their packet (see Segment)."""

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
        """Whether a client's SYN with this key awaits its answer, and may still get it."""
        found = self._young.get(key, self._old.get(key))
        return found is not None and now - (found >> _SECOND) < _ANSWERED

    def announce(self, key: bytes, syn: HalfOpen, now: float) -> int:
        """A client's SYN was seen; it replaces an earlier one. Returns how many had to give way."""
        forgotten = 0
        if len(self._young) >= self._half and key not in self._young:
            forgotten = self._turn()
        self._old.pop(key, None)
        kind = syn.from_inside << _INSIDE | (0 if syn.scale is None else 1 + syn.scale) << _SCALE
        self._young[key] = syn.seq | kind | int(now) << _SECOND
        return forgotten

    def answered(self, key: bytes, ack: int, from_inside: bool) -> HalfOpen | None:
        """The SYN announced for *key* that this acknowledgement number answers, from the other side."""
        found = self._young.get(key)
        if found is None:
            found = self._old.get(key)
        if found is None:
            return None
        scale = (found >> _SCALE & 31) - 1
        syn = HalfOpen(wrap(found), bool(found >> _INSIDE & 1), None if scale < 0 else scale)
        if wrap(syn.seq + 1) != ack or syn.from_inside is from_inside:
            return None
        self._young.pop(key, None)
        self._old.pop(key, None)
        return syn

    def expire(self, now: float) -> None:
        """Forget those that nobody will answer any more; call it now and then."""
        if now - self._turned >= _PATIENCE:
            self._turn()
            self._turned = now

    def _turn(self) -> int:
        forgotten = len(self._old)
        self._old, self._young = self._young, {}
        return forgotten
