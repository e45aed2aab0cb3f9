"""Flow: one control connection, and the states it can be in. Knows TCP's handshake, no protocol above it.

A flow comes into being with the client's answer to the server's SYN/ACK, not with the client's SYN: packets
from the inside are seen before any firewall, and a SYN alone proves nothing. See core.admission.

Two things change in the life of a flow, each by a table of its own:

- State: what is done with its bytes. ``Reading.on`` is the only place where it changes.
- Life: which ends have sent their FIN. ``Flow.end`` is the only place where it changes.

The state decides who gets a segment with data: the helper (NEW, ESTABLISHED), the reading itself, which may
become ESTABLISHED again (RESTORED, RESYNCING), or nobody (BYPASSED, FOREIGN). Whatever the state, the segment
leaves with the edits that were made before.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, IntEnum, auto
from types import MappingProxyType
from typing import Any, Final

from nfreaim.core.address import Direction, End, FlowId, flow_id, reverse
from nfreaim.core.helper import Helper, Nat, Scan
from nfreaim.core.tcp.segment import Segment
from nfreaim.core.tcp.stream import FAR, Stream


class State(Enum):
    """What is done with the bytes of a flow."""

    NEW = auto()
    """The helper reads them from the first one on, and has not recognised its protocol for certain."""
    ESTABLISHED = auto()
    """The helper reads them, and may expect peers."""
    RESTORED = auto()
    """An earlier daemon read them up to known positions; the next segment tells whether any were missed."""
    RESYNCING = auto()
    """Bytes were missed: they pass, while the helper looks for a message boundary."""
    BYPASSED = auto()
    """They pass unread: the helper failed or could not follow."""
    FOREIGN = auto()
    """They pass unread: they never were the helper's protocol."""


class Event(Enum):
    """What makes a flow change its state."""

    RECOGNISED = auto()
    """The helper is established."""
    NOT_OURS = auto()
    """The helper raised Foreign."""
    GIVEN_UP = auto()
    """The helper failed, a gap did not fill, or memory ran short."""
    IN_PLACE = auto()
    """The first segment after a restart stands where reading stopped."""
    MISSED = auto()
    """It does not: bytes passed while no daemon ran, or soon after."""
    RESYNCED = auto()
    """The helper is certain of a message boundary in both directions."""


_S, _E = State, Event
TRANSITIONS: Final[Mapping[State, Mapping[Event, State]]] = MappingProxyType(
    {
        _S.NEW: {_E.RECOGNISED: _S.ESTABLISHED, _E.NOT_OURS: _S.FOREIGN, _E.GIVEN_UP: _S.BYPASSED},
        _S.ESTABLISHED: {_E.NOT_OURS: _S.FOREIGN, _E.GIVEN_UP: _S.BYPASSED, _E.MISSED: _S.RESYNCING},
        _S.RESTORED: {_E.IN_PLACE: _S.ESTABLISHED, _E.MISSED: _S.RESYNCING},
        _S.RESYNCING: {_E.RESYNCED: _S.ESTABLISHED},
        _S.BYPASSED: {},
        _S.FOREIGN: {},
    }
)


class Life(IntEnum):
    """Which ends have sent their FIN, in place. Each end has a bit, by its number."""

    OPEN = 0
    CLIENT_DONE = 1
    SERVER_DONE = 2
    FINISHED = 3


class _NoHelper:
    """Stands where a flow has no helper: it asks for no byte."""

    established = False

    def scan(self, direction: Direction, data: bytes, start: int, nat: Nat) -> Scan | None:
        return None

    def skips(self, direction: Direction, raw: bytes, start: int, nat: Nat) -> bool:
        return False


class Reading:
    """How one flow is read: its state, and the helper that reads it."""

    __slots__ = ("helper", "state")

    plain = True
    """``saw`` does nothing."""

    def __init__(self, helper: Helper, state: State) -> None:
        self.helper = helper
        self.state = state

    def on(self, event: Event) -> None:
        """Change the state. Raises KeyError if *event* cannot happen in it."""
        self.state = TRANSITIONS[self.state][event]

    @property
    def reads(self) -> bool:
        """Whether the helper gets the bytes."""
        return self.state is State.ESTABLISHED or self.state is State.NEW

    def certain(self, stream: Stream[Flow], now: float) -> bool:
        """Whether the position of *stream* is true, so that an edit may change a length there."""
        return True

    def saw(self, stream: Stream[Flow], segment: Segment) -> None:
        """*segment* of *stream* passes by. Called for flows whose edits may change a length."""

    def ready(self, stream: Stream[Flow], segment: Segment, token: Any, now: float) -> bool:
        """Whether *segment*, the packet *token* with data that the helper does not get, is to be read
        after all."""
        return False

    def passed(self, stream: Stream[Flow], segment: Segment, end: int) -> None:
        """The unread *segment* has passed, to offset *end*: no later edit may move what stands there.

        Offsets are relative to this progress, and 4 GiB on new bytes would pass for edited.
        """
        if 0 < end - stream.next <= FAR and not self.strange(stream, segment):
            stream.advance(end)

    def strange(self, stream: Stream[Flow], segment: Segment) -> bool:
        """Whether neither end can have sent *segment*: it is far from the known positions, or from another
        machine. Asked after ``ready``."""
        return False

    def gives_way(self, arrived: bool, now: float) -> bool:
        """There is a gap: whether it is of bytes that passed before, so that waiting for them is in vain.

        arrived  an end has shown that they have
        """
        return False


_UNREAD: Final = {state: Reading(_NoHelper(), state) for state in (State.BYPASSED, State.FOREIGN)}


class Flow:
    """One control connection.

    key        of the packets in the original direction
    streams    by direction
    protocol   the name of its protocol
    inside     which end is the inside one: the client, or the server (behind this router, or on it)
    resizable  its edits may change a length: windows and acknowledgements are followed. True if it is skewed.
    skewed     an edit changed a length, or a sender relies on bytes in custody: headers of both directions
               are translated, and it must fail closed
    attended   each packet concerns the engine: it is skewed, or bytes of it are in custody
    tracked    acknowledgements are followed: it is resizable or attended
    reading    how it is read; at first it is bypassed
    nat        what its helper is handed
    followed   its client was redirected to the server, whose port is none of the protocol's
    midstream  its beginning was not seen
    life       which ends are done
    reset      an RST was seen: that alone proves nothing
    proved     connection tracking saw its handshake to the end, as we did
    barred     why nothing may ever be opened for it, or ""
    sender     the hardware address that its inside end's packets come from, None where there is none
    vouched    the router's neighbours said that this is the inside host's
    since      when it became known here
    seen       when its last packet passed
    closed     when both ends were done, or None
    """

    __slots__ = (
        "attended",
        "barred",
        "closed",
        "followed",
        "inside",
        "key",
        "life",
        "midstream",
        "nat",
        "protocol",
        "proved",
        "reading",
        "reset",
        "resizable",
        "seen",
        "sender",
        "since",
        "skewed",
        "streams",
        "tracked",
        "vouched",
    )

    nat: Nat

    def __init__(self, key: bytes, bases: tuple[int, int], inside: End, now: float) -> None:
        """*bases*: sequence numbers of the first byte of either direction."""
        self.key = key
        client, server = (Stream(self, way, base) for way, base in zip(Direction, bases, strict=True))
        client.other, server.other = server, client
        self.streams: tuple[Stream[Flow], Stream[Flow]] = client, server
        for stream in self.streams:
            stream.from_inside = int(stream.direction) == int(inside)
        self.inside = inside
        self.protocol = ""
        self.resizable = self.skewed = self.attended = self.tracked = False
        self.reading = _UNREAD[State.BYPASSED]
        self.followed = self.midstream = False
        self.proved = self.vouched = False
        self.barred = ""
        self.sender: bytes | None = None
        self.life = Life.OPEN
        self.reset = False
        self.since = self.seen = now
        self.closed: float | None = None

    @property
    def id(self) -> FlowId:
        """Its ends. Made anew each time: kept, the texts would take a fifth of an idle flow's memory."""
        return flow_id(self.key)

    @property
    def inside_host(self) -> str:
        """The address of its inside end."""
        return self.id[self.inside].address

    def stop_reading(self, event: Event) -> None:
        """Its helper is done with it, because of *event*. Edits that were made stay."""
        self.reading = _UNREAD[TRANSITIONS[self.reading.state][event]]

    def end(self, direction: Direction, now: float) -> bool:
        """The sender of *direction* is done. Returns whether that is new."""
        life = Life(self.life | 1 << direction)
        new = life is not self.life
        self.life = life
        if life is Life.FINISHED:
            self.closed = now
        return new

    def attend(self) -> None:
        """Say anew which of its packets concern the engine."""
        self.attended = self.skewed or any(stream.custody is not None for stream in self.streams)
        self.tracked = self.resizable or self.attended

    def scaled(self, client: int | None, server: int | None) -> None:
        """Both SYNs were seen, with these window scales: either both ends shift their windows, or none."""
        used = client is not None and server is not None
        self.streams[Direction.ORIGINAL].scale = server if used else 0
        self.streams[Direction.REPLY].scale = client if used else 0

    def resets(self) -> list[tuple[bytes, int, int]]:
        """Key, sequence and acknowledgement number of a reset for either end, in its own numbers."""
        client, server = self.streams
        return [
            (key, stream.base + stream.map.fwd(stream.next), stream.other.expected)
            for key, stream in ((self.key, client), (reverse(self.key), server))
        ]
