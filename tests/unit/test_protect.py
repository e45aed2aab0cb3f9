"""What is on disk after the kernel refused to let a flow fail closed, because of a set that nobody made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyroute2")

from nfreaim.errors import BackendError
from nfreaim.host.linux_backend import LinuxBackend
from nfreaim.host.netfilter.ipset import FlowSet
from nfreaim.host.state.state_directory import StateDirectory

KEY = bytes([203, 0, 113, 20, 10, 0, 0, 9, 0x9C, 0x40, 0x14, 0x46])
SESSION: dict[str, Any] = {"key": KEY.hex(), "server_inside": True, "followed": False}
EDITED: dict[str, Any] = {"key": KEY.hex(), "server_inside": True, "streams": [{}, {}]}


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[LinuxBackend]:
    made = object.__new__(LinuxBackend)
    made._state = StateDirectory(tmp_path / "flows")
    made._state.prepare()
    made._skewed = FlowSet("nfreaim_nobodys")
    made._protected = set()
    yield made
    made._skewed.close()


def test_session_that_was_kept_stays_kept_when_its_edit_cannot_be_protected(kernel: LinuxBackend) -> None:
    kernel.keep(KEY, SESSION)
    with pytest.raises(BackendError, match="nfreaim_nobodys"):
        kernel.protect(KEY, EDITED)
    assert kernel._state.load_all() == {KEY: SESSION}


def test_edit_that_cannot_be_protected_leaves_no_record_of_a_flow_that_had_none(kernel: LinuxBackend) -> None:
    with pytest.raises(BackendError, match="nfreaim_nobodys"):
        kernel.protect(KEY, EDITED)
    assert kernel._state.load_all() == {}


def test_damaged_record_is_not_put_back(kernel: LinuxBackend) -> None:
    kernel.keep(KEY, SESSION)
    (kernel._state.path / f"{KEY.hex()}.json").write_text("{")
    with pytest.raises(BackendError, match="nfreaim_nobodys"):
        kernel.protect(KEY, EDITED)
    assert kernel._state.load_all() == {}
