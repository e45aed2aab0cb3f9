"""LinuxQueueControl: changes which flows the rules queue, by the sets of offloads and followed servers."""

from __future__ import annotations

from collections.abc import Callable

from nfreaim.core.address import FlowId
from nfreaim.core.backend import Followed
from nfreaim.host.netfilter.firewall_kind import KernelSets
from nfreaim.host.netfilter.names import KNOWN_SET, OFFLOAD_SET, SERVER_SET, SERVER_TIMEOUT_S


class LinuxQueueControl:
    """core.backend.QueueControl. It remembers the entries of followed servers, to put them back."""

    def __init__(self, clock: Callable[[], float], sets: KernelSets) -> None:
        self._clock = clock
        self._offloaded = sets.flows(OFFLOAD_SET)
        self._known = sets.flows(KNOWN_SET)
        self._servers = sets.followed(SERVER_SET)
        self._entries: dict[Followed, float] = {}  # when each ends

    def close(self) -> None:
        """Close the sockets."""
        self._offloaded.close()
        self._known.close()
        self._servers.close()

    # --- core.backend.QueueControl ---

    def offload(self, flow: FlowId) -> None:
        self._offloaded.add(flow)

    def undo_offload(self, flow: FlowId) -> None:
        self._offloaded.delete(flow)

    def know(self, flow: FlowId) -> None:
        self._known.add(flow)

    def forget(self, flow: FlowId) -> None:
        self._known.delete(flow)

    def queue_server(self, followed: Followed) -> None:
        self._servers.add(followed, SERVER_TIMEOUT_S)
        self._entries[followed] = self._clock() + SERVER_TIMEOUT_S

    def unqueue_server(self, followed: Followed) -> None:
        self._entries.pop(followed, None)
        self._servers.delete(followed)

    # --- start and stop ---

    def load(self) -> list[tuple[Followed, float]]:
        """The followed servers that an earlier daemon left in the set, and the seconds that each is left.

        None is left longer than SERVER_TIMEOUT_S, as an earlier version's would be. Raises BackendError.
        """
        found: list[tuple[Followed, float]] = []
        for followed, seconds in self._servers.entries():
            if seconds > SERVER_TIMEOUT_S:
                self._servers.add(followed, SERVER_TIMEOUT_S)
            found.append((followed, min(seconds, SERVER_TIMEOUT_S)))
            self._entries[followed] = self._clock() + found[-1][1]
        return found

    def queue_everything(self, stopping: bool = False) -> None:
        """Undo every ``offload``: without a daemon such an entry would let later connections pass unread.

        stopping  undo every ``know``, too: no process of this daemon goes on

        Raises BackendError.
        """
        self._offloaded.flush()
        if stopping:
            self._known.flush()

    # --- the watch over the rules ---

    def put_back(self) -> list[Followed]:
        """Add the entries that another program removed, and return them. Raises BackendError."""
        now = self._clock()
        self._entries = {followed: until for followed, until in self._entries.items() if until - now >= 1}
        if not self._entries:
            return []
        present = {followed for followed, _ in self._servers.entries()}
        missing = [followed for followed in self._entries if followed not in present]
        for followed in missing:
            self._servers.add(followed, int(self._entries[followed] - now))
        return missing
