"""Custody: bytes of a stream that its sender is told have arrived, before its receiver has them.

A sender with Nagle's algorithm (RFC 9293 section 3.7.4) sends the rest of a message only when all that it has
sent is acknowledged. So the bytes that are held are taken out of their packets, and an acknowledgement of the
receiver, which has everything before them, is made one of the held bytes too. From then on the sender will
not repeat them: whatever it sends next carries them along, until the receiver acknowledges them itself.

Offsets are those of the original stream; edits are made when a segment leaves (Stream.rendered).
"""

from __future__ import annotations

from typing import Final

from nfreaim.core.tcp.segment import ACK, FIN, PSH, RST, Segment

MOST: Final = 1200
"""Bytes in custody, and of a segment that carries them along: with headers it fits into any usual link."""


class Custody:
    """The bytes of one stream.

    start     offset of the first one that the receiver may not have
    data      from there on
    withheld  offset of the first one that must not leave yet, because an edit may concern it; None: all may
    told      offset before which the sender was told that all has arrived; 0: it was not
    since     when the first one was held
    head      the sender's latest segment, whose headers an own packet gets
    """

    __slots__ = ("data", "head", "since", "start", "told", "withheld")

    def __init__(self, start: int, head: Segment, since: float) -> None:
        self.start = start
        self.data = b""
        self.withheld: int | None = start
        self.told = 0
        self.since = since
        self.head = head

    @property
    def end(self) -> int:
        """Offset behind the last byte."""
        return self.start + len(self.data)

    @property
    def owed(self) -> bool:
        """Whether the sender relies on us for some of the bytes."""
        return self.told > self.start

    def add(self, at: int, payload: bytes) -> None:
        """The bytes of *payload*, which stands at offset *at*, that are not here yet; no gap may precede."""
        self.data += payload[max(0, self.end - at) :]

    def arrived(self, at: int) -> None:
        """The receiver has acknowledged everything before offset *at*."""
        if at > self.start:
            self.data = self.data[at - self.start :]
            self.start = at

    def carried(self, segment: Segment, at: int, base: int) -> tuple[Segment, int]:
        """*segment* of the sender, whose payload stands at *at*, and its offset, as they have to leave:

        with the bytes before it that the receiver may lack, and without those that are withheld. One of which
        nothing is left stands at an old position, so that the receiver answers it. *base* is the sequence
        number of offset 0.
        """
        payload, flags = segment.raw[segment.start :], segment.flags
        if at > self.end:
            return segment, at
        if flags & RST:
            # It answers an acknowledgement as the sender was told it: the receiver awaits an earlier byte.
            if not self.start < at == self.told:
                return segment, at
            return segment.rebuilt(base + self.start, segment.ack, payload, None), self.start
        if not payload and not flags & FIN:
            if not self.start <= at < self.end:
                return segment, at
            return self._asking(segment, base)  # a keep-alive
        low, body = at, payload
        if at > self.start:
            low, body = self.start, self.data[: at - self.start] + payload
            if len(body) > max(MOST, len(payload)):
                body, flags = body[: max(MOST, len(payload))], flags & ~FIN
        if self.withheld is not None and low + len(body) > self.withheld:
            body, flags = body[: max(0, self.withheld - low)], flags & ~FIN
            if not body:
                return self._asking(segment, base)
        if (low, body, flags) == (at, payload, segment.flags):
            return segment, at
        return segment.rebuilt(base + low, segment.ack, body, None, flags), low

    def own_packet(self, base: int) -> Segment:
        """A segment of the sender with all the bytes."""
        head = self.head
        return head.rebuilt(base + self.start, head.ack, self.data, None, ACK | PSH)

    def _asking(self, segment: Segment, base: int) -> tuple[Segment, int]:
        """*segment* without payload, before the byte that its receiver expects: it is answered at once."""
        place = (self.start if self.withheld is None else self.withheld) - 1
        return segment.rebuilt(base + place, segment.ack, b"", None, ACK), place
