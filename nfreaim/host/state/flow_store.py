"""LinuxFlowStore: keeps the flows that outlive the daemon, in the state directory and the set of skewed
flows.

The order of steps keeps a skewed flow exact across a crash: first its record is written, then the set entry
that makes its packets wait for a daemon, then the verdict is given. With the entry after the verdict, 3 of 3
streams broke.
"""

from __future__ import annotations

import logging

from nfreaim.core.address import FlowId, flow_id
from nfreaim.core.backend import Record
from nfreaim.core.records import is_skewed
from nfreaim.errors import BackendError
from nfreaim.host.netfilter.conntrack import LinuxConntrack
from nfreaim.host.netfilter.kernel_sets import FlowEntry, FlowSet
from nfreaim.host.state.state_files import Positions, StateDirectory
from nfreaim.old_spellings import migrate_record

log = logging.getLogger("nfreaim")


class LinuxFlowStore:
    """core.backend.FlowStore.

    skewed     the set
    alone      every flow in the set is this process's
    protected  the skewed flows, by key; the value says whether both ends had finished when connection
               tracking was asked last
    """

    def __init__(self, directory: StateDirectory, skewed: FlowSet, alone: bool = True) -> None:
        self.protected: dict[bytes, bool] = {}
        self._directory = directory
        self._alone = alone
        self._positions = Positions(directory)
        self._skewed = skewed

    def close(self) -> None:
        """Close socket and file, and remove the directory if no flow waits in it."""
        self._skewed.close()
        self._positions.close()
        self._directory.remove_if_empty()

    # --- core.backend.FlowStore ---

    def protect(self, key: bytes, record: Record) -> None:
        flow = flow_id(key)
        if key in self.protected:
            # The set entry comes first: if it fails, nothing was changed and no record holds the refused
            # edit.
            self._skewed.add(flow)
            self._directory.save(key, record)
            return
        former = self._directory.load(key)
        self._directory.save(key, record)
        try:
            self._skewed.add(flow)
        except BackendError:
            # The edit is not made, so the record is again that of the saved session, if there was one.
            if former is None:
                self._directory.delete(key)
            else:
                self._directory.save(key, former)
            raise
        self.protected[key] = False

    def unprotect(self, key: bytes) -> None:
        self.protected.pop(key, None)
        flow = flow_id(key)
        try:
            self._skewed.delete(flow)
        except BackendError as error:
            log.warning("%s is over, but its packets would still wait for a daemon: %s", flow, error)
        self.forget_record(key)

    def save_session(self, key: bytes, record: Record) -> None:
        self._directory.save(key, record)

    def save_position(self, key: bytes, position: bytes) -> None:
        self._positions.save(key, position)

    def forget_session(self, key: bytes, skewed: bool) -> None:
        self._positions.delete(key)
        if not skewed:
            self.forget_record(key)

    def is_skewed(self, raw: bytes) -> bool:
        """Whether the set has the flow of a packet, whoever sent that.

        If the kernel does not answer it counts as skewed: one that is must not pass untranslated.
        """
        start = (raw[0] & 15) * 4 if raw else 0
        if not 20 <= start <= len(raw) - 20:
            return False
        there = flow_id(raw[12:20] + raw[start : start + 4])
        try:
            return self._skewed.has(there) or self._skewed.has(FlowId(there.server, there.client))
        except BackendError as error:
            log.warning("%s: whether it was edited is not known, so it will be reset: %s", there, error)
            return True

    # --- start and stop ---

    def prepare(self) -> None:
        """Make the state directory. Raises BackendError."""
        self._directory.prepare()

    def load(self, conntrack: LinuxConntrack) -> dict[bytes, Record]:
        """The records, by key, of flows that go on. The records of others are deleted. Raises BackendError.

        A flow goes on if connection tracking holds it and, if it is skewed, the set does. A record of a
        skewed flow without a set entry is stale: the daemon died before the edited packet left, or the flow
        has run untranslated since. A set entry without a record stays, and the engine resets both ends at the
        flow's next packet.
        """
        waiting = set(self._skewed.entries())
        kept: dict[bytes, Record] = {}
        found = self._directory.load_all()
        for key, record in found.items():
            if self._goes_on(key, record, waiting, conntrack):
                kept[key] = migrate_record(record)
        for key, position in self._positions.open(kept).items():
            kept[key]["position"] = position
        edited = len(self.protected)
        if self._alone and (lost := len(waiting) - edited):
            log.info("edited connections found: %d go on, %d are over or will be reset", edited, lost)
        if found:
            log.info("connections of an earlier daemon: %d found, %d go on", len(found), len(kept))
        return kept

    def _goes_on(
        self, key: bytes, record: Record, waiting: set[FlowEntry], conntrack: LinuxConntrack
    ) -> bool:
        """Whether the flow of *record* goes on. If not, its record is deleted. Raises BackendError."""
        flow = flow_id(key)
        waits = FlowEntry(flow.client, flow.server.address) in waiting
        if record.get("key") != key.hex() or is_skewed(record) is not waits:
            self._directory.delete(key)
            return False
        if not waits:
            if conntrack.carries(flow, record.get("server_inside") is True):
                return True
            self._directory.delete(key)
            return False
        # Protected first, so that the question below notes whether both ends had finished: after the entry
        # expires, nothing else tells the end of the flow.
        self.protected[key] = False
        if conntrack.alive(flow):
            self._skewed.add(flow)
            return True
        self.unprotect(key)
        return False

    def forget_record(self, key: bytes) -> None:
        """Delete the record of *key*. If its set entry stays, the flow's next packet resets both ends."""
        try:
            self._directory.delete(key)
        except BackendError as error:
            log.warning("%s: %s", flow_id(key), error)

    def forget_records(self) -> None:
        """Delete every record and position, because none of our flows goes on. Raises BackendError."""
        self._positions.remove()
        for key in self._directory.load_all():
            self._directory.delete(key)

    def forget_all(self) -> None:
        """The same, and empty the set for all processes: the rules are about to be removed.

        Raises BackendError.
        """
        self._skewed.flush()
        self.forget_records()

    # --- watch over the rules ---

    def put_back(self) -> list[FlowId]:
        """Add the entries of skewed flows that another program removed, and return the flows.

        Offloaded flows need no repair: without their entry they are queued and offloaded again. Raises
        BackendError.
        """
        waiting = set(self._skewed.entries())
        flows = [flow_id(key) for key in self.protected]
        missing = [flow for flow in flows if FlowEntry(flow.client, flow.server.address) not in waiting]
        for flow in missing:
            self._skewed.add(flow)
        return missing
