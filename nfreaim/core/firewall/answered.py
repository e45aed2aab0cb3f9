"""AnsweredCalls: connections whose SYN an inside host has answered, while nothing has come from the peer.

Hosts answer any number of SYNs, also from made-up addresses. So such a connection is one integer.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from nfreaim.core.generations import Generations

_KEPT_FOR_S: Final = 75.0  # at least; hosts give up on a SYN/ACK after 63 s, connection tracking after 60 s
_CALLED: Final = 1 << 64  # no numbers, as the SYN has not been answered


class Answer(NamedTuple):
    """An inside host's SYN/ACK.

    base  sequence number of the peer's first byte
    isn   sequence number of the SYN/ACK itself
    """

    base: int
    isn: int


class AnsweredCalls(Generations):
    """At most *bound* connections, by the key of the peer's packets (see Segment)."""

    def __init__(self, bound: int) -> None:
        super().__init__(bound, _KEPT_FOR_S)

    def call(self, key: bytes) -> int:
        """A SYN of *key* was seen. Returns how many connections were forgotten for it."""
        return 0 if key in self else self._put(key, _CALLED)

    def answer(self, key: bytes, answer: Answer) -> int:
        """The SYN of *key* was answered so. Returns how many connections were forgotten for it."""
        return self._put(key, answer.base | answer.isn << 32)

    def find(self, key: bytes) -> Answer | None:
        """The latest answer to a SYN of *key*; None if there was none."""
        found = self._find(key)
        return None if found is None or found == _CALLED else Answer(found & 0xFFFFFFFF, found >> 32)
