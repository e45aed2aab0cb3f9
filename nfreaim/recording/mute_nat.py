"""MuteNat: the Nat of a helper that only looks: it opens nothing, and notes what endpoints messages name."""

from __future__ import annotations

from collections.abc import Callable

from nfreaim.core.address import Direction, Endpoint, FlowId
from nfreaim.core.helper import Expectation, Refused, Report
from nfreaim.core.reach import is_private

Announced = Callable[[Endpoint, str], None]
"""Takes an endpoint where a peer may connect, and the service that is expected there."""


class MuteNat:
    """See the head of this module. *announced* and *follow* are told what the messages of *flow* name."""

    def __init__(self, flow: FlowId, announced: Announced, follow: Callable[[Endpoint], None]) -> None:
        self._flow, self._announced, self._follow = flow, announced, follow

    @property
    def server_inside(self) -> bool:
        """See Nat: as far as addresses tell."""
        return is_private(self._flow.server.address) and not is_private(self._flow.client.address)

    @property
    def inside(self) -> Endpoint:
        """See Nat."""
        return self._flow.server if self.server_inside else self._flow.client

    @property
    def outside(self) -> Endpoint:
        """See Nat."""
        return self._flow.client if self.server_inside else self._flow.server

    def established(self, session: bool = False) -> None:
        """See Nat."""

    def expect(self, expectation: Expectation) -> Endpoint:
        """See Nat."""
        self.offered(expectation)
        raise Refused("nothing is opened for a recording")

    def offered(self, expectation: Expectation) -> None:
        """See Nat."""
        for endpoint in (expectation.inside, expectation.announced):
            if endpoint is not None:
                self._announced(endpoint, expectation.service)

    def withdraw(self, agreement: bytes, reason: str) -> None:
        """See Nat."""

    def withdraw_all(self, reason: str) -> None:
        """See Nat."""

    def accepted(self, agreement: bytes) -> None:
        """See Nat."""

    def has_pinholes(self) -> bool:
        """See Nat."""
        return False

    def has_standing(self) -> bool:
        """See Nat: the messages that could name one are read."""
        return True

    def inside_of(self, announced: Endpoint) -> Endpoint | None:
        """See Nat."""
        return None

    def is_ours(self, address: str) -> bool:
        """See Nat."""
        return False

    def reached(self) -> Endpoint:
        """See Nat."""
        raise Refused("nothing is edited in a recording")

    def outside_of(self, server: Endpoint) -> Endpoint:
        """See Nat."""
        raise Refused("nothing is edited in a recording")

    def is_home(self, host: str) -> bool:
        """See Nat."""
        return False

    def watch_server(self, server: Endpoint) -> None:
        """See Nat."""
        self._follow(server)

    def set_buffered(self, size: int) -> None:
        """See Nat."""

    def may_read(self, direction: Direction) -> bool:
        """See Nat."""
        return True

    def editable(self, direction: Direction, start: int) -> bool:
        """See Nat."""
        return True

    def count(self, counter: str) -> None:
        """See Nat."""

    def report(self, report: Report) -> None:
        """See Nat."""
        if report.before.address and report.before.port:
            self._announced(report.before, report.service)
