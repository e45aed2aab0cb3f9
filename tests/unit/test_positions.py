"""Positions of flows on disk: what a crash, a full disk or a stranger may leave, and what is read back."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from nfreaim.errors import BackendError
from nfreaim.host.state.state_files import Positions, StateDirectory

KEYS = [bytes([10, 0, 0, 5, 203, 0, 113, 9, 0x9C, number, 0x14, 0x46]) for number in range(100)]


def opened(path: Path, *wanted: bytes) -> tuple[Positions, dict[bytes, bytes]]:
    positions = Positions(StateDirectory(path))
    return positions, positions.open(wanted)


def test_places_come_back_after_a_crash_and_only_their_owner_reads_them(tmp_path: Path) -> None:
    positions, found = opened(tmp_path)
    assert found == {}
    for key in KEYS:
        positions.save(key, b"older" + key)
        positions.save(key, key)
    positions.delete(KEYS[3])
    positions.delete(KEYS[3])
    positions.save(KEYS[1], b"newer")
    again, found = opened(tmp_path, *KEYS[:4], bytes(12))
    assert found == {KEYS[0]: KEYS[0], KEYS[1]: b"newer", KEYS[2]: KEYS[2]}
    assert stat.S_IMODE((tmp_path / "places").stat().st_mode) == 0o600
    assert opened(tmp_path, *KEYS)[1] == found, "who was not wanted is gone"
    again.close()


def test_file_is_as_long_as_the_most_flows_at_a_time(tmp_path: Path) -> None:
    positions, _ = opened(tmp_path)
    for _ in range(50):
        for key in KEYS[:7]:
            positions.save(key, key)
        for key in KEYS[:7]:
            positions.delete(key)
    assert (tmp_path / "places").stat().st_size == 7 * 64
    positions.close()
    assert not (tmp_path / "places").exists(), "nobody is in it"


@pytest.mark.parametrize("damage", ["mode", "owner", "link", "fifo", "cut", "noise"])
def test_file_that_is_not_ours_or_damaged_is_not_used_and_replaced(tmp_path: Path, damage: str) -> None:
    positions, _ = opened(tmp_path)
    positions.save(KEYS[0], b"here")
    path = tmp_path / "places"
    if damage == "mode":
        path.chmod(0o644)
    elif damage == "owner":
        if os.geteuid():
            pytest.skip("only root can give a file away")
        os.chown(path, 1000, 1000)
    elif damage == "link":
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
    elif damage == "fifo":
        path.unlink()
        os.mkfifo(path, 0o600)
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        path.write_bytes(KEYS[0] + b"\xff" * 52)
    again, found = opened(tmp_path, *KEYS)
    assert found == {}
    again.save(KEYS[0], b"there")
    assert opened(tmp_path, *KEYS)[1] == {KEYS[0]: b"there"}
    if damage == "link":
        assert (tmp_path / "elsewhere").read_bytes()[13:17] == b"here", "it was written through"


def test_no_room_is_an_error_and_no_directory_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    positions, _ = opened(tmp_path)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(BackendError, match="No space left"):
        positions.save(KEYS[0], b"here")
    positions.delete(KEYS[0])
    monkeypatch.undo()
    gone, found = opened(tmp_path / "gone", *KEYS)
    assert found == {}
    assert "longer until connections are read again" in caplog.text
    gone.save(KEYS[0], b"here")
    gone.delete(KEYS[0])
    gone.close()
