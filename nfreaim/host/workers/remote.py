"""RemotePinholes and others: what the main process has alone, for a worker's engine.

The main process alone checks policy and caps. A worker keeps an answer until the shared page shows a change.
A request without an answer counts as refused, so the message passes unchanged.
"""

from __future__ import annotations

import logging
from collections.abc import Set
from contextlib import suppress
from ipaddress import IPv4Address
from typing import Any, cast

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.backend import Followed, QueueControl
from nfreaim.core.firewall.pinhole import Origin, Pinhole
from nfreaim.core.firewall.policy import PinholePolicy
from nfreaim.core.followed import RENEWED_AFTER_S
from nfreaim.core.helper import Expectation, Refused
from nfreaim.core.reach import Reach
from nfreaim.errors import BackendError
from nfreaim.host.workers.rpc import RpcClient
from nfreaim.host.workers.shared_page import SharedPage, Slot

log = logging.getLogger("nfreaim")


class RemotePinholes:
    """core.backend.Pinholes: reads *page*, and asks by *rpc* what that does not hold.

    policy  the policy of all processes
    """

    def __init__(self, policy: PinholePolicy, rpc: RpcClient, page: SharedPage) -> None:
        self.policy = policy
        self._rpc = rpc
        self._page = page
        self._reach = Reach(policy.announce, policy.upstream != "off")
        self._changes = 0
        self._insides: frozenset[Endpoint] = frozenset()
        self._failing = False
        self._known: set[FlowId] = set()  # whose end the main process has to be told

    def __len__(self) -> int:
        return self._page[Slot.PINHOLES]

    @property
    def reach(self) -> Reach:
        number = self._page[Slot.OUTSIDE_ADDRESS]
        self._reach.address = str(IPv4Address(number)) if number else None
        if self._reach.asks:
            self._reach.in_front = self._page.in_front()
        return self._reach

    def has_standing(self) -> bool:
        return self._page[Slot.STANDING] > 0

    def flows(self) -> Set[FlowId]:
        found: Set[FlowId] = self._asked("flows", otherwise=frozenset()) if len(self) else frozenset()
        return found

    def tended(self) -> Set[FlowId]:
        return frozenset()  # the main process looks after all flows

    def leads_to(self, inside: Endpoint) -> bool:
        changes = self._page[Slot.PINHOLE_CHANGES]
        if changes != self._changes:  # every new connection asks; the answer rarely changes
            found = self._asked("insides", otherwise=None)
            if found is not None:
                self._insides, self._changes = found, changes
        return inside in self._insides

    def inside_of(self, announced: Endpoint, reader: FlowId | None = None) -> Endpoint | None:
        if not len(self):
            return None
        found: Endpoint | None = self._asked("inside_of", announced, reader, otherwise=None)
        return found

    def prepare(self, host: str) -> None:
        self._rpc.notify("prepare", host)

    def open(self, flow: FlowId, expectation: Expectation, origin: Origin, now: float) -> Pinhole:
        try:
            return cast(Pinhole, self._rpc.request("open", flow, expectation, origin, now))
        except BackendError as error:
            # The request may still be carried out, and no message would announce the pinhole.
            self.close(flow, expectation.agreement, "nobody was told of it")
            raise Refused(str(error)) from error

    def reserve(self, flow: FlowId, address: str) -> None:
        self._known.add(flow)
        self._rpc.notify("reserve", flow, address)

    def offered(self, flow: FlowId, expectation: Expectation, now: float) -> None:
        self._known.add(flow)
        self._rpc.notify("offered", flow, expectation, now)

    def accepted(self, flow: FlowId, agreement: bytes, now: float) -> None:
        if len(self):
            self._rpc.notify("accepted", flow, agreement, now)

    def close(self, flow: FlowId, agreement: bytes, reason: str) -> None:
        self._rpc.notify("close", flow, agreement, reason)

    def signed_on(self, flow: FlowId, protocol: str, host: str) -> None:
        self._known.add(flow)
        self._rpc.notify("signed_on", flow, protocol, host)

    def close_flow(self, flow: FlowId, reason: str, now: float | None = None) -> None:
        if len(self) or flow in self._known:
            self._known.discard(flow)
            self._rpc.notify("close_flow", flow, reason, now)

    def close_all(self, reason: str) -> None:
        """Does nothing: the pinholes belong to the main process, and outlive a worker."""

    def expire(self, now: float) -> None:
        self._rpc.flush()

    def _asked(self, name: str, *arguments: object, otherwise: object) -> Any:
        """The answer to the request, or *otherwise* if there is none."""
        try:
            answer = self._rpc.request(name, *arguments)
        except BackendError as error:
            log.log(logging.DEBUG if self._failing else logging.WARNING, "%s", error)
            self._failing = True
            return otherwise
        self._failing = False
        return answer


class RemoteQueueControl:
    """core.backend.QueueControl of a worker, whose followed servers are the main process's."""

    def __init__(self, own: QueueControl) -> None:
        self.offload = own.offload
        self.undo_offload = own.undo_offload
        self.know = own.know
        self.forget = own.forget

    def queue_server(self, followed: Followed) -> None:
        raise BackendError("a worker follows no server of its own")

    unqueue_server = queue_server


class RemoteHomeServers:
    """core.backend.HomeServers: the main process knows rules, users and connections."""

    def __init__(self, rpc: RpcClient) -> None:
        self._rpc = rpc

    def met(self, flow: FlowId) -> None:
        self._rpc.notify("home_met", flow)

    def why_not(self, flow: FlowId, reached: Endpoint, host: str) -> str | None:
        return cast("str | None", self._rpc.request("home_why_not", flow, reached, host))

    def port_of(self, server: Endpoint, address: str) -> int | None:
        return cast("int | None", self._rpc.request("home_port_of", server, address))


class RemoteFollowed:
    """core.followed.Following: the table of the main process, requested when *page* shows a change."""

    def __init__(self, rpc: RpcClient, page: SharedPage) -> None:
        self._rpc = rpc
        self._page = page
        self._changes = 0
        self._entries: dict[tuple[Endpoint, str], str] = {}
        self._told: dict[tuple[Endpoint, str], float] = {}

    def __len__(self) -> int:
        return len(self._current())

    def protocol(self, server: Endpoint, client: str) -> str | None:
        return self._current().get((server, client))

    def ports(self, server: str, client: str) -> Set[int]:
        return {other.port for other, whose in self._current() if (other.address, whose) == (server, client)}

    def follow(self, followed: Followed, now: float) -> None:
        self._rpc.request("follow", followed)

    def used(self, server: Endpoint, client: str, now: float) -> None:
        pair = server, client
        if pair in self._current() and now >= self._told.get(pair, 0.0) + RENEWED_AFTER_S:
            self._told[pair] = now
            self._rpc.notify("used", server, client)

    def adopt(self, followed: Followed, seconds: float, now: float) -> None:
        with suppress(BackendError):
            self._rpc.request("adopt", followed, seconds)

    def expire(self, now: float) -> None:
        """Does nothing: the main process ends what is due."""

    def _current(self) -> dict[tuple[Endpoint, str], str]:
        changes = self._page[Slot.FOLLOWED_CHANGES]
        if changes != self._changes:
            try:
                found = cast("list[Followed]", self._rpc.request("followed"))
            except BackendError as error:
                log.warning("%s", error)
                return self._entries
            self._changes = changes
            self._entries = {(server, client): protocol for server, client, protocol in found}
            self._told = {pair: when for pair, when in self._told.items() if pair in self._entries}
        return self._entries
