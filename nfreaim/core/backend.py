"""Backend: the engine's interfaces to connection tracking, the queue's sets, records and pinholes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.firewall.pinhole import Observer, Origin, Pinhole
from nfreaim.core.firewall.policy import PinholePolicy
from nfreaim.core.helper import Expectation, Report
from nfreaim.core.tcp.segment import Segment

Record = dict[str, Any]
"""What has to be known of a flow to go on with it: numbers, strings, lists and dicts only (see records.py).

A record that came back may have "position", the bytes last saved."""


class Followed(NamedTuple):
    """A server that *client* (an address) was redirected to, and the protocol that is spoken there."""

    server: Endpoint
    client: str
    protocol: str


News = Callable[[], Iterable[tuple[Followed, float]]]
"""Servers that other processes of this daemon follow, and when each was named last; empty if nothing changed.
Raises nothing."""


class Conntrack(Protocol):
    """What the engine asks of connection tracking and of the interfaces."""

    def outside_address(self, flow: FlowId) -> str:
        """The outside address that this flow, whose client is inside, leaves with. Raises BackendError."""

    def reached(self, flow: FlowId) -> Endpoint:
        """Of a flow with its server inside: the outside endpoint its client reached. Raises BackendError."""

    def is_inside_host(self, address: str) -> bool:
        """Whether *address* is that of a host in one of the inside networks, and not the router's own."""

    def alive(self, flow: FlowId) -> bool:
        """Whether connection tracking holds the flow as an open connection. Raises BackendError."""

    def ended(self, flow: FlowId) -> bool:
        """Whether a flow that is not ``alive`` has ended, by its entry now or as it was last.

        If not, nothing is known: its entry may have been flushed. Raises BackendError.
        """


class QueueControl(Protocol):
    """What the engine says about which packets the kernel queues."""

    def offload(self, flow: FlowId) -> None:
        """Let this flow's packets skip the queue. Raises BackendError."""

    def undo_offload(self, flow: FlowId) -> None:
        """Queue this flow's packets again: a new connection uses the same endpoints. Raises BackendError."""

    def queue_server(self, followed: Followed) -> None:
        """Queue this client's connections to this server for a while, or longer. Raises BackendError."""


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


@dataclass(frozen=True, slots=True)
class Backend:
    """The kernel and the disk, as the engine uses them."""

    conntrack: Conntrack
    queue: QueueControl
    store: FlowStore
    reset: Reset


class Pinholes(Protocol):
    """What the engine asks of the table of pinholes, which may be another process's."""

    @property
    def policy(self) -> PinholePolicy:
        """What the operator set."""

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

    def inside_of(self, announced: Endpoint) -> Endpoint | None:
        """The inside endpoint that an announced one leads to."""

    def prepare(self, host: str) -> None:
        """A flow of the inside *host* is established: what all its pinholes need may be made ahead."""

    def open(self, flow: FlowId, expectation: Expectation, origin: Origin, now: float) -> Pinhole:
        """Open (or prolong) the pinhole for *expectation*. Raises Refused."""

    def accepted(self, flow: FlowId, agreement: bytes, now: float) -> None:
        """The peer accepted: from now on the accept grace runs."""

    def close(self, flow: FlowId, agreement: bytes, reason: str) -> None:
        """End one agreement; the pinhole closes with its last one."""

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
