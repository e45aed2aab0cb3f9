"""AnsweredCalls: connections whose SYN an inside host has answered, while nothing has come from the peer.

Anybody can send SYNs, also from made-up addresses, and hosts answer any number of them. So such a connection
is one integer in a table of two generations: when the younger one has filled its half of the bound, the older
one is dropped as a whole. The latest half is always remembered, and forgetting costs nothing for each entry.
"""

from __future__ import annotations

from typing import Final, NamedTuple

_KEPT_FOR_S: Final = 75.0  # at least; hosts give up on a SYN/ACK after 63 s, connection tracking after 60 s
_CALLED: Final = 1 << 64  # no numbers, as the SYN has not been answered


class Answer(NamedTuple):
    """An inside host's SYN/ACK.

    base  sequence number of the peer's first byte
    isn   sequence number of the SYN/ACK itself
    """

    base: int
    isn: int


class AnsweredCalls:
    """At most *bound* connections, by the key of the peer's packets (see Segment)."""

    def __init__(self, bound: int) -> None:
        self._half = max(1, bound // 2)
        self._young: dict[bytes, int] = {}
        self._old: dict[bytes, int] = {}
        self._turned = 0.0

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def __contains__(self, key: bytes) -> bool:
        return key in self._young or key in self._old

    def call(self, key: bytes) -> int:
        """A SYN of *key* was seen. Returns how many connections were forgotten for it."""
        return 0 if key in self else self._store(key, _CALLED)

    def answer(self, key: bytes, answer: Answer) -> int:
        """The SYN of *key* was answered so. Returns how many connections were forgotten for it."""
        self._old.pop(key, None)
        return self._store(key, answer.base | answer.isn << 32)

    def find(self, key: bytes) -> Answer | None:
        """The latest answer to a SYN of *key*; None if there was none."""
        found = self._young.get(key)
        if found is None:
            found = self._old.get(key, _CALLED)
        return None if found == _CALLED else Answer(found & 0xFFFFFFFF, found >> 32)

    def forget(self, key: bytes) -> None:
        """Remove *key*, if it is there."""
        self._young.pop(key, None)
        self._old.pop(key, None)

    def expire(self, now: float) -> None:
        """Forget connections that can no longer be completed. Call it now and then."""
        if now - self._turned >= _KEPT_FOR_S:
            self._old, self._young = self._young, {}
            self._turned = now

    def _store(self, key: bytes, value: int) -> int:
        forgotten = 0
        if len(self._young) >= self._half and key not in self._young:
            forgotten = len(self._old)
            self._old, self._young = self._young, {}
        self._young[key] = value
        return forgotten
