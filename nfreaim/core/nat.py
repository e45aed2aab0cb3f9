"""FlowNat: what the router answers to the helper of one flow, and the seams it needs for that.

No protocol, no I/O: the kernel is a Kernel, whoever watches is a Watcher.
"""

from __future__ import annotations

from collections.abc import Container, Set
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Final, Protocol

from nfreaim.core.counters import Counters
from nfreaim.core.firewall import Observer, Pinhole
from nfreaim.core.flow import Direction, Endpoint, Flow, Owner
from nfreaim.core.helper import Expectation, Refused, Report
from nfreaim.core.ledger import Ledger
from nfreaim.core.packet import Segment
from nfreaim.core.policy import PinholePolicy
from nfreaim.errors import BackendError


class Kernel(Protocol):
    """What the engine asks of connection tracking and of the queue's rules."""

    def outside_address(self, owner: Owner) -> str:
        """The outside address that this flow, whose client is inside, leaves with. Raises BackendError."""

    def reached(self, owner: Owner) -> Endpoint:
        """Of a flow with its server inside: the outside endpoint its client reached. Raises BackendError."""

    def lan(self, address: str) -> bool:
        """Whether *address* is that of a host in one of the inside networks, and not the router's own."""

    def alive(self, owner: Owner) -> bool:
        """Whether connection tracking still holds the flow as an open connection. Raises BackendError."""

    def ended(self, owner: Owner) -> bool:
        """Whether a flow that is not ``alive`` has ended, as connection tracking says, or said last.

        If not, nothing is known: its entry may have been flushed. Raises BackendError.
        """

    def offload(self, owner: Owner) -> None:
        """Let this flow's packets skip the queue. Raises BackendError."""

    def reclaim(self, owner: Owner) -> None:
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
    """What the engine asks of the table of pinholes (core.pinhole), which may be another process's."""

    @property
    def policy(self) -> PinholePolicy:
        """What the operator set."""

    def __len__(self) -> int:
        """How many are open."""

    def sessions(self) -> bool:
        """Whether any pinhole is open for a whole session."""

    def owners(self) -> Set[Owner]:
        """The flows that live pinholes were opened for."""

    def tended(self) -> Set[Owner]:
        """Those of them that the caller has to look after: they may end without a word."""

    def leads_to(self, inside: Endpoint) -> bool:
        """Whether a pinhole leads to *inside*: who connects there is a peer, not a client."""

    def inside_of(self, announced: Endpoint) -> Endpoint | None:
        """The inside endpoint that an announced one leads to."""

    def prepare(self, host: str) -> None:
        """The inside *host* has signed on: what is the same for all its pinholes may be done ahead."""

    def open(self, owner: Owner, expectation: Expectation, host: str, address: str, now: float) -> Pinhole:
        """Open (or prolong) the pinhole for *expectation* at outside *address*. Raises Refused.

        *host* is the only inside address that *owner* may name.
        """

    def agreed(self, owner: Owner, cookie: bytes, now: float) -> None:
        """The peer accepted: what is left is the accept grace."""

    def close(self, owner: Owner, cookie: bytes, reason: str) -> None:
        """End one agreement; the pinhole goes with its last one."""

    def close_owner(self, owner: Owner, reason: str) -> None:
        """End every agreement of one flow."""

    def close_all(self, reason: str) -> None:
        """The engine stops."""

    def expire(self, now: float) -> None:
        """Called about every second."""


class Watcher(Observer, Protocol):
    """Who is told what the engine does."""

    def reported(self, flow: Flow, report: Report) -> None: ...


# RFC 1918, RFC 6598 (carrier-grade NAT), RFC 3927, RFC 1122: nobody on the Internet can connect there.
# Not ipaddress.is_private, which has more, such as the documentation ranges.
UNREACHABLE: Final = {
    IPv4Network("10.0.0.0/8"): "private",
    IPv4Network("172.16.0.0/12"): "private",
    IPv4Network("192.168.0.0/16"): "private",
    IPv4Network("100.64.0.0/10"): "carrier-grade NAT",
    IPv4Network("169.254.0.0/16"): "link-local",
    IPv4Network("127.0.0.0/8"): "loopback",
}


def is_reachable(address: str) -> bool:
    """Whether peers on the Internet can reach IPv4 *address*, as far as its range tells."""
    return not any(IPv4Address(address) in network for network in UNREACHABLE)


class FlowNat:
    """The Nat of one flow.

    fresh  where the bytes being scanned begin, and *now* the time of their packet
    made   cookies of the expectations of this scan, in case the helper fails behind them
    followed  servers that this scan found redirects to

    What connection tracking says of the flow's outside end is asked once: it cannot change while the
    connection lives, and connection tracking may be flushed.
    """

    __slots__ = (
        "_end",
        "_flow",
        "_half_read",
        "_home_names",
        "_kernel",
        "_outside_address",
        "_pinholes",
        "_watcher",
        "counters",
        "followed",
        "fresh",
        "made",
        "now",
    )

    def __init__(
        self,
        flow: Flow,
        pinholes: Pinholes,
        kernel: Kernel,
        watcher: Watcher,
        counters: Counters,
        half_read: Ledger[Flow],
        home_names: Container[str] = (),
    ) -> None:
        self._flow = flow
        self._home_names = home_names
        self._half_read = half_read
        self.followed: tuple[Endpoint, ...] = ()
        self._end: Endpoint | None = None
        self._outside_address = ""
        self._pinholes = pinholes
        self._kernel = kernel
        self._watcher = watcher
        self.counters = counters
        self.made: tuple[bytes, ...] = ()
        self.begin_scan(0, 0.0)

    def begin_scan(self, fresh: int, now: float) -> None:
        """The helper is about to read the bytes from stream offset *fresh* on."""
        self.fresh = fresh
        self.now = now
        self.made = ()
        self.followed = ()

    def undo_scan(self, reason: str) -> None:
        """The helper failed: nobody will be told of what it asked for in this scan."""
        for cookie in self.made:
            self.withdraw(cookie, reason)

    @property
    def server_inside(self) -> bool:
        return self._flow.server_inside

    @property
    def inside(self) -> Endpoint:
        client, server = self._flow.owner
        return server if self._flow.server_inside else client

    @property
    def outside(self) -> Endpoint:
        client, server = self._flow.owner
        return client if self._flow.server_inside else server

    def ready(self) -> None:
        if not self._flow.server_inside:  # a server's flow may name any host
            self._pinholes.prepare(self.inside.address)

    def expect(self, expectation: Expectation) -> Endpoint:
        helper = self._flow.helper
        if helper is None or not helper.established:
            raise Refused("the connection is not past sign-on")
        address = self._address()
        announce = self._pinholes.policy.announce
        if expectation.inside.address in (address, announce):
            raise Refused("the flow is not translated here")
        if announce is None and not is_reachable(address):
            raise Refused(f"outside address {address} is private: another router translates behind this one")
        host = self.inside.address
        if self._flow.server_inside:
            # The server relays what its clients announce: any host of the LAN, but never the router itself.
            host = expectation.inside.address
        if not self._kernel.lan(host):
            raise Refused(f"{host} is not a host of the inside networks")
        if not self._pinholes.policy.verify_peers:
            expectation = replace(expectation, greetings=())
        pinhole = self._pinholes.open(self._flow.owner, expectation, host, address, self.now)
        self.made += (expectation.cookie,)
        return Endpoint(announce or address, pinhole.outside.port)

    def _address(self) -> str:
        if self._flow.server_inside:
            return self.reached().address
        try:
            # The packet that asks comes from before connection tracking, perhaps in another host's name.
            owner = self._flow.owner
            if not self._kernel.alive(owner) and self._kernel.ended(owner):
                raise Refused("connection tracking does not hold the connection for established")
            self._outside_address = self._outside_address or self._kernel.outside_address(owner)
        except BackendError as error:
            raise Refused(str(error)) from error
        return self._outside_address

    def reached(self) -> Endpoint:
        try:
            self._end = self._end or self._kernel.reached(self._flow.owner)
        except BackendError as error:
            raise Refused(str(error)) from error
        return self._end

    def is_home(self, host: str) -> bool:
        if host.lower() in self._home_names:
            return True
        try:
            address = str(IPv4Address(host))
        except ValueError:
            return False
        return not is_reachable(address) or self._kernel.lan(address)

    def follow(self, server: Endpoint) -> None:
        self.followed += (server,)

    def withdraw(self, cookie: bytes, reason: str) -> None:
        self._pinholes.close(self._flow.owner, cookie, reason)

    def withdraw_all(self, reason: str) -> None:
        self._pinholes.close_owner(self._flow.owner, reason)

    def agreed(self, cookie: bytes) -> None:
        self._pinholes.agreed(self._flow.owner, cookie, self.now)

    def mappings(self) -> bool:
        return len(self._pinholes) > 0

    def sessions(self) -> bool:
        return self._pinholes.sessions()

    def inside_of(self, announced: Endpoint) -> Endpoint | None:
        return self._pinholes.inside_of(announced)

    def is_ours(self, address: str) -> bool:
        if address == self._pinholes.policy.announce:
            return True
        try:
            return address == self._address()
        except Refused:
            return False

    def keeps(self, size: int) -> None:
        self._half_read.set(self._flow, size)

    def editable(self, direction: Direction, start: int) -> bool:
        return start >= self._flow.streams[direction].untouched(self.fresh)

    def report(self, report: Report) -> None:
        self._watcher.reported(self._flow, report)
