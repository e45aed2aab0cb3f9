"""What may be copied of one connection, byte by byte: of a control connection, and of a peer's."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final, Protocol

from nfreaim.core.address import Direction, FlowId
from nfreaim.core.greeting import Greeting, length, match
from nfreaim.core.helper import Helper, HelperSpec
from nfreaim.core.redaction import Pseudonyms, Redactor
from nfreaim.core.tcp.segment import distance, wrap
from nfreaim.core.tcp.stream import FAR
from nfreaim.errors import Foreign, Malformed
from nfreaim.recording.mute_nat import MuteNat

log = logging.getLogger("nfreaim")

_MOST_AHEAD: Final = 1 << 18  # bytes that are kept behind a gap
_MOST_COPIED: Final = 1 << 18  # bytes of a direction that are kept for retransmissions


class Copy(Protocol):
    """One connection, whose bytes have offsets from 0 on in each direction."""

    def add(self, direction: Direction, offset: int, data: bytes) -> None:
        """Bytes have come, perhaps again, or before those that precede them."""

    def copied(self, direction: Direction, offset: int, size: int) -> bytes | None:
        """What may be copied of *size* bytes; None: more has to come first."""

    def give_up(self) -> None:
        """More will not come, or not in time: what is not decided yet is overwritten."""


class Positions:
    """The offsets of both directions of a connection, by sequence number; 0 is that of the first byte."""

    def __init__(self) -> None:
        self._known: list[tuple[int, int] | None] = [None, None]  # a sequence number, and its offset

    def begin(self, direction: Direction, seq: int) -> None:
        """The byte with this number is the first."""
        self._known[direction] = wrap(seq), 0

    def offset(self, direction: Direction, seq: int) -> int:
        """The offset of the byte with this number; negative if it precedes what is known."""
        known = self._known[direction]
        if known is None:
            self.begin(direction, seq)
            return 0
        at = known[1] + distance(known[0], seq)
        if at - known[1] > FAR // 2:
            self._known[direction] = seq, at
        return at


class _InOrder:
    """One direction: gives each byte once and in order."""

    def __init__(self) -> None:
        self.end = 0
        self._ahead: dict[int, bytes] = {}

    def add(self, offset: int, data: bytes) -> list[bytes]:
        """The bytes that follow without a gap, in the pieces in which they came."""
        if offset + len(data) > self.end and sum(map(len, self._ahead.values())) < _MOST_AHEAD:
            known = self._ahead.get(offset, b"")
            self._ahead[offset] = max(known, data, key=len)
        pieces: list[bytes] = []
        for at in sorted(self._ahead):
            if at > self.end:
                break
            piece = self._ahead.pop(at)[self.end - at :]
            if piece:
                pieces.append(piece)
                self.end += len(piece)
        return pieces


class ControlCopy:
    """A control connection: its helper recognises it, its redactor says what stays. See Copy.

    Nothing is copied before the connection is recognised, and nothing of what follows once it cannot be read.
    """

    def __init__(
        self, flow: FlowId, spec: HelperSpec, names: Pseudonyms, nat: MuteNat, midstream: bool
    ) -> None:
        self.flow, self._nat = flow, nat
        self._orders = _InOrder(), _InOrder()
        self._made = [bytearray(), bytearray()]
        self._from = [0, 0]  # the offset of the first byte of _made
        self._over = False
        self._helper: Helper = spec.load()(midstream)
        self.redactor: Redactor = spec.load_redactor()(names, midstream)

    @property
    def recognised(self) -> bool:
        """Whether it is known to be of its protocol."""
        return self._helper.established or self.redactor.recognised

    def add(self, direction: Direction, offset: int, data: bytes) -> None:
        """See Copy."""
        order = self._orders[direction]
        for piece in order.add(offset, data):
            if not self._over:
                self._read(direction, piece, order.end - len(piece))

    def _read(self, direction: Direction, data: bytes, start: int) -> None:
        try:
            made = self.redactor.redacted(direction, data)
            self._helper.scan(direction, data, start, self._nat)
        except (Malformed, Foreign) as error:
            log.debug("a connection of %s is not read on: %s", self.flow.client, error)
            self._over = True
            return
        except Exception:
            log.exception("a connection of %s cannot be read", self.flow.client)
            self._over = True
            return
        kept = self._made[direction]
        kept += made
        if len(kept) > 2 * _MOST_COPIED:
            self._from[direction] += len(kept) - _MOST_COPIED
            del kept[: len(kept) - _MOST_COPIED]

    def copied(self, direction: Direction, offset: int, size: int) -> bytes | None:
        """See Copy."""
        made, first = self._made[direction], self._from[direction]
        if not self.recognised:
            return b"x" * size if self._over else None
        low, high = max(offset, first), min(offset + size, first + len(made))
        if high < offset + size and not self._over:
            return None
        if high <= low:
            return b"x" * size
        return b"x" * (low - offset) + bytes(made[low - first : high - first]) + b"x" * (offset + size - high)

    def give_up(self) -> None:
        """See Copy."""
        self._over = True


class PeerCopy:
    """A peer's connection: of its first bytes the fields of a known greeting stay, and nothing else."""

    def __init__(self, greetings: Sequence[Greeting], midstream: bool) -> None:
        self._greetings = greetings
        self._longest = 0 if midstream else max(map(length, greetings), default=0)
        self._orders = _InOrder(), _InOrder()
        self._begun = [b"", b""]

    def add(self, direction: Direction, offset: int, data: bytes) -> None:
        """See Copy."""
        if len(self._begun[direction]) < self._longest:
            for piece in self._orders[direction].add(offset, data):
                self._begun[direction] = (self._begun[direction] + piece)[: self._longest]

    def copied(self, direction: Direction, offset: int, size: int) -> bytes | None:
        """See Copy."""
        made = bytearray(b"x" * size)
        if not 0 <= offset < self._longest:
            return bytes(made)
        begun = self._begun[direction]
        fits = match(begun, self._greetings)
        if fits is None:
            return None
        if fits:
            found = next(one for one in self._greetings if match(begun, [one]))
            for field in found:
                for at in range(field.at, field.at + len(next(iter(field.values)))):
                    if offset <= at < offset + size:
                        made[at - offset] = begun[at]
        return bytes(made)

    def give_up(self) -> None:
        """See Copy."""
        self._longest = 0
