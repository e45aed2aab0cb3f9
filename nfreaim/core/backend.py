"""What the engine asks of its surroundings: connection tracking, the queue's sets, records and pinholes."""

from __future__ import annotations

from collections.abc import Set
from typing import Any, Protocol

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.firewall.pinhole import Observer, Pinhole
from nfreaim.core.firewall.policy import PinholePolicy
from nfreaim.core.flow import Flow
from nfreaim.core.helper import Expectation, Report
from nfreaim.core.tcp.segment import Segment


class Kernel(Protocol):
    """What the engine asks of connection tracking and of the queue's rules."""

    def outside_address(self, owner: FlowId) -> str:
        """The outside address that this flow, whose client is inside, leaves with. Raises BackendError."""

    def reached(self, owner: FlowId) -> Endpoint:
        """Of a flow with its server inside: the outside endpoint its client reached. Raises BackendError."""

    def lan(self, address: str) -> bool:
        """Whether *address* is that of a host in one of the inside networks, and not the router's own."""

    def alive(self, owner: FlowId) -> bool:
        """Whether connection tracking still holds the flow as an open connection. Raises BackendError."""

    def ended(self, owner: FlowId) -> bool:
        """Whether a flow that is not ``alive`` has ended, as connection tracking says, or said last.

        If not, nothing is known: its entry may have been flushed. Raises BackendError.
        """

    def offload(self, owner: FlowId) -> None:
        """Let this flow's packets skip the queue. Raises BackendError."""

    def reclaim(self, owner: FlowId) -> None:
        """Undo ``offload``: a new connection uses the same endpoints. Raises BackendError."""

    def divert(self, server: Endpoint) -> None:
        """Queue what runs to and from *server*, too, for some time; again refreshes. Raises BackendError."""

    def protect(self, key: bytes, record: Record) -> None:
        """Let the flow fail closed, so that it survives a crash: its record on disk first, then the set.

        Called before the verdict of every packet with an edit of a skewed flow. Raises BackendError.
        """

    def unprotect(self, key: bytes) -> None:
        """The flow is over: undo ``protect``; an unknown key is no error. Never raises."""

    def keep(self, key: bytes, record: Record) -> None:
        """A flow is signed on: have its record outlive this process. Raises BackendError."""

    def note(self, key: bytes, place: bytes) -> None:
        """Where a flow that is kept stands: at most 48 bytes, which outlive a crash. Raises BackendError."""

    def drop(self, key: bytes, skewed: bool) -> None:
        """Undo ``keep`` and ``note``, of a *skewed* flow ``note`` alone; unknown is fine. Never raises."""

    def reset(self, segment: Segment) -> None:
        """Answer the sender of *segment* with a reset. Never raises."""


Record = dict[str, Any]
"""What has to be known of a flow to go on with it: numbers, strings, lists and dicts only (see records.py).

A record that came back may have "place", the bytes last noted."""


class Pinholes(Protocol):
    """What the engine asks of the table of pinholes (core.firewall.table), which may be another process's."""

    @property
    def policy(self) -> PinholePolicy:
        """What the operator set."""

    def __len__(self) -> int:
        """How many are open."""

    def sessions(self) -> bool:
        """Whether any pinhole is open for a whole session."""

    def owners(self) -> Set[FlowId]:
        """The flows that live pinholes were opened for."""

    def tended(self) -> Set[FlowId]:
        """Those of them that the caller has to look after: they may end without a word."""

    def leads_to(self, inside: Endpoint) -> bool:
        """Whether a pinhole leads to *inside*: who connects there is a peer, not a client."""

    def inside_of(self, announced: Endpoint) -> Endpoint | None:
        """The inside endpoint that an announced one leads to."""

    def prepare(self, host: str) -> None:
        """The inside *host* has signed on: what is the same for all its pinholes may be done ahead."""

    def open(self, owner: FlowId, expectation: Expectation, host: str, address: str, now: float) -> Pinhole:
        """Open (or prolong) the pinhole for *expectation* at outside *address*. Raises Refused.

        *host* is the only inside address that *owner* may name.
        """

    def agreed(self, owner: FlowId, cookie: bytes, now: float) -> None:
        """The peer accepted: what is left is the accept grace."""

    def close(self, owner: FlowId, cookie: bytes, reason: str) -> None:
        """End one agreement; the pinhole goes with its last one."""

    def close_owner(self, owner: FlowId, reason: str) -> None:
        """End every agreement of one flow."""

    def close_all(self, reason: str) -> None:
        """The engine stops."""

    def expire(self, now: float) -> None:
        """Called about every second."""


class Watcher(Observer, Protocol):
    """Who is told what the engine does."""

    def reported(self, flow: Flow, report: Report) -> None: ...
