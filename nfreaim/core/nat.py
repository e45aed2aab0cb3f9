"""FlowNat: what the router answers to the helper of one flow."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace
from ipaddress import IPv4Address

from nfreaim.core.address import Direction, End, Endpoint, is_reachable
from nfreaim.core.backend import Backend, Pinholes, Watcher
from nfreaim.core.counters import Counters
from nfreaim.core.firewall.pinhole import Origin
from nfreaim.core.flow import Flow
from nfreaim.core.flow_table import Quota
from nfreaim.core.helper import Expectation, Refused, Report
from nfreaim.errors import BackendError


class Router:
    """What the FlowNats of one engine share, and the scan that is going on: there is one at a time.

    new_from, now  where the bytes being scanned begin, and the time of their packet
    made           agreements of the expectations of this scan, in case the helper fails behind them
    followed       servers that this scan found redirects to
    """

    def __init__(
        self,
        pinholes: Pinholes,
        backend: Backend,
        watcher: Watcher,
        counters: Counters,
        half_read: Quota[Flow],
        home_names: Container[str] = (),
    ) -> None:
        self.pinholes = pinholes
        self.conntrack = backend.conntrack
        self.store = backend.store
        self.watcher = watcher
        self.counters = counters
        self.half_read = half_read
        self.home_names = home_names
        self.begin_scan(0, 0.0)

    def begin_scan(self, new_from: int, now: float) -> None:
        """A helper is about to read the bytes from stream offset *new_from* on."""
        self.new_from = new_from
        self.now = now
        self.made: tuple[bytes, ...] = ()
        self.followed: tuple[Endpoint, ...] = ()

    def undo_scan(self, flow: Flow, reason: str) -> None:
        """What the scan of *flow* asked for will be announced to nobody."""
        for agreement in self.made:
            self.pinholes.close(flow.id, agreement, reason)


class FlowNat:
    """The Nat of one flow.

    Connection tracking is asked once for the flow's outside end: it cannot change while the connection lives,
    and connection tracking may be flushed.
    """

    __slots__ = ("_flow", "_outside_address", "_reached", "_router")

    def __init__(self, flow: Flow, router: Router) -> None:
        self._flow = flow
        self._router = router
        self._reached: Endpoint | None = None
        self._outside_address = ""

    @property
    def server_inside(self) -> bool:
        return self._flow.inside is End.SERVER

    @property
    def inside(self) -> Endpoint:
        return self._flow.id[self._flow.inside]

    @property
    def outside(self) -> Endpoint:
        return self._flow.id[1 - self._flow.inside]

    def established(self) -> None:
        if not self.server_inside:  # a server's flow may name any host
            self._router.pinholes.prepare(self.inside.address)

    def expect(self, expectation: Expectation) -> Endpoint:
        router, flow = self._router, self._flow
        if not flow.reading.helper.established:
            raise Refused("the connection is not past sign-on")
        address = self._address()
        policy = router.pinholes.policy
        if expectation.inside.address in (address, policy.announce):
            raise Refused("the flow is not translated here")
        if policy.announce is None and not is_reachable(address):
            raise Refused(f"outside address {address} is private: another router translates behind this one")
        host = self.inside.address
        if self.server_inside:
            # The server relays what its clients announce: any host of the LAN, but never the router itself.
            host = expectation.inside.address
        if not router.conntrack.is_inside_host(host):
            raise Refused(f"{host} is not a host of the inside networks")
        if not policy.verify_peers:
            expectation = replace(expectation, greetings=())
        origin = Origin(flow.protocol, host, address)
        pinhole = router.pinholes.open(flow.id, expectation, origin, router.now)
        router.made += (expectation.agreement,)
        return Endpoint(policy.announce or address, pinhole.outside.port)

    def _address(self) -> str:
        if self.server_inside:
            return self.reached().address
        conntrack, flow = self._router.conntrack, self._flow.id
        try:
            # The packet that asks comes from before connection tracking, perhaps in another host's name.
            if not conntrack.alive(flow) and conntrack.ended(flow):
                raise Refused("connection tracking does not hold the connection for established")
            self._outside_address = self._outside_address or conntrack.outside_address(flow)
        except BackendError as error:
            raise Refused(str(error)) from error
        return self._outside_address

    def reached(self) -> Endpoint:
        try:
            self._reached = self._reached or self._router.conntrack.reached(self._flow.id)
        except BackendError as error:
            raise Refused(str(error)) from error
        return self._reached

    def is_home(self, host: str) -> bool:
        if host.lower() in self._router.home_names:
            return True
        try:
            address = str(IPv4Address(host))
        except ValueError:
            return False
        return not is_reachable(address) or self._router.conntrack.is_inside_host(address)

    def watch_server(self, server: Endpoint) -> None:
        self._router.followed += (server,)

    def withdraw(self, agreement: bytes, reason: str) -> None:
        self._router.pinholes.close(self._flow.id, agreement, reason)

    def withdraw_all(self, reason: str) -> None:
        self._router.pinholes.close_flow(self._flow.id, reason)

    def accepted(self, agreement: bytes) -> None:
        self._router.pinholes.accepted(self._flow.id, agreement, self._router.now)

    def has_pinholes(self) -> bool:
        return len(self._router.pinholes) > 0

    def has_standing(self) -> bool:
        return self._router.pinholes.has_standing()

    def inside_of(self, announced: Endpoint) -> Endpoint | None:
        return self._router.pinholes.inside_of(announced)

    def is_ours(self, address: str) -> bool:
        if address == self._router.pinholes.policy.announce:
            return True
        try:
            return address == self._address()
        except Refused:
            return False

    def set_buffered(self, size: int) -> None:
        self._router.half_read.set(self._flow, size)

    def editable(self, direction: Direction, start: int) -> bool:
        return start >= self._flow.streams[direction].first_editable(self._router.new_from)

    def count(self, counter: str) -> None:
        self._router.counters.helpers[counter] += 1

    def report(self, report: Report) -> None:
        self._router.watcher.reported(self._flow.id, self._flow.protocol, report)
