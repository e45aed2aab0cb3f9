"""The contract between the engine and a protocol: Helper on one side, Nat on the other.

A helper reads the new bytes of a flow, in order and each once, and answers with edits. It does no I/O and
knows no TCP; what it wants of the router it asks of the Nat it is handed. The rest of the program knows a
protocol by its HelperSpec only.

**After a restart.** A flow whose helper is Resumable is read on by the next daemon. The engine writes down
where reading stands (``positions``) whenever the flow advances. The next daemon makes a new helper and calls
``resume``. If the first segment shows that no byte was missed, ``scan`` goes on at these positions. Otherwise
the engine passes the flow and calls ``resync`` with each segment, until the helper is certain of a message
boundary in both directions; then ``scan`` goes on behind what was seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, Protocol, runtime_checkable

from nfreaim.core.address import Direction, End, Endpoint
from nfreaim.core.greeting import Greeting
from nfreaim.core.redaction import Blank, RedactorFactory
from nfreaim.core.sample import Sample
from nfreaim.core.tcp.offsets import Edit

MESSAGE_COUNTERS: Final[Mapping[str, str]] = {
    "proposals": "messages that announced an address for a peer connection",
    "rewritten": "of these, those whose address was replaced by one of this router",
    "mapped_back": "announcements of a neighbour's pinhole that were replaced by the neighbour's own address",
    "left": "announcements that stayed as they were; the log says why",
    "malformed_messages": "messages that could not be understood, and passed as they were",
}
"""Counters that every helper has, and what each counts."""

REDIRECT_COUNTERS: Final[Mapping[str, str]] = {
    "redirects": "redirects of servers behind this router that now name the address their client had reached",
    "redirects_left": "redirects of servers behind this router that stayed as they were; the log says why",
    "redirects_refused": "redirects whose server is not followed, so connections to it may pass unread",
}
"""Counters of helpers whose servers redirect clients, and what each counts."""


class Refused(Exception):
    """The router will not open what a helper asked for. The text is the reason, fit for a log line."""


class NotInside(Refused):
    """The host is in no inside network."""


UNFIT: Final = "the outside endpoint has another length, which this message must not have"
"""The reason where Expectation.widths does not fit."""


ANY_PORT: Final = 0
"""The port of an expectation, in ``Nat.offered`` alone, whose port could not be read."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """ "A peer will connect to *inside* because of this flow."

    agreement  the protocol's own name for what the peers agreed on, unique within the flow
    service    what is expected, as in the configuration ("send-file", ...)
    peer       the only address the connection may come from, or None where it is not known
    standing   any number of peers, for as long as the flow lasts
    greetings  what the peer may say first; empty: not known, so it is not verified
    unverified where the greetings prove little, because peers of other services begin so, too: the name by
               which the operator may deny that; else ""
    after_flow how long the pinhole may outlive the flow, in seconds: for servers that end the connection of
               two peers before these have met
    widths     how many characters the outside address and port must have, where no length may change
    announced  the outside endpoint that the message names already, if it does; then a client may have had a
               rule made that forwards it, and nothing is to be opened
    needs_session  and no longer than its host has a session of the protocol (see Nat.established)
    """

    agreement: bytes
    service: str
    inside: Endpoint
    peer: str | None = None
    standing: bool = False
    greetings: tuple[Greeting, ...] = ()
    after_flow: float = 0.0
    widths: tuple[int, int] | None = None
    announced: Endpoint | None = None
    needs_session: bool = False
    unverified: str = ""

    @property
    def peers(self) -> tuple[str, ...]:
        """The only addresses that the connection may come from; empty: any."""
        return () if self.peer is None else (self.peer,)


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
    stage      the protocol's own count of the message within its agreement; 0 where it has none
    agreement  as the message names it; *name*: as Nat.withdraw and Nat.accepted do, if that differs
    before     address and port as they came; *after* as they left
    routine    repeated without a user's doing; a log need not show it
    """

    direction: Literal["out", "in"]
    service: str
    stage: int
    agreement: bytes
    before: Endpoint
    after: Endpoint
    action: Action
    reason: str
    routine: bool = False
    name: bytes = b""


class Nat(Protocol):
    """What a helper may ask of the router, about the one flow it reads. All calls are synchronous."""

    @property
    def server_inside(self) -> bool:
        """Whether the inside end is the server: it is behind this router (or on it), its client outside."""

    @property
    def inside(self) -> Endpoint:
        """The flow's inside end."""

    @property
    def outside(self) -> Endpoint:
        """The flow's outside end."""

    def established(self, session: bool = False) -> None:
        """Expectations may follow from now on, and what they need may be prepared.

        *session*: its client stays signed on for as long as this flow lasts, whatever becomes of others.
        """

    def expect(self, expectation: Expectation) -> Endpoint:
        """Open a pinhole; the outside endpoint to announce. It exists when this returns. Raises Refused."""

    def offered(self, expectation: Expectation) -> None:
        """The message that makes this expectation leaves as it came, for a reason of the helper's own.

        Its peer may come nevertheless, by a pinhole that another message opened, and is not refused there.
        What ``expect`` refuses is known already.
        """

    def withdraw(self, agreement: bytes, reason: str) -> None:
        """Close the pinhole of *agreement*, if there is one."""

    def withdraw_all(self, reason: str) -> None:
        """Close every pinhole of this flow."""

    def accepted(self, agreement: bytes) -> None:
        """The peer accepted *agreement*: its pinhole, if there is one, will not be needed for long."""

    def has_pinholes(self) -> bool:
        """Whether any pinhole is open, so that ``inside_of`` could answer."""

    def has_standing(self) -> bool:
        """Whether any open pinhole is a standing one."""

    def inside_of(self, announced: Endpoint) -> Endpoint | None:
        """The inside endpoint that an announced outside endpoint stands for, if it is one of ours.

        None for one that this flow alone has announced: its client must not be told its own.
        """

    def is_ours(self, address: str) -> bool:
        """Whether *address* is the outside address of this flow, or the one announced in its place."""

    def reached(self) -> Endpoint:
        """Of a flow whose server is inside: the outside endpoint its client connected to. Raises Refused."""

    def outside_of(self, server: Endpoint) -> Endpoint:
        """Of a flow whose server is inside: where its client reaches *server*, another one inside.

        That is where it connected to, with the port that the operator forwards to exactly that server. Raises
        Refused if there is no such forward.
        """

    def is_home(self, host: str) -> bool:
        """Whether *host*, a name or an address, stands for a server on our side.

        That is an address of the inside networks, or a name that the operator listed.
        """

    def watch_server(self, server: Endpoint) -> None:
        """The client was redirected to *server*: read its connections there, for minutes or while it is
        connected. Raises Refused if these are too many, or if the port belongs to another service.
        """

    def set_buffered(self, size: int) -> None:
        """The helper keeps *size* bytes of incomplete messages from now on. Call it when that changes."""

    def may_read(self, direction: Direction) -> bool:
        """Ask before a message of that direction is read, if reading it takes long. False: leave it.

        The time until the next call, or the end of the scan, is the message's. A flow that has spent its
        share has to leave the messages of a second as they are.
        """

    def editable(self, direction: Direction, start: int) -> bool:
        """Whether the byte at stream offset *start* has not been forwarded yet."""

    def count(self, counter: str) -> None:
        """One more of *counter*: one of MESSAGE_COUNTERS, or of the protocol's own (HelperSpec.counters)."""

    def report(self, report: Report) -> None:
        """Say what became of a message."""


class Helper(Protocol):
    """One protocol's reader of one flow."""

    established: bool
    """The flow was recognised from its first byte, and expectations may be made."""

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
    """A helper whose flow the next daemon can read on; see the head of this module."""

    def positions(self) -> tuple[bytes, bytes]:
        """Where reading stands in each direction: numbers, no text; of one length, 20 bytes each at most."""

    def resume(self, positions: tuple[bytes, bytes] | None, starts: tuple[int, int]) -> None:
        """The flow is established already. Go on at *positions*, which are the stream offsets *starts*.

        None: they are not known, and ``resync`` will be called. Raises ValueError if these are no positions.
        """

    def resync(self, direction: Direction, data: bytes, start: int, now: float, joined: bool) -> bool:
        """Look for a message boundary in *data*, the bytes of a segment from stream offset *start* on.

        joined  they follow what was seen last without a gap

        Returns whether a boundary is certain in both directions, so that ``scan`` may go on behind *data*.
        """


class HelperFactory(Protocol):
    """Makes the helper of a new flow."""

    def __call__(self, midstream: bool) -> Helper:
        """*midstream*: the flow's beginning was not seen, and the caller vouches for it."""


@dataclass(frozen=True, slots=True)
class Service:
    """One kind of peer connection that a protocol's messages announce.

    default    whether it is served unless the configuration says otherwise
    cap        the limit (a key of HelperSpec.caps) that counts its standing pinholes, or None
    greetings  what a peer may say first where nothing is known of its agreement; empty: not verified
    quiet_end  peers that come when the pinhole is closed already get no answer for a while, because those of
               this service wait for ever if they are refused
    """

    default: bool = True
    cap: str | None = None
    greetings: tuple[Greeting, ...] = ()
    quiet_end: bool = False


@dataclass(frozen=True, slots=True)
class HelperSpec:
    """A protocol, as the rest of the program knows it.

    name          in the configuration, the rules, records, sets, the status and the log
    ports         of its servers, by default
    load          imports what the helper needs, and returns its factory
    condition     when reading these ports is of use, in words that begin with "only if"; "": always
    services      by name, as in the configuration; others may occur, with the values of ``Service()``
    closed        services that are not listed are refused, unless the configuration allows them
    unverified    greetings by the name that Expectation.unverified has with them
    switches      keys of its section of the configuration that say which inside hosts may have these services
    caps          keys of its section that limit the standing pinholes of one host, with their defaults
    low_ports     keys of its section that list inside hosts, and what these may have: the service, and the
                  only port below 1024 where it may be; outside, a port of the configured range leads there
    resizes       on which flows an edit may change a length, by their inside end
    counters      its own, beside MESSAGE_COUNTERS, and what each counts
    service_name  the name of a service as it is written in the configuration -> as Expectation has it
    unlisted      names that services have which are not listed, as a regular expression
    ports_of_one_server  a server of this protocol needs all *ports*, not one of them
    load_redactor  as *load*, of the factory of what makes copies without secrets
    load_sample   as *load*, of a short session that the self-test plays; None: the protocol has none
    """

    name: str
    ports: tuple[int, ...]
    load: Callable[[], HelperFactory]
    condition: str = ""
    services: Mapping[str, Service] = field(default_factory=dict)
    closed: bool = False
    unverified: Mapping[str, tuple[Greeting, ...]] = field(default_factory=dict)
    switches: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    caps: Mapping[str, int] = field(default_factory=dict)
    low_ports: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    resizes: frozenset[End] = frozenset()
    counters: Mapping[str, str] = field(default_factory=dict)
    service_name: Callable[[str], str] = str.lower
    unlisted: str = "(?!)"
    ports_of_one_server: bool = False
    load_redactor: Callable[[], RedactorFactory] = lambda: Blank
    load_sample: Callable[[], Sample] | None = None
