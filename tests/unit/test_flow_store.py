"""The flow store: what is on disk after the kernel refused a set entry, and which records are taken over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyroute2")

from nfreaim.core.address import FlowId, flow_id
from nfreaim.errors import BackendError
from nfreaim.host.netfilter.ipset import FlowSet
from nfreaim.host.netfilter.kernel_sets import FlowEntry
from nfreaim.host.state.flow_store import LinuxFlowStore
from nfreaim.host.state.state_files import StateDirectory

KEY = bytes([203, 0, 113, 20, 10, 0, 0, 9, 0x9C, 0x40, 0x14, 0x46])
SESSION: dict[str, Any] = {"key": KEY.hex(), "server_inside": True, "followed": False}
EDITED: dict[str, Any] = {"key": KEY.hex(), "server_inside": True, "streams": [{}, {}]}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LinuxFlowStore]:
    made = LinuxFlowStore(StateDirectory(tmp_path / "flows"), FlowSet("nfreaim_nobodys"))
    made.prepare()
    yield made
    made.close()


def test_session_that_was_kept_stays_kept_when_its_edit_cannot_be_protected(store: LinuxFlowStore) -> None:
    store.save_session(KEY, SESSION)
    with pytest.raises(BackendError, match="nfreaim_nobodys"):
        store.protect(KEY, EDITED)
    assert store._directory.load_all() == {KEY: SESSION}


def test_edit_that_cannot_be_protected_leaves_no_record_of_a_flow_that_had_none(
    store: LinuxFlowStore,
) -> None:
    with pytest.raises(BackendError, match="nfreaim_nobodys"):
        store.protect(KEY, EDITED)
    assert store._directory.load_all() == {}


def test_damaged_record_is_not_put_back(store: LinuxFlowStore) -> None:
    store.save_session(KEY, SESSION)
    (store._directory.path / f"{KEY.hex()}.json").write_text("{")
    with pytest.raises(BackendError, match="nfreaim_nobodys"):
        store.protect(KEY, EDITED)
    assert store._directory.load_all() == {}


class Conntrack:
    """Holds the flows whose keys it is given, each as an established connection."""

    def __init__(self, *keys: bytes) -> None:
        self.flows = {flow_id(key) for key in keys}

    def carries(self, flow: FlowId, server_inside: bool) -> bool:
        return flow in self.flows

    def alive(self, flow: FlowId) -> bool:
        return flow in self.flows


class Skewed:
    """The set of skewed flows, in memory."""

    def __init__(self, *keys: bytes) -> None:
        self.flows = {FlowEntry(flow_id(key).client, flow_id(key).server.address) for key in keys}

    def entries(self) -> list[FlowEntry]:
        return list(self.flows)

    def add(self, flow: FlowId) -> None:
        self.flows.add(FlowEntry(flow.client, flow.server.address))

    def delete(self, flow: FlowId) -> None:
        self.flows.discard(FlowEntry(flow.client, flow.server.address))

    def close(self) -> None:
        pass


def of(key: bytes, **more: object) -> dict[str, Any]:
    return {"key": key.hex(), "server_inside": True, **more}


def test_only_records_of_flows_that_conntrack_and_the_set_still_hold_are_taken_over(
    store: LinuxFlowStore,
) -> None:
    session, edited, gone, late, stale, ended = (KEY[:9] + bytes([number]) + KEY[10:] for number in range(6))
    kept = {
        session: of(session, protocol="one"),
        edited: of(edited, streams=[{}, {}]),
        gone: of(gone),
        late: of(late),  # it has an entry, so it was edited since
        stale: of(stale, streams=[{}, {}]),  # it has none, so it has run untranslated
        ended: of(ended, streams=[{}, {}]),
    }
    for key, record in kept.items():
        store.save_session(key, record)
    skewed = Skewed()
    store._skewed.close()
    store._skewed = skewed  # type: ignore[assignment]
    for key in (edited, late, ended):
        # The set knows no server port: each has a client of its own.
        skewed.add(flow_id(key))
    found = store.load(Conntrack(session, edited, late, stale))  # type: ignore[arg-type]
    assert found == {session: kept[session], edited: {"protocol": "oscar", **kept[edited]}}
    assert set(store._directory.load_all()) == {session, edited}
    assert store.protected == {edited: False}
