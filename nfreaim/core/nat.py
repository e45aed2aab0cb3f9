"""FlowNat: what the router answers to the helper of one flow."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace
from ipaddress import IPv4Address

from nfreaim.core.address import Direction, Endpoint, is_reachable
from nfreaim.core.backend import Kernel, Pinholes, Watcher
from nfreaim.core.counters import Counters
from nfreaim.core.flow import Flow
from nfreaim.core.helper import Expectation, Refused, Report
from nfreaim.core.quota import Quota
from nfreaim.errors import BackendError


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
        half_read: Quota[Flow],
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
