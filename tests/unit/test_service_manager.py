"""What systemd is told, and by which datagrams."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from nfreaim.host.service_manager import ServiceManager


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The service manager's end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(tmp_path / "notify"))
        end.settimeout(5)
        yield end


def environment(end: socket.socket, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": end.getsockname(), "HOME": "/", **more}


def test_each_message_is_one_line_in_one_datagram(manager: socket.socket) -> None:
    ours = ServiceManager(environment(manager))
    ours.status("two\nlines")
    ours.ready()
    ours.stopping()
    assert [manager.recv(100) for _ in range(3)] == [b"STATUS=two lines", b"READY=1", b"STOPPING=1"]


def test_programs_that_the_daemon_starts_do_not_inherit_the_socket(manager: socket.socket) -> None:
    given = environment(manager, WATCHDOG_USEC="4000000", WATCHDOG_PID=str(os.getpid()))
    assert ServiceManager(given).watchdog_s == 4.0
    assert given == {"HOME": "/"}


@pytest.mark.parametrize(
    "more",
    [{}, {"WATCHDOG_USEC": "x"}, {"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": "1"}],
    ids=["not asked for", "no number", "another process"],
)
def test_not_every_service_is_watched(manager: socket.socket, more: dict[str, str]) -> None:
    assert ServiceManager(environment(manager, **more)).watchdog_s == 0.0


def test_an_abstract_socket_is_written_with_an_at_sign() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(b"\0nfreaim-test-%d" % os.getpid())
        ServiceManager({"NOTIFY_SOCKET": f"@nfreaim-test-{os.getpid()}"}).ready()
        end.settimeout(5)
        assert end.recv(100) == b"READY=1"


def test_without_a_manager_nothing_happens(tmp_path: Path) -> None:
    for given in ({}, {"NOTIFY_SOCKET": str(tmp_path / "gone"), "WATCHDOG_USEC": "4000000"}):
        ServiceManager(given).ready()


def test_no_life_sign_while_a_part_is_silent(
    manager: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    ours = ServiceManager(environment(manager, WATCHDOG_USEC="30000000"))
    asked: list[float] = []

    def silent(seconds: float) -> str:
        asked.append(seconds)
        return "worker 2" if len(asked) < 3 else ""

    for _ in range(3):
        ours.alive(silent)
    manager.setblocking(False)
    assert manager.recv(100) == b"WATCHDOG=1"
    with pytest.raises(BlockingIOError):
        manager.recv(100)
    assert asked == [15.0] * 3, "early enough for what is late to be still heard"
    assert [record.getMessage() for record in caplog.records] == [
        "worker 2 does not answer: systemd restarts the daemon unless it does so soon"
    ]
