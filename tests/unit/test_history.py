"""The history: written beside the packets, bounded on disk, read with holes and damage in it."""

from __future__ import annotations

import json
import os
import stat
import threading
import time
from contextlib import ExitStack
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest

from nfreaim.config import Config
from nfreaim.errors import AbsentError, ConfigError
from nfreaim.host.report.history_file import EARLIER, NAME, HistoryFile, NoHistory, kept_history
from nfreaim.show import history

PLACE = {
    "protocol": "one",
    "service": "chat",
    "inside": "10.0.0.5:5000",
    "outside": "203.0.113.1:40000",
    "client": "10.0.0.5:40123",
    "server": "203.0.113.9:7777",
}
NOON = datetime(2026, 3, 4, 12).timestamp()


def line(name: str, event: str, at: float = NOON, **more: Any) -> dict[str, Any]:
    return {"id": name, "time": at, "event": event, **(PLACE if event == "pinhole-opened" else {}), **more}


def carried(name: str, peer: str, size: int | None, **more: Any) -> dict[str, Any]:
    packets = None if size is None else size // 100
    return line(name, "carried", peer=peer, connections=1, bytes=size, packets=packets, **more)


def write(place: Path, *documents: dict[str, Any], name: str = NAME) -> None:
    place.joinpath(name).write_text("".join(json.dumps(document) + "\n" for document in documents))


# --- the file ---


def test_lines_are_in_the_file_when_the_daemon_has_ended(tmp_path: Path) -> None:
    file = HistoryFile(tmp_path / "new" / "place")
    for number in range(1000):
        file.write({"n": number})
    file.close()
    kept = (tmp_path / "new" / "place" / NAME).read_text().splitlines()
    assert [json.loads(one)["n"] for one in kept] == list(range(1000))
    assert stat.S_IMODE((tmp_path / "new" / "place" / NAME).stat().st_mode) == 0o600


def test_two_files_of_a_bounded_size_have_the_latest_lines(tmp_path: Path) -> None:
    file = HistoryFile(tmp_path, most=1000)
    for number in range(500):
        file.write({"n": number})
    file.close()
    assert sorted(os.listdir(tmp_path)) == [EARLIER, NAME]
    kept = [json.loads(one)["n"] for name in (EARLIER, NAME) for one in (tmp_path / name).open()]
    assert kept == list(range(kept[0], 500))
    assert 1000 < sum((tmp_path / name).stat().st_size for name in (EARLIER, NAME)) <= 2000


def test_a_disk_that_stands_still_keeps_nobody_waiting(tmp_path: Path) -> None:
    file = HistoryFile(tmp_path)
    os.mkfifo(tmp_path / NAME)  # its opening waits until somebody reads
    began = time.monotonic()
    for number in range(5000):
        file.write({"n": number})
    assert time.monotonic() - began < 5
    assert file.lost >= 900
    reader = threading.Thread(target=(tmp_path / NAME).read_bytes, daemon=True)
    reader.start()


def test_a_disk_that_refuses_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = HistoryFile(tmp_path)
    (tmp_path / NAME).mkdir()
    for _ in range(2):
        file.write({})
        deadline = time.monotonic() + 10
        while not file.error and time.monotonic() < deadline:
            time.sleep(0.01)
        file.tell()
    assert caplog.messages == [f"the history is not written: {tmp_path / NAME}: Is a directory"]
    file.close()


def test_a_history_is_kept_where_systemd_or_the_operator_says_and_else_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    with ExitStack() as stack:
        assert isinstance(kept_history(Config(), stack), NoHistory)
        assert isinstance(kept_history(Config(history_dir=tmp_path), stack), HistoryFile)
        monkeypatch.setenv("STATE_DIRECTORY", f"{tmp_path / 'state'}:/other")
        assert isinstance(kept_history(Config(), stack), HistoryFile)
        assert (tmp_path / "state").is_dir()
        assert isinstance(kept_history(Config(history=False), stack), NoHistory)
        (tmp_path / "file").touch()
        assert isinstance(kept_history(Config(history_dir=tmp_path / "file" / "x"), stack), NoHistory)
    assert "no history is kept" in caplog.text


# --- the command ---


def test_lines_of_a_pinhole_are_joined_and_its_peers_are_told_apart(tmp_path: Path) -> None:
    write(
        tmp_path,
        line("a-1", "pinhole-opened"),
        line("a-1", "pinhole-claimed", peer="198.51.100.7"),
        line("a-1", "pinhole-claimed", peer="198.51.100.8"),
        carried("a-1", "198.51.100.7", 1000),
        line("a-1", "pinhole-closed", NOON + 75, reason="done"),
        carried("a-1", "198.51.100.7", 500),
    )
    (one,) = history.read(tmp_path)
    assert (one.host, one.day, one.reason) == ("10.0.0.5", date(2026, 3, 4), "done")
    rows = history.table("", [one]).rows
    assert rows[0][:5] == ("12:00:00", "chat", "203.0.113.1:40000", "198.51.100.7", "1.5 kB")
    assert rows[0][5:] == ("15", "1 min 15 s", "done", "10.0.0.5:40123 at 203.0.113.9:7777")
    assert rows[1] == ("", "", "", "198.51.100.8", "not over", "", "", "", "")
    told = one.document()
    assert told["peers"][0]["bytes"] == 1500
    assert told["peers"][1]["bytes"] is None


@pytest.mark.parametrize(
    ("lines", "shown"),
    [
        ([], ("nobody came", "", "")),
        ([carried("a-1", "198.51.100.7", None)], ("198.51.100.7", "unknown", "unknown")),
        (
            [carried("a-1", "198.51.100.7", 900, unfinished=True)],
            ("198.51.100.7", "900 B so far", "9 so far"),
        ),
        ([line("a-1", "pinhole-claimed", peer="198.51.100.7")], ("198.51.100.7", "not over", "")),
        (
            [line("a-1", "pinhole-claimed", peer="198.51.100.7"), line("b-1", "pinhole-closed", reason="x")],
            ("198.51.100.7", "unknown", "unknown"),
        ),
    ],
    ids=["nobody", "not counted", "stopped", "goes on", "killed"],
)
def test_what_is_not_known_is_said_to_be_so(
    lines: list[dict[str, Any]], shown: tuple[str, ...], tmp_path: Path
) -> None:
    write(tmp_path, line("a-1", "pinhole-opened"), *lines)
    assert tuple(history.table("", history.read(tmp_path)).rows[0][3:6]) == shown


def test_a_pinhole_that_a_later_daemon_took_over_is_one(tmp_path: Path) -> None:
    write(tmp_path, line("a-1", "pinhole-opened"), carried("a-1", "198.51.100.7", 100), name=EARLIER)
    write(
        tmp_path,
        line("b-1", "pinhole-opened", NOON + 60),
        carried("b-1", "198.51.100.7", 100),
        line("b-1", "pinhole-closed", NOON + 90, reason="done"),
        line("b-2", "pinhole-opened", NOON + 100),
    )
    first, second = history.read(tmp_path)
    assert (first.opened, first.closed, first.peers["198.51.100.7"].bytes) == (NOON, NOON + 90, 200)
    assert (second.opened, second.closed) == (NOON + 100, None)


def test_damage_costs_the_damaged_lines_only(tmp_path: Path) -> None:
    good = json.dumps(line("a-1", "pinhole-opened"))
    tmp_path.joinpath(NAME).write_bytes(
        b'{"id": "a-0", "ti\n' + good.encode() + b'\n[1]\n\xff\xfe\n{"event": "carried"}\n' + b'{"id": "a-1"'
    )
    assert len(history.read(tmp_path)) == 1


def test_host_and_day_choose(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(
        tmp_path,
        line("a-1", "pinhole-opened"),
        line("a-2", "pinhole-opened", NOON + 86400, outside="203.0.113.1:40001"),
        line("a-3", "pinhole-opened", inside="10.0.0.6:5000"),
    )
    assert history.main(tmp_path, None, None, as_json=False) == 0
    shown = capsys.readouterr().out
    titles = [text for text in shown.splitlines() if text.startswith("2026")]
    assert titles == ["2026-03-04 10.0.0.5", "2026-03-05 10.0.0.5", "2026-03-04 10.0.0.6"]
    assert history.main(tmp_path, "10.0.0.5", "2026-03-04", as_json=True) == 0
    (told,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert (told["host"], told["opened"], told["service"]) == ("10.0.0.5", NOON, "chat")
    assert history.main(tmp_path, "10.0.0.7", None, as_json=False) == 0
    assert capsys.readouterr().out == "no pinhole was opened\n"
    assert history.day_of("today") == date.today()
    assert (history.day_of("today") - history.day_of("yesterday")).days == 1
    with pytest.raises(ConfigError, match="YYYY-MM-DD"):
        history.day_of("monday")


def test_no_history_says_how_one_is_kept(tmp_path: Path) -> None:
    with pytest.raises(AbsentError, match=r"no history in .*history_dir is set"):
        history.read(tmp_path)
