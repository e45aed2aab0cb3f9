"""LinuxBackend: the parts of core.backend.Backend on this machine, made and closed together."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from contextlib import ExitStack

from nfreaim.core.backend import Backend, HomeServers, QueueControl
from nfreaim.host.home.local_clients import LinuxLocalClients
from nfreaim.host.loop import clock
from nfreaim.host.netfilter.conntrack import LinuxConntrack
from nfreaim.host.netfilter.firewall_kind import KernelSets
from nfreaim.host.netfilter.lans import Lans
from nfreaim.host.netfilter.names import LAN_SET
from nfreaim.host.netfilter.neighbours import Neighbours
from nfreaim.host.netfilter.queue_control import LinuxQueueControl
from nfreaim.host.netfilter.tcp_reset import ResetSender
from nfreaim.host.state.flow_store import LinuxFlowStore
from nfreaim.host.state.state_files import StateDirectory
from nfreaim.marks import DEFAULT, Marks


class LinuxBackend:
    """The parts, each by its name, because the host calls more methods of them than an engine does.

    inside  the set of inside networks, which the rules fill
    alone   every flow in the sets is this process's
    stack   closes the parts
    check   on which interfaces the senders of packets are compared (see Neighbours)
    isolated  the interfaces whose hosts may not meet those of others (see Lans)
    marks   of our rules
    sets    makes the sets
    tell_unwatched  tells other processes the time until which rules of ours were missing
    """

    def __init__(
        self,
        directory: StateDirectory,
        stack: ExitStack,
        alone: bool = True,
        check: bool | Collection[str] = True,
        isolated: bool | Collection[str] = False,
        marks: Marks = DEFAULT,
    ) -> None:
        self.alone = alone
        self._unwatched_until = 0.0
        self.tell_unwatched: Callable[[float], None] = lambda until: None
        self.sets = KernelSets()
        self.inside = self.sets.networks(LAN_SET)
        stack.callback(self.inside.close)
        self.store = LinuxFlowStore(directory, self.sets.skewed(marks.verified, alone), alone)
        stack.callback(self.store.close)
        lans = Lans(isolated)
        stack.callback(lans.close)
        self.conntrack = LinuxConntrack(self.inside, self.store.protected, lans, marks)
        stack.callback(self.conntrack.close)
        self.queue = LinuxQueueControl(clock, self.sets)
        stack.callback(self.queue.close)
        self.resets = ResetSender()
        stack.callback(self.resets.close)
        self.neighbours = Neighbours(clock, check)
        stack.callback(self.neighbours.close)

    def for_engine(
        self,
        home: HomeServers,
        queue: QueueControl | None = None,
        users: Collection[int] = (),
        unwatched: Callable[[], float] | None = None,
    ) -> Backend:
        """The parts for an engine, with *queue* in place of our own if another process controls the queue.

        home       exists once per daemon
        users      those whose clients on this router are served
        unwatched  in place of our own if another process looks after the rules
        """
        queue = queue or self.queue
        resets, senders, send = self.resets.answer, self.neighbours, self.resets.send_packet
        parts = (self.conntrack, queue, self.store, resets, home, senders, send)
        unwatched = unwatched or (lambda: self._unwatched_until)
        return Backend(*parts, time.thread_time, LinuxLocalClients(users), unwatched)

    def was_unwatched(self, until: float) -> None:
        """Rules of ours were missing until the time *until*, on the daemon's clock."""
        self._unwatched_until = until
        self.tell_unwatched(until)

    def prepare(self) -> None:
        """Queue every flow again and make the state directory. Raises BackendError."""
        self.queue.queue_everything()
        self.store.prepare()
