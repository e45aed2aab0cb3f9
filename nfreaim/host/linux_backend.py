"""LinuxBackend: the parts of core.backend.Backend on this machine, made and closed together."""

from __future__ import annotations

from contextlib import ExitStack

from nfreaim.core.backend import Backend, QueueControl
from nfreaim.host.loop import clock
from nfreaim.host.netfilter.conntrack import LinuxConntrack, is_own
from nfreaim.host.netfilter.ipset import NetworkSet
from nfreaim.host.netfilter.names import LAN_SET
from nfreaim.host.netfilter.queue_control import LinuxQueueControl
from nfreaim.host.netfilter.tcp_reset import ResetSender
from nfreaim.host.state.flow_store import LinuxFlowStore
from nfreaim.host.state.state_files import StateDirectory


class LinuxBackend:
    """The parts, each by its name, because the host calls more methods of them than an engine does.

    inside  the set of inside networks, which the rules fill
    alone   every flow in the sets is this process's
    stack   closes the parts
    """

    def __init__(self, directory: StateDirectory, stack: ExitStack, alone: bool = True) -> None:
        self.inside = NetworkSet(LAN_SET)
        stack.callback(self.inside.close)
        self.store = LinuxFlowStore(directory, alone)
        stack.callback(self.store.close)
        self.conntrack = LinuxConntrack(self.inside, self.store.protected)
        stack.callback(self.conntrack.close)
        self.queue = LinuxQueueControl(clock)
        stack.callback(self.queue.close)
        self.resets = ResetSender(lambda address: self.inside.covers(address) or is_own(address))
        stack.callback(self.resets.close)

    def for_engine(self, queue: QueueControl | None = None) -> Backend:
        """The parts for an engine, with *queue* in place of our own if another process controls the queue."""
        return Backend(self.conntrack, queue or self.queue, self.store, self.resets.answer)

    def prepare(self) -> None:
        """Queue every flow again and make the state directory. Raises BackendError."""
        self.queue.queue_everything()
        self.store.prepare()
