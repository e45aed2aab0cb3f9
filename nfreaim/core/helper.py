"""The contract between the engine and a protocol: Helper on one side, Nat on the other.

A helper reads the new bytes of a flow, in order and each once, and answers with edits. It never does
I/O and has never heard of TCP; what it wants of the router it asks of the Nat it is handed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from nfreaim.core.address import Direction, Endpoint
from nfreaim.core.counters import Counters
from nfreaim.core.greeting import Greeting
from nfreaim.core.tcp.offsets import Edit


class Refused(Exception):
    """The router will not open what a helper asked for. The text is the reason, fit for a log line."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """ "A peer will connect to *inside* because of this flow."

    cookie   the protocol's own name for the agreement, unique within the flow
    service  what is expected, as in the configuration ("send-file", ...)
    peer     the only address the connection may come from, or None where it is not known
    session  any number of peers, for as long as the flow lasts
    greetings  what the peer may say first; nothing: not known, and not looked at
    """

    cookie: bytes
    service: str
    inside: Endpoint
    peer: str | None = None
    session: bool = False
    greetings: tuple[Greeting, ...] = ()

    @property
    def verify(self) -> bool:
        """The first bytes of the connection have to be looked at before it may go on."""
        return bool(self.greetings)


class Scan(NamedTuple):
    """A helper's answer to new bytes.

    edits  over bytes that were not forwarded yet, ascending
    hold   "wait": stream offset from which on bytes must not leave before more has come, or None
    """

    edits: tuple[Edit, ...] = ()
    hold: int | None = None


Action = Literal["rewritten", "mapped-back", "left"]


@dataclass(frozen=True, slots=True)
class Report:
    """What became of one message that carries an address.

    direction  "out" to the outside, "in" from there
    stage      the protocol's own count of the proposal within its agreement
    before     address and port as they came; *after* as they left
    """

    direction: Literal["out", "in"]
    service: str
    stage: int
    cookie: bytes
    before: Endpoint
    after: Endpoint
    action: Action
    reason: str


class Nat(Protocol):
    """What a helper may ask of the router, about the one flow it reads. All calls are synchronous."""

    counters: Counters
    """The engine's, for what only the helper can tell."""

    @property
    def server_inside(self) -> bool:
        """Whether the inside end is the server: it is behind this router (or on it), its client outside."""

    @property
    def inside(self) -> Endpoint:
        """The flow's inside end."""

    @property
    def outside(self) -> Endpoint:
        """The flow's outside end."""

    def ready(self) -> None:
        """The flow is past sign-on: expectations may follow, and what they need may be prepared."""

    def expect(self, expectation: Expectation) -> Endpoint:
        """Open a pinhole; the outside endpoint to announce. It exists when this returns. Raises Refused."""

    def withdraw(self, cookie: bytes, reason: str) -> None:
        """Close the pinhole of the agreement *cookie*, if there is one."""

    def withdraw_all(self, reason: str) -> None:
        """Close every pinhole of this flow."""

    def agreed(self, cookie: bytes) -> None:
        """The peer accepted *cookie*: its pinhole, if there is one, will not be needed for long."""

    def mappings(self) -> bool:
        """Whether any pinhole is open, so that ``inside_of`` could answer."""

    def sessions(self) -> bool:
        """Whether any of them is open for a whole session."""

    def inside_of(self, announced: Endpoint) -> Endpoint | None:
        """The inside endpoint that an announced outside endpoint stands for, if it is one of ours."""

    def is_ours(self, address: str) -> bool:
        """Whether *address* is the outside address of this flow, or the one announced in its place."""

    def reached(self) -> Endpoint:
        """Of a flow whose server is inside: the outside endpoint its client connected to. Raises Refused."""

    def is_home(self, host: str) -> bool:
        """Whether *host*, a name or an address, stands for a server on our side: one of the inside networks'
        addresses, or a name that the operator listed."""

    def follow(self, server: Endpoint) -> None:
        """A client was redirected to *server*: read what it says there, too, whatever the port."""

    def keeps(self, size: int) -> None:
        """The helper keeps *size* bytes of frames whose end is missing, since now. Say so when it changes."""

    def editable(self, direction: Direction, start: int) -> bool:
        """Whether the byte at stream offset *start* has not been forwarded yet."""

    def report(self, report: Report) -> None:
        """Tell whoever watches what became of a message."""


class Helper(Protocol):
    """One protocol's reader of one flow."""

    established: bool
    """The flow was recognised from its first byte and is past sign-on: expectations may be made."""

    def scan(self, direction: Direction, data: bytes, start: int, nat: Nat) -> Scan | None:
        """Read *data*, the bytes of that direction from stream offset *start* on; each byte comes once.

        None says the same as ``Scan()``. Raises Malformed to end the reading of this flow, Foreign if the
        flow never was this protocol.
        """

    def skips(self, direction: Direction, raw: bytes, start: int, nat: Nat) -> bool:
        """Whether the next bytes of that direction, *raw* from *start* on, are of no interest.

        Then they count as read. If not, nothing has happened, and ``scan`` gets them. Meant for what is most
        of the traffic and can be told at once; False is always right. Raises nothing.
        """


@runtime_checkable
class Resumable(Helper, Protocol):
    """A helper whose flow can be read on by the next daemon."""

    def places(self) -> tuple[bytes, bytes]:
        """Where it stands in each direction: positions, never text, in at most 20 bytes each, as many."""

    def resume(self, places: tuple[bytes, bytes] | None, starts: tuple[int, int]) -> None:
        """The flow was established before. Go on at *places*, which are the stream offsets *starts*.

        None: they are not known, and ``follow`` will be called. Raises ValueError if these are no places.
        """

    def follow(self, direction: Direction, data: bytes, start: int, now: float, joined: bool) -> bool:
        """Only look at a segment's bytes, those from offset *start* on; *joined*: without a hole before them.

        Returns whether both directions are understood, so that ``scan`` may go on behind what was seen.
        """


class HelperFactory(Protocol):
    """Makes the helper of a new flow."""

    def __call__(self, midstream: bool) -> Helper:
        """*midstream*: the flow's beginning was not seen, and the caller vouches for it."""
