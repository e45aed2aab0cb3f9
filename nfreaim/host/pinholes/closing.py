"""ClosingFirewall: a firewall that ends incomplete connections through a pinhole when it is closed.

The rules already drop every packet of an incomplete connection whose pinhole is closed, or admits another
peer only. But its entry in connection tracking lives on for two minutes and names the inside endpoint, so it
would lead there once a new pinhole has the same outside endpoint. So such entries are deleted: soon, many at
once, and before their endpoint is used again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from nfreaim.core.address import Endpoint
from nfreaim.core.firewall.pinhole import Pinhole
from nfreaim.core.firewall.policy import Forward
from nfreaim.errors import BackendError
from nfreaim.host.netfilter.kernel_sets import EndpointSet
from nfreaim.host.netfilter.unfinished import UnfinishedConnections
from nfreaim.host.pinholes.kernel_firewall import KernelFirewall
from nfreaim.host.pinholes.shut_ports import ShutPorts
from nfreaim.marks import Marks

log = logging.getLogger("nfreaim")


class ClosingFirewall:
    """See core.firewall.pinhole.Firewall; what is not said here is as KernelFirewall says.

    firewall   has the pinholes in the kernel, and is closed with this one
    shut_set   has the ports of pinholes that were closed
    closed     called with the inside endpoint of each pinhole that was closed
    quiet_end  whether late peers of a protocol's service get no answer (see core.helper.Service)
    """

    def __init__(
        self,
        firewall: KernelFirewall,
        shut_set: EndpointSet,
        clock: Callable[[], float],
        marks: Marks,
        closed: Callable[[Endpoint], None],
        quiet_end: Callable[[str, str], bool],
    ) -> None:
        self._firewall = firewall
        self.foreign, self.foreign_marks = firewall.foreign, firewall.foreign_marks
        self.list, self.renew, self.left = firewall.list, firewall.renew, firewall.left
        self.prepare, self.forwarded, self.behind = firewall.prepare, firewall.forwarded, firewall.behind
        self.forwards, self.clear = firewall.forwards, firewall.clear
        self._closed = closed
        self._quiet_end = quiet_end
        self._forwards: Sequence[Forward] = ()
        self._shut = ShutPorts(self._answers, clock, shut_set)
        self._unfinished = UnfinishedConnections(marks)
        # The outside endpoints of pinholes that were closed or narrowed since: who may still connect there.
        self._left: dict[Endpoint, frozenset[str]] = {}
        self._all = True  # whatever an earlier daemon left
        self._troubled = False

    def close_sockets(self) -> None:
        """Close the sockets."""
        self._firewall.close_sockets()
        self._unfinished.close()
        self._shut.close()

    def open(self, pinhole: Pinhole, earlier: Pinhole | None) -> None:
        self._firewall.open(pinhole, earlier)
        self._shut.opened(pinhole.outside)
        if earlier is not None and pinhole.peers and set(pinhole.peers) != set(earlier.peers):
            self._left[pinhole.outside] = frozenset(pinhole.peers)
        elif not pinhole.peers:
            self._left.pop(pinhole.outside, None)

    def close(self, pinhole: Pinhole) -> None:
        self._firewall.close(pinhole)
        self._left[pinhole.outside] = frozenset()
        if self._quiet_end(pinhole.protocol, pinhole.service):
            self._shut.shut(pinhole.outside)
        try:
            self._closed(pinhole.inside)
        except Exception:
            log.exception("what waited for a closed pinhole could not be told")

    def set_forwards(self, forwards: Sequence[Forward]) -> None:
        self._firewall.set_forwards(forwards)
        self._forwards = forwards

    def busy(self, outside: Endpoint) -> bool:
        if outside in self._left:
            self._sweep()
        return outside in self._left or self._firewall.busy(outside)

    def upkeep(self) -> None:
        self._firewall.upkeep()
        self._shut.upkeep()
        if self._left or self._all:
            self._sweep()

    def _answers(self, outside: Endpoint) -> bool:
        """Whether new connections to *outside* are, or may be, somebody's, without a pinhole there."""
        if any(outside.port in one.ports for one in self._forwards):
            return True
        return self._firewall.busy(outside) or self.foreign.may_take(outside)

    def _sweep(self) -> None:
        """Delete the entries of incomplete connections that are not admitted any more."""
        try:
            open_now = {one.outside: one.peers for one in self.list()} if self._all else {}

            def concerned(outside: Endpoint, peer: str) -> bool:
                if outside in self._left:
                    return peer not in self._left[outside]
                return self._all and outside not in open_now

            if self._unfinished.end(concerned):
                self._left.clear()
                self._all = False
            self._troubled = False
        except BackendError as error:
            log.log(logging.DEBUG if self._troubled else logging.WARNING, "closed pinholes: %s", error)
            self._troubled = True
