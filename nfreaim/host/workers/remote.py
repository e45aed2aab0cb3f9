"""RemotePinholes and others: the pinholes and followed servers of the main process, for a worker's engine.

The main process alone checks policy and caps. A worker keeps an answer until the shared page shows a change.
A request without an answer counts as refused, so the message passes unchanged.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Set
from typing import Any, cast

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.backend import Followed, QueueControl
from nfreaim.core.firewall.pinhole import Origin, Pinhole
from nfreaim.core.firewall.policy import PinholePolicy
from nfreaim.core.helper import Expectation, Refused
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
        self._changes = 0
        self._insides: frozenset[Endpoint] = frozenset()
        self._failing = False

    def __len__(self) -> int:
        return self._page[Slot.PINHOLES]

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

    def inside_of(self, announced: Endpoint) -> Endpoint | None:
        found: Endpoint | None = self._asked("inside_of", announced, otherwise=None) if len(self) else None
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

    def accepted(self, flow: FlowId, agreement: bytes, now: float) -> None:
        if len(self):
            self._rpc.notify("accepted", flow, agreement, now)

    def close(self, flow: FlowId, agreement: bytes, reason: str) -> None:
        self._rpc.notify("close", flow, agreement, reason)

    def close_flow(self, flow: FlowId, reason: str, now: float | None = None) -> None:
        if len(self):
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
    """core.backend.QueueControl. Followed servers go to the main process, because all workers read them."""

    def __init__(self, own: QueueControl, rpc: RpcClient) -> None:
        self.offload = own.offload
        self.undo_offload = own.undo_offload
        self._rpc = rpc

    def queue_server(self, followed: Followed) -> None:
        self._rpc.request("queue_server", followed)


class RemoteFollowed:
    """core.backend.News: the followed servers of all workers, requested when *page* shows a change."""

    def __init__(self, rpc: RpcClient, page: SharedPage) -> None:
        self._rpc = rpc
        self._page = page
        self._known = 0

    def __call__(self) -> Iterable[tuple[Followed, float]]:
        changes = self._page[Slot.FOLLOWED_CHANGES]
        if changes == self._known:
            return ()
        try:
            found = cast("list[tuple[Followed, float]]", self._rpc.request("followed"))
        except BackendError as error:
            log.warning("%s", error)
            return ()
        self._known = changes
        return found
