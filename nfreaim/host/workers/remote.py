"""RemotePinholes: the table of pinholes as a reader has it that is not its owner (core.nat.Pinholes).

Every rule and every number is the owner's; here is only asked, and remembered until the page says that it has
changed. What cannot be asked is refused: the proposal passes as it came. Decides nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Set
from typing import Any, cast

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.firewall.pinhole import Pinhole
from nfreaim.core.firewall.policy import PinholePolicy
from nfreaim.core.helper import Expectation, Refused
from nfreaim.errors import BackendError
from nfreaim.host.workers.rpc import RpcClient
from nfreaim.host.workers.shared_page import SharedPage, Slot

log = logging.getLogger("nfreaim")


class RemotePinholes:
    """Asks by *link*, but only what *page* does not answer. *policy* is what the owner has, too."""

    def __init__(self, policy: PinholePolicy, link: RpcClient, page: SharedPage) -> None:
        self.policy = policy
        self._link = link
        self._page = page
        self._changes = 0
        self._insides: frozenset[Endpoint] = frozenset()
        self._failing = False

    def __len__(self) -> int:
        return self._page[Slot.PINHOLES]

    def sessions(self) -> bool:
        return self._page[Slot.SESSIONS] > 0

    def owners(self) -> Set[FlowId]:
        found: Set[FlowId] = self._asked("owners", otherwise=frozenset()) if len(self) else frozenset()
        return found

    def tended(self) -> Set[FlowId]:
        return frozenset()  # the owner looks after them

    def leads_to(self, inside: Endpoint) -> bool:
        changes = self._page[Slot.CHANGES]
        if changes != self._changes:  # every new connection asks this, and few things change it
            found = self._asked("insides", otherwise=None)
            if found is not None:
                self._insides, self._changes = found, changes
        return inside in self._insides

    def inside_of(self, announced: Endpoint) -> Endpoint | None:
        found: Endpoint | None = self._asked("inside_of", announced, otherwise=None) if len(self) else None
        return found

    def prepare(self, host: str) -> None:
        self._link.tell("prepare", host)

    def open(self, owner: FlowId, expectation: Expectation, host: str, address: str, now: float) -> Pinhole:
        try:
            return cast(Pinhole, self._link.call("open", owner, expectation, host, address, now))
        except BackendError as error:
            # It may come to be opened all the same, and nobody would be told of it.
            self.close(owner, expectation.cookie, "nobody was told of it")
            raise Refused(str(error)) from error

    def agreed(self, owner: FlowId, cookie: bytes, now: float) -> None:
        if len(self):
            self._link.tell("agreed", owner, cookie, now)

    def close(self, owner: FlowId, cookie: bytes, reason: str) -> None:
        self._link.tell("close", owner, cookie, reason)

    def close_owner(self, owner: FlowId, reason: str) -> None:
        if len(self):
            self._link.tell("close_owner", owner, reason)

    def close_all(self, reason: str) -> None:
        """Nothing: the pinholes are the owner's, and outlive a reader."""

    def expire(self, now: float) -> None:
        self._link.flush()

    def _asked(self, name: str, *arguments: object, otherwise: object) -> Any:
        """The owner's answer, or *otherwise* if there is none."""
        try:
            answer = self._link.call(name, *arguments)
        except BackendError as error:
            log.log(logging.DEBUG if self._failing else logging.WARNING, "%s", error)
            self._failing = True
            return otherwise
        self._failing = False
        return answer


class RemoteServers:
    """Which servers the readers follow together (core.queue_sets.News), asked for when *page* says so."""

    def __init__(self, link: RpcClient, page: SharedPage) -> None:
        self._link = link
        self._page = page
        self._known = 0

    def __call__(self) -> Iterable[tuple[Endpoint, float]]:
        generation = self._page[Slot.FOLLOWED]
        if generation == self._known:
            return ()
        try:
            found = cast("list[tuple[Endpoint, float]]", self._link.call("followed"))
        except BackendError as error:
            log.warning("%s", error)
            return ()
        self._known = generation
        return found
