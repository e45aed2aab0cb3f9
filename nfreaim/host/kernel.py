"""LinuxKernel: what the engine asks of this machine (core.nat.Kernel), put together from its parts.

Decides nothing. What keeps a skewed flow alive across a crash is the order in here: state on disk, then the
entry that makes its packets wait for us, then the verdict. The entry behind the verdict broke 3 of 3 streams.
"""

from __future__ import annotations

import logging
import socket
from contextlib import ExitStack

from nfreaim.core.flow import Endpoint, Flow, Owner, key_of, owner_of, reverse
from nfreaim.core.nat import Record
from nfreaim.core.packet import Segment
from nfreaim.errors import BackendError
from nfreaim.host.conntrack import Conntrack
from nfreaim.host.ipset import (
    LAN_SET,
    OFFLOAD_SET,
    SERVER_SET,
    SKEW_SET,
    EndpointSet,
    FlowEntry,
    FlowSet,
    NetworkSet,
)
from nfreaim.host.resets import Resets
from nfreaim.host.state import StateDirectory

log = logging.getLogger("nfreaim")


class LinuxKernel:
    """Connection tracking, the sets, the state directory and the raw socket; *stack* closes them."""

    def __init__(self, state: StateDirectory, stack: ExitStack) -> None:
        self._state = state
        stack.callback(state.clear_away)
        self._conntrack = Conntrack()
        stack.callback(self._conntrack.close)
        self._offloaded, self._skewed = FlowSet(OFFLOAD_SET), FlowSet(SKEW_SET)
        self._servers, self._lan = EndpointSet(SERVER_SET), NetworkSet(LAN_SET)
        for opened in (self._offloaded, self._skewed, self._servers, self._lan):
            stack.callback(opened.close)
        self._resets = Resets(lambda address: self._inside(address) or is_own(address))
        stack.callback(self._resets.close)
        self._protected: set[bytes] = set()

    # --- core.nat.Kernel ---

    def outside_address(self, owner: Owner) -> str:
        return self._conntrack.outside_address(owner)

    def reached(self, owner: Owner) -> Endpoint:
        return self._conntrack.reached(owner)

    def lan(self, address: str) -> bool:
        return self._inside(address) and not is_own(address)

    def alive(self, owner: Owner) -> bool:
        # One end of a skewed flow may be done while the other goes on, and needs translation to the very end.
        if key_of(owner) in self._protected:
            return self._conntrack.holds(owner)
        return self._conntrack.alive(owner)

    def offload(self, owner: Owner) -> None:
        self._offloaded.add(owner)

    def reclaim(self, owner: Owner) -> None:
        self._offloaded.delete(owner)

    def divert(self, server: Endpoint) -> None:
        self._servers.add(server)

    def protect(self, key: bytes, record: Record) -> None:
        owner = owner_of(key)
        if key in self._protected:
            # What can fail without a trace comes first: the record must not hold an edit that was refused.
            self._skewed.add(owner)
            self._state.save(key, record)
            return
        self._state.save(key, record)
        try:
            self._skewed.add(owner)
        except BackendError:
            self._state.delete(key)
            raise
        self._protected.add(key)

    def unprotect(self, key: bytes) -> None:
        self._protected.discard(key)
        owner = owner_of(key)
        try:
            self._skewed.delete(owner)
        except BackendError as error:
            log.warning("%s is over, but its packets would still wait for a daemon: %s", owner, error)
        self.abandon(key)

    def reset(self, segment: Segment) -> None:
        log.info("reset: %s is not known any more", owner_of(segment.key))
        self._resets.answer(segment)

    # --- start and stop ---

    def begin(self) -> dict[bytes, Record]:
        """What is to be restored, by key: records of flows that conntrack and the set still hold. Others go.

        A record without an entry is of an edit that never left, or of a flow that has passed untranslated
        since. An entry without a record stays: its packets make the engine reset both ends.
        Raises BackendError.
        """
        self.take_back()
        self._state.prepare()
        waiting = set(self._skewed.entries())
        kept: dict[bytes, Record] = {}
        for key, record in self._state.load_all().items():
            owner = owner_of(key)
            if FlowEntry(owner.client, owner.server.address) not in waiting:
                self._state.delete(key)
            elif not self._conntrack.holds(owner):
                self.unprotect(key)
            else:
                self._skewed.add(owner)
                self._protected.add(key)
                kept[key] = record
        lost = len(waiting) - len(kept)
        if kept or lost:
            log.info("edited connections found: %d go on, %d are over or will be reset", len(kept), lost)
        return kept

    def take_back(self) -> None:
        """Queue every flow again: an entry without a daemon would let later connections pass unread.

        Raises BackendError.
        """
        self._offloaded.flush()

    def abandon(self, key: bytes) -> None:
        """Forget the record of *key*: while its entry stays, its packets make the engine reset both ends."""
        try:
            self._state.delete(key)
        except BackendError as error:
            log.warning("%s: %s", owner_of(key), error)

    def cut(self, flow: Flow) -> None:
        """Reset both ends of a skewed flow, each in the numbers that it knows; the flow is over."""
        client, server = flow.streams
        ends = [
            (stream.base + stream.map.fwd(stream.next), other.expected)
            for stream, other in ((client, server), (server, client))
        ]
        self._resets.send(flow.key, *ends[0])
        self._resets.send(reverse(flow.key), *ends[1])
        self.unprotect(flow.key)

    def forget_all(self) -> None:
        """Nothing waits for us any more: the rules are about to go. Raises BackendError."""
        self._skewed.flush()

    def _inside(self, address: str) -> bool:
        return self._lan.covers(address)


def is_own(address: str) -> bool:
    """Whether IPv4 *address* is one of this machine's own."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True
