"""The flow store: what is on disk after the kernel refused a set entry, and which records are taken over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyroute2")

from nfreaim.errors import BackendError
from nfreaim.host.netfilter.ipset import FlowSet
from nfreaim.host.state.flow_store import LinuxFlowStore
from nfreaim.host.state.state_files import StateDirectory

KEY = bytes([203, 0, 113, 20, 10, 0, 0, 9, 0x9C, 0x40, 0x14, 0x46])
SESSION: dict[str, Any] = {"key": KEY.hex(), "server_inside": True, "followed": False}
EDITED: dict[str, Any] = {"key": KEY.hex(), "server_inside": True, "streams": [{}, {}]}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LinuxFlowStore]:
    made = LinuxFlowStore(StateDirectory(tmp_path / "flows"))
    made.prepare()
    made._skewed.close()
    made._skewed = FlowSet("nfreaim_nobodys")
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
