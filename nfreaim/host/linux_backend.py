"""LinuxBackend: what the engine asks of this machine (core.nat.Kernel), put together from its parts.

Decides nothing. What keeps a skewed flow alive across a crash is the order in here: state on disk, then the
entry that makes its packets wait for us, then the verdict. The entry behind the verdict broke 3 of 3 streams.
"""

from __future__ import annotations

import logging
import socket
from contextlib import ExitStack

from nfreaim.core.address import Endpoint, FlowId, flow_id, key_of, reverse
from nfreaim.core.backend import Record
from nfreaim.core.flow import Flow
from nfreaim.core.records import is_skewed
from nfreaim.core.tcp.segment import Segment
from nfreaim.errors import BackendError
from nfreaim.host.loop import clock
from nfreaim.host.netfilter.conntrack import ENDING, ESTABLISHED, Conntrack, unknown
from nfreaim.host.netfilter.ipset import (
    LAN_SET,
    OFFLOAD_SET,
    SERVER_SET,
    SERVER_SET_TIMEOUT,
    SKEW_SET,
    EndpointSet,
    FlowEntry,
    FlowSet,
    NetworkSet,
)
from nfreaim.host.netfilter.tcp_reset import ResetSender
from nfreaim.host.state.positions import POSITIONS, Positions
from nfreaim.host.state.state_directory import StateDirectory

log = logging.getLogger("nfreaim")


class LinuxBackend:
    """Connection tracking, the sets, the state directory and the raw socket; *stack* closes them.

    alone  all flows in the sets are this process's, and no other's
    """

    def __init__(self, state: StateDirectory, stack: ExitStack, alone: bool = True) -> None:
        self._state = state
        self._alone = alone
        stack.callback(state.clear_away)
        self._places = Positions(state.path / POSITIONS)
        stack.callback(self._places.close)
        self._conntrack = Conntrack()
        stack.callback(self._conntrack.close)
        self._offloaded, self._skewed = FlowSet(OFFLOAD_SET), FlowSet(SKEW_SET)
        self._servers, self._lan = EndpointSet(SERVER_SET), NetworkSet(LAN_SET)
        for opened in (self._offloaded, self._skewed, self._servers, self._lan):
            stack.callback(opened.close)
        self._resets = ResetSender(lambda address: self._inside(address) or is_own(address))
        stack.callback(self._resets.close)
        self._protected: set[bytes] = set()
        # Of these: both ends were done, when connection tracking was asked last.
        self._ending: set[bytes] = set()
        self._diverted: dict[Endpoint, float] = {}  # when each was added last, oldest first

    # --- core.nat.Kernel ---

    def outside_address(self, owner: FlowId) -> str:
        address = self._conntrack.outside_address(owner)
        if address is not None:
            return address
        if not self.lan(owner.client.address):
            raise unknown(owner)
        # Flushed: the entry comes back with the packet at hand, and it leaves as the router's own would.
        return source_towards(owner.server)

    def reached(self, owner: FlowId) -> Endpoint:
        return self._conntrack.reached(owner)

    def lan(self, address: str) -> bool:
        return self._inside(address) and not is_own(address)

    def alive(self, owner: FlowId) -> bool:
        # One end of a skewed flow may be done while the other goes on, and needs translation to the very end.
        state = self._conntrack.state(owner)
        key = key_of(owner)
        if key not in self._protected:
            return state == ESTABLISHED
        if state in ENDING:
            self._ending.add(key)
        elif state is not None:
            self._ending.discard(key)
        return state is not None

    def ended(self, owner: FlowId) -> bool:
        return key_of(owner) in self._ending or self._conntrack.holds(owner)

    def offload(self, owner: FlowId) -> None:
        self._offloaded.add(owner)

    def reclaim(self, owner: FlowId) -> None:
        self._offloaded.delete(owner)

    def divert(self, server: Endpoint) -> None:
        self._servers.add(server)
        self._diverted.pop(server, None)
        self._diverted[server] = clock()

    def protect(self, key: bytes, record: Record) -> None:
        owner = flow_id(key)
        if key in self._protected:
            # What can fail without a trace comes first: the record must not hold an edit that was refused.
            self._skewed.add(owner)
            self._state.save(key, record)
            return
        former = self._state.load(key)
        self._state.save(key, record)
        try:
            self._skewed.add(owner)
        except BackendError:
            # The edit is not made, so the flow is what it was: a session that may have been kept, or nothing.
            if former is None:
                self._state.delete(key)
            else:
                self._state.save(key, former)
            raise
        self._protected.add(key)

    def unprotect(self, key: bytes) -> None:
        self._protected.discard(key)
        self._ending.discard(key)
        owner = flow_id(key)
        try:
            self._skewed.delete(owner)
        except BackendError as error:
            log.warning("%s is over, but its packets would still wait for a daemon: %s", owner, error)
        self.abandon(key)

    def keep(self, key: bytes, record: Record) -> None:
        self._state.save(key, record)

    def note(self, key: bytes, place: bytes) -> None:
        self._places.note(key, place)

    def drop(self, key: bytes, skewed: bool) -> None:
        self._places.drop(key)
        if not skewed:
            self.abandon(key)

    def reset(self, segment: Segment) -> None:
        log.info("reset: %s is not known any more", flow_id(segment.key))
        self._resets.answer(segment)

    def reset_peer(self, key: bytes, seq: int, ack: int) -> None:
        """Reset the outside end of a connection; *key* is that of the packets it gets. Never raises."""
        self._resets.send(key, seq, ack)

    # --- start and stop ---

    def begin(self) -> dict[bytes, Record]:
        """What is to be restored, by key: records of flows that conntrack and the set still hold. Others go.

        A skewed flow's record without an entry is of an edit that never left, or of a flow that has passed
        untranslated since. An entry without a record stays: its packets make the engine reset both ends.
        Raises BackendError.
        """
        self.prepare()
        waiting = set(self._skewed.entries())
        kept: dict[bytes, Record] = {}
        found = self._state.load_all()
        for key, record in found.items():
            owner = flow_id(key)
            waits = FlowEntry(owner.client, owner.server.address) in waiting
            if record.get("key") != key.hex() or is_skewed(record) is not waits:
                self._state.delete(key)
            elif not waits:
                if self._conntrack.carries(owner, record.get("server_inside") is True):
                    kept[key] = record
                else:
                    self._state.delete(key)
            else:
                # Protected before it is asked for: an end must be known as one when its entry has expired.
                self._protected.add(key)
                if self.alive(owner):
                    self._skewed.add(owner)
                    kept[key] = record
                else:
                    self.unprotect(key)
        for key, place in self._places.open(kept).items():
            kept[key]["place"] = place
        edited = len(self._protected)
        if self._alone and (lost := len(waiting) - edited):
            log.info("edited connections found: %d go on, %d are over or will be reset", edited, lost)
        if found:
            log.info("connections of an earlier daemon: %d found, %d go on", len(found), len(kept))
        return kept

    def prepare(self) -> None:
        """Queue every flow again, and make the state directory. Raises BackendError."""
        self.take_back()
        self._state.prepare()

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
            log.warning("%s: %s", flow_id(key), error)

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

    def networks(self) -> NetworkSet:
        """The set of inside networks."""
        return self._lan

    def put_back_skewed(self) -> list[FlowId]:
        """Have skewed flows wait for a daemon again whose entries somebody removed. Raises BackendError.

        Offloaded flows need nothing: without their entry they come by and are offloaded again.
        """
        if not self._protected:
            return []
        waiting = set(self._skewed.entries())
        owners = [flow_id(key) for key in self._protected]
        missing = [owner for owner in owners if FlowEntry(owner.client, owner.server.address) not in waiting]
        for owner in missing:
            self._skewed.add(owner)
        return missing

    def diverted(self) -> list[tuple[Endpoint, float]]:
        """Servers whose flows are queued, too, and when each was named last, the longest ago first."""
        now = clock()
        while self._diverted and now - next(iter(self._diverted.values())) > SERVER_SET_TIMEOUT:
            del self._diverted[next(iter(self._diverted))]
        return list(self._diverted.items())

    def put_back_diverted(self) -> list[Endpoint]:
        """The same for servers whose flows are queued, too. Raises BackendError."""
        if not self.diverted():
            return []
        present = set(self._servers.entries())
        missing = [server for server in self._diverted if server not in present]
        for server in missing:
            self._servers.add(server)
        return missing

    def forget_all(self) -> None:
        """Nothing waits for us any more: the rules are about to go. Raises BackendError."""
        self._skewed.flush()
        self.forget()

    def forget(self) -> None:
        """None of our flows goes on. Raises BackendError."""
        self._places.remove()
        for key in self._state.load_all():
            self._state.delete(key)

    def _inside(self, address: str) -> bool:
        return self._lan.covers(address)


def source_towards(server: Endpoint) -> str:
    """The address that this machine itself would reach *server* from. Raises BackendError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(server)
        except OSError as error:
            raise BackendError(f"no route to {server}: {error}") from error
        return str(probe.getsockname()[0])


def is_own(address: str) -> bool:
    """Whether IPv4 *address* is one of this machine's own."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True
