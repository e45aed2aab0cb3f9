"""Backend: the engine's interfaces to connection tracking, the queue's sets, records and pinholes."""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, NamedTuple, Protocol

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.firewall.pinhole import Observer, Origin, Pinhole
from nfreaim.core.firewall.policy import PinholePolicy
from nfreaim.core.helper import Expectation, Report
from nfreaim.core.reach import Reach
from nfreaim.core.tcp.segment import Segment

Record = dict[str, Any]
"""What has to be known of a flow to go on with it: numbers, strings, lists and dicts only (see records.py).

A record that came back may have "position", the bytes last saved."""


class Followed(NamedTuple):
    """A server that *client* (an address) was redirected to, and the protocol that is spoken there."""

    server: Endpoint
    client: str
    protocol: str


class Conntrack(Protocol):
    """What the engine asks of connection tracking and of the interfaces."""

    def outside_address(self, flow: FlowId) -> str:
        """The outside address that this flow, whose client is inside, leaves with. Raises BackendError."""

    def reached(self, flow: FlowId) -> Endpoint:
        """Of a flow with its server inside: the outside endpoint its client reached. Raises BackendError."""

    def is_inside_host(self, address: str) -> bool:
        """Whether *address* is that of a host in one of the inside networks, and not the router's own."""

    def may_meet(self, one: str, other: str) -> bool:
        """Whether two inside hosts may be told each other's inside addresses; not in isolated LANs."""

    def handshake_seen(self, flow: FlowId) -> bool:
        """Whether connection tracking saw the flow's handshake to its end, and holds it for established.

        An entry that was made by a packet of the middle does not count. Raises BackendError.
        """

    def alive(self, flow: FlowId) -> bool:
        """Whether connection tracking holds the flow as an open connection. Raises BackendError.

        A handshake within it counts as open: who began it may be a forger.
        """

    def ended(self, flow: FlowId) -> bool:
        """Whether a flow that is not ``alive`` has ended, by its entry now or as it was last.

        If not, nothing is known: its entry may have been flushed. Raises BackendError.
        """

    def by_pinhole(self, flow: FlowId) -> bool:
        """Whether the flow is a peer's, which came through a pinhole or a forward. Raises BackendError."""


class HomeServers(Protocol):
    """Which servers on the inside may speak for which hosts. A server's own word is worth nothing here."""

    def met(self, flow: FlowId) -> None:
        """*flow*, whose server is inside, is established: what ``why_not`` needs may be read ahead."""

    def why_not(self, flow: FlowId, reached: Endpoint, host: str) -> str | None:
        """Why the server of *flow* may not name *host* to its clients, with the remedy; None: it may.

        *reached* is the outside endpoint that the client of *flow* connected to. Raises BackendError.
        """

    def port_of(self, server: Endpoint, address: str) -> int | None:
        """The port of the outside *address* at which *server*, which is on our side, is reached; None: none.

        Raises BackendError.
        """


class LocalClients:
    """Which clients on this router itself are served. This one serves none."""

    def serves(self, address: str) -> bool:
        """Whether *address* is this router's own, and clients on it are served. Raises nothing."""
        return False

    def why_not(self, flow: FlowId, inside: Endpoint) -> str | None:
        """Why the client of *flow*, on this router, may not have *inside* opened; None: it may.

        Raises BackendError.
        """
        return "clients on this router are not served"


class Sender(Enum):
    """Whether a packet comes from the host whose address it has."""

    HOST = auto()
    """It was sent from where the router sends packets for that host."""
    STRANGER = auto()
    """It was sent from elsewhere."""
    UNKNOWN = auto()
    """The router does not know where that host is."""
    UNCHECKED = auto()
    """The link has no hardware addresses, or the operator does not want them compared."""


class Senders(Protocol):
    """Tells who sent a packet. Raises nothing."""

    def hardware(self, token: Any) -> bytes | None:
        """The hardware address that sent the packet *token*, which is being processed; None without one."""

    def sent(self, address: str, hardware: bytes | None) -> Sender:
        """Whether a packet from *hardware* comes from the inside host *address*."""


class QueueControl(Protocol):
    """What the engine says about which packets the kernel queues."""

    def offload(self, flow: FlowId) -> None:
        """Let this flow's packets skip the queue. Raises BackendError."""

    def undo_offload(self, flow: FlowId) -> None:
        """Queue this flow's packets again: a new connection uses the same endpoints. Raises BackendError."""

    def know(self, flow: FlowId) -> None:
        """Queue this flow's packets before those of newcomers; again: for longer. Raises BackendError."""

    def forget(self, flow: FlowId) -> None:
        """Undo ``know``; an unknown flow is no error. Raises BackendError."""

    def queue_server(self, followed: Followed) -> None:
        """Queue this client's connections to this server, for some minutes from now. Raises BackendError."""

    def unqueue_server(self, followed: Followed) -> None:
        """Undo ``queue_server``; an absent one is no error. Raises BackendError."""


class FlowStore(Protocol):
    """What outlives the daemon of its flows."""

    def protect(self, key: bytes, record: Record) -> None:
        """Let the flow fail closed, and survive a crash: its record on disk first, then its set entry.

        Called before the verdict of every packet with an edit of a skewed flow. Raises BackendError.
        """

    def unprotect(self, key: bytes) -> None:
        """The flow is over: undo ``protect``; an unknown key is no error. Raises nothing."""

    def save_session(self, key: bytes, record: Record) -> None:
        """Keep the record of an established flow. Raises BackendError."""

    def save_position(self, key: bytes, position: bytes) -> None:
        """Keep where a saved flow stands, in at most 48 bytes. Raises BackendError."""

    def forget_session(self, key: bytes, skewed: bool) -> None:
        """Undo ``save_session`` and ``save_position``; of a *skewed* flow ``save_position`` alone.

        An unknown key is no error. Raises nothing.
        """


Reset = Callable[[Segment], None]
"""Answers the sender of a segment with a reset. Raises nothing."""

SendPacket = Callable[[bytes], None]
"""Sends an IPv4 packet of ours, which is that of an end of a flow to the other. Raises nothing."""


@dataclass(frozen=True, slots=True)
class Backend:
    """The kernel and the disk, as the engine uses them.

    cpu  seconds of processor time that this process has had, to measure what takes long; a constant switches
         that off
    locals  on this router
    unwatched  the time, on the engine's clock, until which packets may have passed unseen, because rules of
         ours were missing; 0.0: they never were
    """

    conntrack: Conntrack
    queue: QueueControl
    store: FlowStore
    reset: Reset
    home: HomeServers
    senders: Senders
    send: SendPacket
    cpu: Callable[[], float] = float
    locals: LocalClients = field(default_factory=LocalClients)
    unwatched: Callable[[], float] = float


class Pinholes(Protocol):
    """What the engine asks of the table of pinholes, which may be another process's."""

    @property
    def policy(self) -> PinholePolicy:
        """What the operator set."""

    @property
    def reach(self) -> Reach:
        """Which address peers are told."""

    def __len__(self) -> int:
        """How many are open."""

    def has_standing(self) -> bool:
        """Whether any open pinhole is a standing one."""

    def flows(self) -> Set[FlowId]:
        """The flows that open pinholes were opened for."""

    def tended(self) -> Set[FlowId]:
        """Those of them that the caller has to look after: they may end without a packet."""

    def leads_to(self, inside: Endpoint) -> bool:
        """Whether a pinhole leads to *inside*: then a connection there is a peer's, not a client's."""

    def inside_of(self, announced: Endpoint, reader: FlowId | None = None) -> Endpoint | None:
        """The inside endpoint that an announced one leads to, unless *reader* alone announced it."""

    def prepare(self, host: str) -> None:
        """A flow of the inside *host* is established: what all its pinholes need may be made ahead."""

    @property
    def reserve(self) -> Callable[[FlowId, str], None]:
        """*flow* is established, and leaves with that address, which only the router in front can make
        reachable: mappings may be wanted until ``close_flow``.
        """

    def open(self, flow: FlowId, expectation: Expectation, origin: Origin, now: float) -> Pinhole:
        """Open (or prolong) the pinhole for *expectation*. Raises Refused."""

    def offered(self, flow: FlowId, expectation: Expectation, now: float) -> None:
        """A message that makes this expectation leaves as it came: its peer may come nevertheless."""

    def accepted(self, flow: FlowId, agreement: bytes, now: float) -> None:
        """The peer accepted: from now on the accept grace runs."""

    def close(self, flow: FlowId, agreement: bytes, reason: str) -> None:
        """End one agreement; the pinhole closes with its last one."""

    def signed_on(self, flow: FlowId, protocol: str, host: str) -> None:
        """*flow* is a session of the inside *host*, until ``close_flow`` says that it is over."""

    def close_flow(self, flow: FlowId, reason: str, now: float | None = None) -> None:
        """*flow* is over at *now*: end its agreements, except those that may outlive it. None: end all."""

    def close_all(self, reason: str) -> None:
        """The engine stops."""

    def expire(self, now: float) -> None:
        """Called about every second."""


class Watcher(Observer, Protocol):
    """Is told what the engine does."""

    def reported(self, flow: FlowId, protocol: str, report: Report) -> None:
        """A helper of *protocol* dealt with a message of *flow*."""
