"""Answered and AnsweredTable: handshakes whose SYN was answered, and that await the client's ACK.

Anybody on the LAN can send a SYN in another host's name, and an accomplice outside answers it. What makes a
connection is the third packet. Until it comes, a few numbers stand for the connection.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from nfreaim.core.tcp.half_open import HalfOpen
from nfreaim.core.tcp.segment import ACK, RST, Segment, distance

_NEAR: Final = 1 << 16  # bytes that an end may send before the other one has said more than its SYN


class Answered(NamedTuple):
    """A SYN and the SYN/ACK that answers it.

    bases     sequence numbers of the first byte of either direction
    syn       the client's SYN
    scale     the server's window scale (see Segment)
    hardware  the address that the inside end's latest packet was sent from; None without one
    skewed    the kernel still has an earlier connection of these ends in its set
    since     when the SYN/ACK came; no data came before
    acked     the client's own ACK has come
    missed    data passed unread
    """

    bases: tuple[int, int]
    syn: HalfOpen
    scale: int | None
    hardware: bytes | None
    skewed: bool
    since: float
    acked: bool = False
    missed: bool = False

    def has(self, segment: Segment, by_client: bool) -> bool:
        """Whether *segment* of the client or the server stands at the beginning of this connection."""
        own, other = self.bases if by_client else self.bases[::-1]
        if segment.flags & ACK and not 0 <= distance(other, segment.ack) < _NEAR:
            return False
        return 0 <= distance(own, segment.seq) < (1 if segment.flags & RST else _NEAR)

    @property
    def same_sender(self) -> bool:
        """Whether the client's SYN and its latest packet were sent from one hardware address."""
        return not self.syn.from_inside or self.syn.hardware == self.hardware


class AnsweredTable:
    """At most *bound* handshakes, by the key of their client's packets. The older half gives way at once."""

    def __init__(self, bound: int) -> None:
        self._half = max(1, bound // 2)
        self._young: dict[bytes, Answered] = {}
        self._old: dict[bytes, Answered] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, key: bytes) -> Answered | None:
        """The handshake of *key*."""
        return self._young.get(key) or self._old.get(key)

    def set(self, key: bytes, one: Answered) -> Iterable[bytes]:
        """Remember it, in place of an earlier one. Returns the keys of those that were forgotten for it."""
        forgotten: Iterable[bytes] = ()
        if len(self._young) >= self._half and key not in self._young:
            forgotten = self.turn()
        self._old.pop(key, None)
        self._young[key] = one
        return forgotten

    def pop(self, key: bytes) -> None:
        """Forget it; an unknown one is no error."""
        self._young.pop(key, None)
        self._old.pop(key, None)

    def turn(self) -> Iterable[bytes]:
        """Forget the older half; the rest is the older half from now on. Returns the keys of the former."""
        forgotten = self._old.keys()
        self._old, self._young = self._young, {}
        return forgotten
