"""Records of flows on disk: what a crash, a full disk or a stranger may leave, and what is read back."""

import json
import os
import stat
from pathlib import Path

import pytest

from nfreaim.errors import BackendError
from nfreaim.host.state.state_files import StateDirectory

KEY = bytes([203, 0, 113, 20, 10, 0, 0, 9, 0x9C, 0x40, 0x14, 0x46])
OTHER = KEY[:-1] + b"\x47"
RECORD = {"key": KEY.hex(), "streams": [{"base": 0xFFFFFFFF, "edits": [[0, 3, "00ff"]]}, {}]}


@pytest.fixture
def state(tmp_path: Path) -> StateDirectory:
    made = StateDirectory(tmp_path / "run" / "flows")
    made.prepare()
    return made


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_record_comes_back_as_it_was_and_only_its_owner_reads_it(state: StateDirectory) -> None:
    state.save(KEY, {"key": "older"})
    state.save(KEY, RECORD)
    state.save(OTHER, {"key": "other"})
    assert state.load_all() == {KEY: RECORD, OTHER: {"key": "other"}}
    assert mode(state.path) == 0o700
    assert {mode(path) for path in state.path.iterdir()} == {0o600}


def test_forgotten_flow_is_gone_and_may_be_forgotten_again(state: StateDirectory) -> None:
    state.save(KEY, RECORD)
    state.delete(KEY)
    state.delete(KEY)
    assert state.load_all() == {}
    assert list(state.path.iterdir()) == []


def test_crash_while_writing_leaves_the_record_before(state: StateDirectory) -> None:
    state.save(KEY, RECORD)
    (state.path / f"{KEY.hex()}.new").write_text('{"format":1,"fl')
    assert state.load_all() == {KEY: RECORD}
    assert [path.name for path in state.path.iterdir()] == [f"{KEY.hex()}.json"]


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b'{"format":1,"flow":{"key":"',
        b'{"format":2,"flow":{}}',
        b'{"format":1,"flow":[]}',
        b"[1]",
        b"\xff\xfe\x00",
        b'"' + b"x" * (5 << 20) + b'"',
        b"[" * 100000,
    ],
    ids=["empty", "brace", "cut", "future", "list", "other", "binary", "huge", "deep"],
)
def test_damaged_record_is_reported_and_costs_only_itself(
    state: StateDirectory, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    state.save(OTHER, RECORD)
    (state.path / f"{KEY.hex()}.json").write_bytes(damage)
    assert state.load_all() == {OTHER: RECORD}
    assert f"{KEY.hex()}.json is damaged" in caplog.text
    caplog.clear()
    assert state.load_all() == {OTHER: RECORD}
    assert caplog.text == "", "reported once, not at every start"


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o620, 0o666])
def test_record_that_others_could_read_or_write_is_not_believed(
    state: StateDirectory, mode: int, caplog: pytest.LogCaptureFixture
) -> None:
    state.save(KEY, RECORD)
    state.save(OTHER, RECORD)
    (state.path / f"{KEY.hex()}.json").chmod(mode)
    assert state.load_all() == {OTHER: RECORD}
    assert "not ours alone" in caplog.text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_record_of_another_owner_is_not_believed(state: StateDirectory) -> None:
    state.save(KEY, RECORD)
    os.chown(state.path / f"{KEY.hex()}.json", 1000, 1000)
    assert state.load_all() == {}


def test_files_of_others_are_left_alone(state: StateDirectory) -> None:
    (state.path / "notes.txt").write_text("mine")
    (state.path / "abcd.json").write_text("mine")
    assert state.load_all() == {}
    assert sorted(path.name for path in state.path.iterdir()) == ["abcd.json", "notes.txt"]


def test_link_in_place_of_a_file_is_neither_followed_nor_written_through(
    state: StateDirectory, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    target.write_text(json.dumps({"format": 1, "flow": RECORD}))
    (state.path / f"{KEY.hex()}.json").symlink_to(target)
    (state.path / f"{OTHER.hex()}.new").symlink_to(target)
    with pytest.raises(BackendError):
        state.save(OTHER, {"key": "x"})
    assert state.load_all() == {}
    assert json.loads(target.read_text())["flow"] == RECORD


def test_directory_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "flows"
    path.mkdir()
    path.chmod(0o777)
    with pytest.raises(BackendError, match="chmod 700"):
        StateDirectory(path).prepare()


def test_no_room_for_the_record_is_an_error_and_the_old_one_stays(
    state: StateDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    state.save(KEY, RECORD)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(BackendError, match="No space left"):
        state.save(KEY, {"key": "newer"})
    monkeypatch.undo()
    assert state.load_all() == {KEY: RECORD}


def test_vanished_directory_is_an_error_with_its_name(tmp_path: Path) -> None:
    gone = StateDirectory(tmp_path / "gone")
    for attempt in (lambda: gone.save(KEY, RECORD), gone.load_all):
        with pytest.raises(BackendError, match="gone"):
            attempt()
