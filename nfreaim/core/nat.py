"""FlowNat: what the router answers to the helper of one flow."""

from __future__ import annotations

from collections.abc import Callable, Container, Set
from contextlib import suppress
from ipaddress import IPv4Address
from typing import Final

from nfreaim.core.address import Direction, End, Endpoint
from nfreaim.core.backend import Backend, Pinholes, Watcher
from nfreaim.core.budget import Pace, ReadingTime
from nfreaim.core.counters import Counters
from nfreaim.core.firewall.pinhole import Origin
from nfreaim.core.flow import Flow
from nfreaim.core.flow_table import Quota
from nfreaim.core.helper import Expectation, NotInside, Refused, Report, Scan
from nfreaim.core.reach import is_private, unreachable
from nfreaim.core.senders import InsideSenders
from nfreaim.core.tcp.stream import Stream
from nfreaim.errors import BackendError

_UNPROVED: Final = (
    "connection tracking did not see the connection begin, or it has ended; "
    "this works once its client has signed on again"
)


class Router:
    """What the FlowNats of one engine share, and the scan that is going on: there is one at a time.

    new_from, now  where the bytes being scanned begin, and the time of their packet
    made           agreements of the expectations of this scan, in case the helper fails behind them
    reading_time   what messages may take
    pace           what all bytes may take
    follow         QueueSets.follow, which the engine puts here
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
        self.home = backend.home
        self.locals = backend.locals
        self.unwatched = backend.unwatched
        self.watcher = watcher
        self.counters = counters
        self.senders = InsideSenders(backend.senders, counters)
        self.half_read = half_read
        self.follow: Callable[[Endpoint, Flow, Set[Endpoint], float], bool] = _nowhere
        self.home_names = home_names
        self._cpu = backend.cpu
        self.reading_time = ReadingTime(backend.cpu)
        self.pace = Pace()
        self.begin_scan(0, 0.0)

    def begin_scan(self, new_from: int, now: float) -> None:
        """A helper is about to read the bytes from stream offset *new_from* on."""
        self.new_from = new_from
        self.now = now
        self.made: tuple[bytes, ...] = ()

    def scan(self, stream: Stream[Flow], data: bytes, new_from: int, now: float) -> Scan | None:
        """Let the helper read *data*, the bytes of *stream* from offset *new_from* on. Raises as it does."""
        flow, times = stream.flow, self.reading_time
        self.begin_scan(new_from, now)
        measured = len(data) >= Pace.LEAST_BYTES
        began = self._cpu() - times.spent_elsewhere if measured else 0.0
        try:
            return flow.reading.helper.scan(stream.direction, data, new_from, flow.nat)
        finally:
            times.stop(now)
            if measured:
                took = self._cpu() - times.spent_elsewhere - began
                self.pace.took(flow.key, stream.direction, took, now)

    def undo_scan(self, flow: Flow, reason: str) -> None:
        """What the scan of *flow* asked for will be announced to nobody."""
        for agreement in self.made:
            self.pinholes.close(flow.id, agreement, reason)


def _nowhere(server: Endpoint, flow: Flow, others: Set[Endpoint], now: float) -> bool:
    raise Refused("no servers are followed here")


class FlowNat:
    """The Nat of one flow.

    Connection tracking is asked once for the flow's outside end: it cannot change while the connection lives,
    and connection tracking may be flushed.
    """

    __slots__ = ("_flow", "_followed", "_outside_address", "_reached", "_router")

    def __init__(self, flow: Flow, router: Router) -> None:
        self._flow = flow
        self._router = router
        self._reached: Endpoint | None = None
        self._outside_address = ""
        self._followed: frozenset[Endpoint] = frozenset()

    @property
    def server_inside(self) -> bool:
        return self._flow.inside is End.SERVER

    @property
    def inside(self) -> Endpoint:
        return self._flow.id[self._flow.inside]

    @property
    def outside(self) -> Endpoint:
        return self._flow.id[1 - self._flow.inside]

    def established(self, session: bool = False) -> None:
        self._prove()
        if session:
            flow = self._flow
            self._router.pinholes.signed_on(flow.id, flow.protocol, self.inside.address)
        if self.server_inside:  # it may name any host
            self._router.home.met(self._flow.id)
        else:
            self._router.pinholes.prepare(self.inside.address)
        self.reserve()

    def reserve(self) -> None:
        """The flow is established: mappings of the router in front may be wanted, if that is asked."""
        if self._router.pinholes.reach.asks:
            with suppress(Refused):
                address = self._address()
                if unreachable(address) is not None:
                    self._router.pinholes.reserve(self._flow.id, address)

    def expect(self, expectation: Expectation) -> Endpoint:
        try:
            return self._expect(expectation)
        except Refused:
            self.offered(expectation)
            raise

    def offered(self, expectation: Expectation) -> None:
        router, flow = self._router, self._flow
        if self.server_inside or expectation.inside.address != self.inside.address:
            return  # a server's word about others, without a pinhole, is worth nothing
        with suppress(Refused):
            router.senders.vouch(flow)
            if flow.reading.helper.established and self._prove():
                with router.reading_time.elsewhere():
                    router.pinholes.offered(flow.id, expectation, router.now)

    def _expect(self, expectation: Expectation) -> Endpoint:
        router, flow = self._router, self._flow
        if not flow.reading.helper.established:
            raise Refused("the connection is not past sign-on")
        router.senders.vouch(flow)
        if not self._prove():
            raise Refused(_UNPROVED)
        address = self._address()
        policy, reach = router.pinholes.policy, router.pinholes.reach
        local = not self.server_inside and router.locals.serves(self.inside.address)
        own = expectation.inside.address
        if not local and (own == address or reach.is_ours(own)):
            raise Refused("the flow is not translated here")
        told = reach.told(address, self._told())
        host = self.inside.address
        if self.server_inside:
            # A server relays what its clients announce: any host of the LAN, but never the router itself.
            host = expectation.inside.address
        if local:
            self._must_listen(expectation.inside)
        elif not router.conntrack.is_inside_host(host):
            raise NotInside(f"{host} is not a host of the inside networks, which --lan names by interface")
        if expectation.unverified in policy.deny_services:
            raise Refused(f"{expectation.unverified} is switched off in the configuration")
        if self.server_inside:
            self._must_speak_for(host)
        origin = Origin(flow.protocol, host, address, reach.needs_mapping(address, self._told()))
        with router.reading_time.elsewhere():
            pinhole = router.pinholes.open(flow.id, expectation, origin, router.now)
        router.made += (expectation.agreement,)
        return pinhole.told or Endpoint(told, pinhole.outside.port)

    def _prove(self) -> bool:
        """Whether the flow is proved: its handshake was seen to the end, by connection tracking as by us.

        What was proved once stays so, because connection tracking may be flushed.
        """
        flow = self._flow
        if not flow.proved:
            with suppress(BackendError):  # it is asked again
                flow.proved = self._router.conntrack.handshake_seen(flow.id)
        return flow.proved

    def _address(self) -> str:
        if self.server_inside:
            return self._came_to().address
        conntrack, flow = self._router.conntrack, self._flow.id
        try:
            # What connection tracking does not know at all it has forgotten.
            if not conntrack.alive(flow) and conntrack.ended(flow):
                raise Refused("connection tracking does not hold the connection for established")
            self._outside_address = self._outside_address or conntrack.outside_address(flow)
        except BackendError as error:
            raise Refused(str(error)) from error
        return self._outside_address

    def _must_listen(self, inside: Endpoint) -> None:
        """On this router there are others' programs, too. Raises Refused unless *inside* is the client's."""
        try:
            why = self._router.locals.why_not(self._flow.id, inside)
        except BackendError as error:
            raise Refused(str(error)) from error
        if why is not None:
            raise Refused(why)

    def _must_speak_for(self, host: str) -> None:
        """Any program that can be reached on a server's port looks like a server. Raises Refused."""
        try:
            why = self._router.home.why_not(self._flow.id, self._came_to(), host)
        except BackendError as error:
            raise Refused(str(error)) from error
        if why is not None:
            raise Refused(why)

    def _came_to(self) -> Endpoint:
        """The endpoint of this router that the client of a server inside connected to. Raises Refused."""
        try:
            self._reached = self._reached or self._router.conntrack.reached(self._flow.id)
        except BackendError as error:
            raise Refused(str(error)) from error
        return self._reached

    def _told(self) -> str | None:
        """The address of the only peer that is told what leaves on this flow, or None."""
        return self.outside.address if self.server_inside else None

    def reached(self) -> Endpoint:
        here = self._came_to()
        return Endpoint(self._router.pinholes.reach.told(here.address, self._told()), here.port)

    def outside_of(self, server: Endpoint) -> Endpoint:
        reached = self.reached()
        if server == self.inside:
            return reached
        here = self._came_to()
        try:
            port = self._router.home.port_of(server, here.address)
        except BackendError as error:
            raise Refused(str(error)) from error
        if port is None:
            raise Refused(f"no rule forwards a port of {here.address} to exactly {server}; forward one")
        return Endpoint(reached.address, port)

    def is_home(self, host: str) -> bool:
        if host.lower() in self._router.home_names:
            return True
        try:
            address = str(IPv4Address(host))
        except ValueError:
            return False
        return is_private(address) or self._router.conntrack.is_inside_host(address)

    def watch_server(self, server: Endpoint) -> None:
        if self._router.follow(server, self._flow, self._followed, self._router.now):
            self._followed |= {server}

    def withdraw(self, agreement: bytes, reason: str) -> None:
        with self._router.reading_time.elsewhere():
            self._router.pinholes.close(self._flow.id, agreement, reason)

    def withdraw_all(self, reason: str) -> None:
        with self._router.reading_time.elsewhere():
            self._router.pinholes.close_flow(self._flow.id, reason)

    def accepted(self, agreement: bytes) -> None:
        with self._router.reading_time.elsewhere():
            self._router.pinholes.accepted(self._flow.id, agreement, self._router.now)

    def has_pinholes(self) -> bool:
        return len(self._router.pinholes) > 0

    def has_standing(self) -> bool:
        return self._router.pinholes.has_standing()

    def inside_of(self, announced: Endpoint) -> Endpoint | None:
        inside = self._router.pinholes.inside_of(announced, self._flow.id)
        if inside is None or self.server_inside:
            return inside
        # In another LAN, which its own host may not meet, it is no nearer than to anybody outside.
        return inside if self._router.conntrack.may_meet(self.inside.address, inside.address) else None

    def is_ours(self, address: str) -> bool:
        if self._router.pinholes.reach.is_ours(address):
            return True
        if self._outside_address:
            return address == self._outside_address
        try:
            return address == self._address()
        except Refused:
            return False

    def set_buffered(self, size: int) -> None:
        self._router.half_read.set(self._flow, size)

    def may_read(self, direction: Direction) -> bool:
        router = self._router
        if router.reading_time.begin(self._flow.key, direction, router.now):
            return True
        router.counters.skipped_messages += 1
        return False

    def editable(self, direction: Direction, start: int) -> bool:
        return start >= self._flow.streams[direction].first_editable(self._router.new_from)

    def count(self, counter: str) -> None:
        self._router.counters.helpers[counter] += 1

    def report(self, report: Report) -> None:
        self._router.watcher.reported(self._flow.id, self._flow.protocol, report)
