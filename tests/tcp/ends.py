"""A small TCP: one end that sends a text and receives another, written from RFC 9293, RFC 2018 and RFC 5961.

Each end judges what reaches it: nothing may be acknowledged that
it did not send or that the other end does not have, no byte may come with two values, nothing behind a FIN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from tests.tcp.packets import ACK, FIN, PSH, RST, Endpoint, Packet, near, packet, sack

GARBAGE = 0xEE  # what a keep-alive may carry at an old position; no text has it
FORGED = 1  # IP identification of what nobody but an attacker sent

Manner = Literal["cut", "refuse", "take"]


class Judge(NamedTuple):
    """What an end cannot know.

    fwd      where an original offset of what it sends stands in the edited stream
    theirs   the same of what it receives
    strict   a byte that comes again is the same byte
    kept     the original offset before which somebody else than the receiver keeps what this end has sent
    told     the same of what it receives
    """

    fwd: Callable[[int], int]
    theirs: Callable[[int], int]
    strict: bool
    kept: Callable[[], int] = int
    told: Callable[[], int] = int


class End:
    """One end. Offsets count from the first byte after the SYN, each stream as this end knows it.

    una, nxt   acknowledged, and sent; a FIN takes one position
    got, later what arrived in order, and what lies behind a gap
    limit      most bytes that are received and not yet read
    manner     what becomes of a segment that ends beyond the window: it is cut there (RFC 9293), refused as a
               whole, or taken as a whole (both have been seen in Linux)
    patient    a FIN waits until everything before it is acknowledged
    waits      new bytes wait for that, too, as with Nagle's algorithm those of a second small write do
    dead       nobody is left behind the socket: whatever comes is answered with a reset
    """

    patient = waits = dead = scolded = False
    manner: Manner = "cut"

    def __init__(
        self,
        here: Endpoint,
        there: Endpoint,
        isn: tuple[int, int],
        text: bytes,
        mss: int,
        limit: int,
        sack: bool,
    ) -> None:
        self.here, self.there = here, there
        self.base, self.peer_base = isn[0] + 1, isn[1] + 1
        self.text, self.mss, self.limit, self.sack = text, mss, limit, sack
        self.una = self.nxt = 0
        self.window, self.window_seq = 0, -1
        self.sacked: set[int] = set()
        self.got, self.later = bytearray(), dict[int, int]()
        self.read = 0
        self.fin_at: int | None = None
        self.ended = self.reset = False
        self.due = False
        self.told = 0
        self.out: Callable[[bytes], None] = lambda raw: None

    # --- sending ---

    @property
    def rcv_nxt(self) -> int:
        return len(self.got) + self.ended

    @property
    def free(self) -> int:
        return max(0, self.limit - (len(self.got) - self.read))

    @property
    def done(self) -> bool:
        """Everything was sent and acknowledged, and the other end has finished, too."""
        return self.reset or self.dead or (self.ended and self.una == len(self.text) + 1)

    def emit(self, at: int, data: bytes = b"", flags: int = ACK) -> None:
        options = b""
        if self.sack and self.later:
            options = self._sack()
        self.told = self.free
        self.due = False
        seq, ack = self.base + at, self.peer_base + self.rcv_nxt
        self.out(packet(self.here, self.there, seq, ack, flags, data, window=self.told, tcp_options=options))

    def _sack(self) -> bytes:
        edges: list[list[int]] = []
        for at in sorted(self.later):
            if edges and edges[-1][1] == at:
                edges[-1][1] += 1
            else:
                edges.append([at, at + 1])
        return sack(*(self.peer_base + at for edge in edges[:3] for at in edge))

    def send(self, at: int, size: int) -> int:
        """Send up to *size* bytes from *at* on, as far as window and text go; the end of what was sent."""
        end = min(at + size, at + self.mss, len(self.text), self.una + self.window)
        if self.waits and self.una < self.nxt:
            end = min(end, self.nxt)
        last = end == len(self.text) and at <= end and (not self.patient or self.una >= end)
        if end > at or last:
            data = self.text[at : max(at, end)]
            self.emit(at, data, ACK | (PSH if data else 0) | (FIN if last else 0))
            self.nxt = max(self.nxt, end + last)
        return max(at, end)

    def send_ack(self) -> None:
        # From within the window, if it has become smaller than what was sent into it, as Linux does.
        self.emit(min(self.nxt, self.una + self.window + (self.nxt > len(self.text))))

    def alive(self, octets: int) -> None:
        """A keep-alive or window probe: an old position, with a byte that may be garbage."""
        if self.una == self.nxt and self.nxt <= len(self.text):
            self.emit(self.nxt - 1, bytes([GARBAGE])[:octets])
        else:
            self.emit(self.una - 1)

    def probe(self) -> None:
        """One byte into a closed window."""
        if self.window == 0 and self.una == self.nxt < len(self.text):
            self.emit(self.nxt, self.text[self.nxt : self.nxt + 1])
            self.nxt += 1

    def repeat(self) -> None:
        """What a time-out sends again: all that is not acknowledged, and what else the window allows."""
        at = self.una
        while at < len(self.text):
            if at in self.sacked:
                at += 1
                continue
            stop = next((x for x in range(at, at + self.mss) if x in self.sacked), at + self.mss)
            end = self.send(at, stop - at)
            if end == at:
                break
            at = end
        if at == len(self.text):
            self.send(at, 0)

    def die(self) -> None:
        self.dead = True
        self.emit(self.nxt, flags=RST | ACK)

    # --- receiving ---

    def receive(self, raw: bytes, other: End, judge: Judge) -> None:
        came = Packet(raw).judged()
        at = near(came.seq - self.peer_base, self.rcv_nxt)
        if self.dead:
            if not came.flags & RST:
                self.emit(came.ack - self.base, flags=RST)
            return
        if came.flags & RST:
            self._receive_reset(came, at, other, judge)
            return
        self._judge_ack(came, other, judge)
        end = at + len(came.payload) + (came.flags & FIN)
        right = self.rcv_nxt + self.free
        beyond = self.manner == "refuse" and at + len(came.payload) > max(right, self.rcv_nxt)
        if end < self.rcv_nxt or at > right or beyond:
            # Not acceptable: answered, and nothing else. Without data only now and then, as Linux does.
            self.due = self.due or bool(came.payload) or not self.scolded
            self.scolded = self.scolded or not came.payload
            return
        self._take_ack(came, at)
        if came.payload or came.flags & FIN:
            self.due = True
            self._take_data(came, at, judge)

    def _receive_reset(self, came: Packet, at: int, other: End, judge: Judge) -> None:
        if at != self.rcv_nxt:
            self.due = self.due or 0 < at - self.rcv_nxt < self.free
            return
        if came.ident == FORGED:
            meant = came.window - 100  # where its sender put it; only the awaited position may be hit
            back = max(x for x in range(other.nxt + 1) if judge.theirs(x) <= self.rcv_nxt)
            assert meant in (back, judge.told()), f"a blind reset at {meant} was made to fit at {back}"
            return
        self.reset = True

    def _judge_ack(self, came: Packet, other: End, judge: Judge) -> None:
        ack = near(came.ack - self.base, self.una)
        assert ack <= self.nxt, f"{ack} is acknowledged, but only {self.nxt} was sent"
        there = max(judge.fwd(ack), 0)
        assert there <= other.rcv_nxt or ack <= judge.kept(), (
            f"{ack} is acknowledged, the receiver has not got it"
        )
        for left, right in came.blocks:
            low, high = near(left - self.base, self.una), near(right - self.base, self.una)
            assert low < high <= self.nxt, f"SACK of {low} to {high}, with {self.nxt} sent"
            for there in range(judge.fwd(low), judge.fwd(high)):
                assert there < other.rcv_nxt or there in other.later, f"SACK of {low} to {high} is not true"
            self.sacked.update(range(low, high))

    def _take_ack(self, came: Packet, at: int) -> None:
        ack = near(came.ack - self.base, self.una)
        fresh = ack > self.una
        self.una = max(self.una, ack)
        if fresh or at > self.window_seq or (at == self.window_seq and came.window > self.window):
            self.window, self.window_seq = came.window, at

    def _take_data(self, came: Packet, at: int, judge: Judge) -> None:
        right = self.rcv_nxt + self.free
        if self.manner == "take" and at < right:
            right = max(right, at + len(came.payload))
        for place, byte in enumerate(came.payload, at):
            if place < len(self.got):
                assert not judge.strict or byte == GARBAGE or self.got[place] == byte, f"byte {place} differs"
            elif place < right:
                assert self.fin_at is None or place < self.fin_at, f"byte {place} stands behind the FIN"
                assert not judge.strict or self.later.setdefault(place, byte) == byte, f"byte {place} differs"
                self.later[place] = byte
        if came.flags & FIN and not self.ended and at + len(came.payload) <= right:
            place = at + len(came.payload)
            assert self.fin_at in (None, place), f"the FIN moved from {self.fin_at} to {place}"
            assert not self.later or max(self.later) < place, "a FIN in the middle of the data"
            self.fin_at = place
        while len(self.got) in self.later:
            self.got.append(self.later.pop(len(self.got)))
        if self.fin_at == len(self.got):
            self.ended = True
