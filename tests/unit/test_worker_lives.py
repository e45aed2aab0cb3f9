"""Processes that read: how they are started anew, what they leave behind, and what they tell."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

pytest.importorskip("netfilterqueue")
pytest.importorskip("iptc")

import nfreaim
from nfreaim.config import Config
from nfreaim.core.address import End, Endpoint, FlowId
from nfreaim.core.counters import EngineStats, FlowStatus
from nfreaim.core.firewall.policy import PinholePolicy
from nfreaim.core.followed import FollowedServers
from nfreaim.core.null import NullHomeServers
from nfreaim.errors import BackendError
from nfreaim.host.report.metrics import total
from nfreaim.host.state.state_files import StateDirectory, part, remove_other_parts
from nfreaim.host.workers import supervisor
from nfreaim.host.workers.program_files import ProgramFiles
from nfreaim.host.workers.rpc import ONE_WAY, socket_pair
from nfreaim.host.workers.shared_page import SharedPage
from nfreaim.host.workers.supervisor import PublishingJournal, RequestHandlers, Supervisor
from tests.unit.fake_firewall import FakeFirewall
from tests.unit.fakes import FakeKernel, guarded_table

SERVER = Endpoint("203.0.113.9", 5190)
ALICE = FlowId(Endpoint("10.0.0.5", 40123), SERVER)
AMY = FlowId(Endpoint("10.0.0.6", 40124), SERVER)


@pytest.fixture
def page() -> Iterator[SharedPage]:
    made = SharedPage.make()
    yield made
    made.close()


def made_for(page: SharedPage, config: Config, monkeypatch: pytest.MonkeyPatch) -> Supervisor:
    """Supervisor whose program is one that fails at once."""
    monkeypatch.setattr("sys.executable", "/bin/false")
    table = guarded_table(PinholePolicy(), FakeFirewall(), PublishingJournal(page))
    return Supervisor(
        config,
        RequestHandlers(table, FollowedServers(FakeKernel()), NullHomeServers(), page),
        page,
        rules_go_with_us=False,
    )


def test_figures_of_several_are_sums() -> None:
    seen = [FlowStatus(flow, "one", End.CLIENT, "established", 1.0) for flow in (ALICE, AMY)]
    some = EngineStats(2, (ALICE,), {"packets": 3, "flows": 1}, (seen[0],))
    other = EngineStats(1, (AMY,), {"packets": 4, "peers_verified": 1}, (seen[1],))
    counters = {"packets": 7, "flows": 1, "peers_verified": 1}
    assert total([some, other]) == EngineStats(3, (ALICE, AMY), counters, tuple(seen))
    assert total([]) == EngineStats(0, (), {})


@pytest.mark.parametrize("count", [1, 2, 3])
def test_what_another_division_kept_is_removed_and_nothing_else(
    count: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "flows"
    places = {1: [StateDirectory(path)], 2: [part(path, n, 2) for n in (1, 2)], 3: [part(path, 3, 3)]}
    for directories in places.values():
        for directory in directories:
            directory.prepare()
            directory.save(bytes(12), {"key": "00" * 12})
            (directory.path / "places").touch()
    foreign = path / "somebody's"
    foreign.mkdir()
    (foreign / "file.json").touch()
    remove_other_parts(path, count)
    assert (foreign / "file.json").exists()
    for number, directories in places.items():
        for directory in directories:
            kept = directory.path.exists() and directory.load(bytes(12)) is not None
            assert kept is (number == count), directory.path
    kept_before = {1: 1, 2: 2, 3: 1}
    assert f"{4 - kept_before[count]} connections were kept by another number of workers" in caplog.text


def test_a_state_directory_that_does_not_exist_has_nothing_to_forget(tmp_path: Path) -> None:
    remove_other_parts(tmp_path / "none", 2)
    assert not (tmp_path / "none").exists()


def test_a_worker_that_goes_on_ending_ends_the_daemon_and_waits_longer_each_time(
    page: SharedPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(supervisor, "clock", lambda: now[0])
    made = made_for(page, Config(queue=5191), monkeypatch)
    (one,) = made._workers
    starts: list[float] = []

    def live() -> None:
        while now[0] < 1100.0:
            running = one.process
            made.tick()
            if one.process is not None and one.process is not running:
                starts.append(now[0])
                one.process.wait(10)
            else:
                now[0] += 0.1

    with pytest.raises(BackendError, match="worker 1 ended 5 times in a row: exit status 1"):
        live()
    assert len(starts) == 5
    waits = [later - earlier for earlier, later in pairwise(starts)]
    assert waits == sorted(waits)
    assert waits[0] < 0.5 < 1.0 < waits[-1]
    made.stop()


def test_an_end_after_a_long_life_is_no_part_of_a_row(
    page: SharedPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(supervisor, "clock", lambda: now[0])
    made = made_for(page, Config(queue=5191), monkeypatch)
    (one,) = made._workers
    for _ in range(20):
        made.tick()
        if one.process is not None:
            one.process.wait(10)
            now[0] += 61.0
        else:
            now[0] += 0.1
    assert one.failures == 1
    made.stop()


def installed(place: Path) -> Path:
    """A module of a package, whose time is that of every build."""
    module = place / "nfreaim" / "host" / "daemon.py"
    module.parent.mkdir(parents=True)
    module.write_text("1")
    os.utime(module, ns=(0, 0))
    return module


def upgraded(module: Path) -> None:
    """As dpkg does it: a new file gets the name."""
    new = module.with_suffix(".py.dpkg-new")
    new.write_text("2")
    os.utime(new, ns=(0, 0))
    new.rename(module)


def test_files_of_the_same_time_and_size_are_others_and_what_python_caches_is_not_looked_at(
    tmp_path: Path,
) -> None:
    module = installed(tmp_path)
    files = ProgramFiles(tmp_path)
    cached = module.parent / "__pycache__" / "daemon.cpython-311.pyc"
    cached.parent.mkdir()
    cached.touch()
    assert not files.replaced()
    upgraded(module)
    assert files.replaced()
    files = ProgramFiles(tmp_path)
    module.unlink()
    assert files.replaced()


def test_a_worker_that_would_be_of_another_version_ends_the_daemon(
    tmp_path: Path, page: SharedPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the unpacking of an upgrade and the restart by it, which may be long."""
    now = [1000.0]
    monkeypatch.setattr(supervisor, "clock", lambda: now[0])
    made = made_for(page, Config(queue=5191), monkeypatch)
    module = installed(tmp_path)
    made._files = ProgramFiles(tmp_path)
    (one,) = made._workers
    made.tick()
    assert one.process is not None
    one.process.wait(10)
    upgraded(module)

    def live() -> None:
        while now[0] < 1010.0:
            made.tick()
            now[0] += 0.1

    with pytest.raises(BackendError, match="of another version"):
        live()
    assert one.process is None
    made.stop()


def test_a_worker_that_was_started_amid_the_unpacking_is_not_served(
    tmp_path: Path, page: SharedPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = made_for(page, Config(queue=5191), monkeypatch)
    module = installed(tmp_path)
    made._files = ProgramFiles(tmp_path)
    (one,) = made._workers
    made.tick()
    upgraded(module)
    with pytest.raises(BackendError, match="of another version"):
        made._answer(one, ONE_WAY, "ready", ())
    made.stop()


def test_the_files_that_are_looked_at_are_those_that_a_worker_is_started_from() -> None:
    seen = {path for path, _, _ in ProgramFiles()._seen}
    assert {Path(supervisor.__file__), Path(nfreaim.__file__)} <= seen


def test_who_cannot_begin_ends_the_start(page: SharedPage, monkeypatch: pytest.MonkeyPatch) -> None:
    made = made_for(page, Config(queue=5190, workers=2), monkeypatch)
    other, _ = socket_pair()
    with other, pytest.raises(BackendError, match=r"worker [12] cannot begin: exit status 1"):
        made.start(other.fileno(), lambda: None)
    made.stop()
    assert all(worker.process is None or worker.process.poll() is not None for worker in made._workers)
