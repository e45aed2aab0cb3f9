"""LinuxQueueControl: changes which flows the rules queue, by the sets of offloads and followed servers."""

from __future__ import annotations

from collections.abc import Callable

from nfreaim.core.address import FlowId
from nfreaim.core.backend import Followed
from nfreaim.host.netfilter.ipset import FlowSet, FollowedSet
from nfreaim.host.netfilter.names import OFFLOAD_SET, SERVER_SET, SERVER_TIMEOUT_S


class LinuxQueueControl:
    """core.backend.QueueControl. It remembers followed servers for as long as the set keeps their entries."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._offloaded = FlowSet(OFFLOAD_SET)
        self._servers = FollowedSet(SERVER_SET)
        self._named: dict[Followed, float] = {}  # when a redirect named each last; the oldest first

    def close(self) -> None:
        """Close the sockets."""
        self._offloaded.close()
        self._servers.close()

    # --- core.backend.QueueControl ---

    def offload(self, flow: FlowId) -> None:
        self._offloaded.add(flow)

    def undo_offload(self, flow: FlowId) -> None:
        self._offloaded.delete(flow)

    def queue_server(self, followed: Followed) -> None:
        self._servers.add(followed)
        self._remember(followed, self._clock())

    # --- start and stop ---

    def load(self) -> list[Followed]:
        """Take over the followed servers that an earlier daemon left in the set. Raises BackendError."""
        now = self._clock()
        for followed, age_s in sorted(self._servers.entries(), key=lambda entry: -entry[1]):
            self._remember(followed, now - age_s)
        return list(self._named)

    def queue_everything(self) -> None:
        """Undo every ``offload``: without a daemon such an entry would let later connections pass unread.

        Raises BackendError.
        """
        self._offloaded.flush()

    # --- workers, and the watch over the rules ---

    def followed(self) -> list[tuple[Followed, float]]:
        """The followed servers, and when a redirect named each last; the oldest first."""
        now = self._clock()
        while self._named and now - next(iter(self._named.values())) > SERVER_TIMEOUT_S:
            del self._named[next(iter(self._named))]
        return list(self._named.items())

    def put_back(self) -> list[Followed]:
        """Add the entries that another program removed, and return them. Raises BackendError."""
        if not self.followed():
            return []
        present = {followed for followed, _ in self._servers.entries()}
        missing = [followed for followed in self._named if followed not in present]
        for followed in missing:
            self._servers.add(followed)
        return missing

    def _remember(self, followed: Followed, named: float) -> None:
        self._named.pop(followed, None)
        self._named[followed] = named
