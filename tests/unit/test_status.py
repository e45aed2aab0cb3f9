"""The status socket: clients that stall, hang up or crowd, sockets that others left, and who may ask."""

from __future__ import annotations

import grp
import json
import math
import os
import selectors
import socket
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.counters import EngineStats
from nfreaim.core.firewall.pinhole import Pinhole
from nfreaim.errors import BackendError, ConfigError
from nfreaim.host.report import status
from nfreaim.host.report.metrics import Readers
from nfreaim.host.report.status_server import StatusServer
from nfreaim.show import tables

MANY = 16


class Loop:
    """The daemon's loop, turned by hand, on a clock of its own."""

    def __init__(self, path: Path, stack: ExitStack, group: str = "") -> None:
        self.now = 100.0
        self.path = path
        self.document: dict[str, Any] = {"pinholes": []}
        self.made = 0
        self.server = StatusServer(path, group, self._make, lambda: self.now, stack)
        self.selector = stack.enter_context(selectors.DefaultSelector())
        self.stack = stack

    def _make(self) -> dict[str, Any]:
        self.made += 1
        return self.document

    def open(self) -> Loop:
        self.server.open()
        self.server.attach(self.selector)
        return self

    def turn(self) -> None:
        """Serve until nobody can be served."""
        while ready := self.selector.select(0):
            for key, _ in ready:
                key.data()

    def client(self) -> socket.socket:
        link = self.stack.enter_context(socket.socket(socket.AF_UNIX))
        link.settimeout(5)
        link.connect(str(self.path))
        return link

    def served(self) -> int:
        return len(self.selector.get_map())


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def loop(tmp_path: Path, stack: ExitStack) -> Loop:
    return Loop(tmp_path / "run" / "status", stack).open()


def everything(link: socket.socket) -> bytes:
    return b"".join(iter(lambda: link.recv(65536), b""))


def test_who_connects_gets_the_document_and_is_left(loop: Loop) -> None:
    link = loop.client()
    loop.turn()
    assert json.loads(everything(link)) == {"pinholes": []}
    assert loop.served() == 1


def test_nothing_a_client_says_is_ever_read(loop: Loop) -> None:
    loop.document = {"pinholes": "x" * 1_000_000}
    talker = loop.client()
    talker.setblocking(False)
    with suppress(BlockingIOError):  # in the end there is no room left, because nobody makes any
        for _ in range(10_000):
            talker.send(b"GET / HTTP/1.0\r\n\r\n" * 100)
            loop.turn()
    with pytest.raises(BlockingIOError):
        talker.send(b"more")
    loop.now += 5.0
    loop.server.expire()
    assert loop.served() == 1


def test_document_longer_than_a_sockets_buffer_arrives_in_whole(loop: Loop) -> None:
    loop.document = {"pinholes": "x" * 1_000_000}
    link = loop.client()
    loop.turn()
    assert loop.served() == 2  # its buffer is full, and nobody waits for it
    received = b""
    while loop.served() == 2:
        received += link.recv(65536)
        loop.turn()
    assert json.loads(received + everything(link)) == loop.document


def test_clients_that_do_not_read_are_bounded_and_lose_their_place(loop: Loop) -> None:
    loop.document = {"pinholes": "x" * 1_000_000}
    stuck = [loop.client() for _ in range(MANY)]
    loop.turn()
    late = loop.client()
    loop.turn()
    assert loop.served() == MANY  # and no listener
    loop.now += 4.9
    loop.server.expire()
    assert loop.served() == MANY
    loop.now += 0.1
    loop.server.expire()
    assert loop.served() == 1
    loop.document = {"pinholes": []}
    loop.turn()
    assert json.loads(everything(late)) == {"pinholes": []}
    with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
        json.loads(everything(stuck[0]))


def test_clients_that_hang_up_are_forgotten(loop: Loop) -> None:
    loop.document = {"pinholes": "x" * 1_000_000}
    links = [loop.client() for _ in range(MANY)]
    loop.turn()
    for link in links:
        link.close()
    loop.turn()
    assert loop.served() == 1
    loop.client().close()
    loop.turn()
    assert loop.served() == 1


def test_asking_again_and_again_costs_one_document_in_half_a_second(loop: Loop) -> None:
    for _ in range(100):
        loop.client()
        loop.turn()
    assert loop.made == 1
    loop.now += 0.5
    loop.client()
    loop.turn()
    assert loop.made == 2


def test_document_that_cannot_be_made_ends_no_daemon(loop: Loop) -> None:
    def broken() -> dict[str, Any]:
        raise BackendError("no statistics")

    loop.server._document = broken
    link = loop.client()
    loop.turn()
    assert everything(link) == b""
    assert loop.served() == 1


def test_only_the_daemons_user_may_ask_unless_a_group_is_named(tmp_path: Path, stack: ExitStack) -> None:
    loop = Loop(tmp_path / "run" / "own", stack).open()
    assert stat.S_IMODE(loop.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(loop.path.parent.stat().st_mode) == 0o755
    group = grp.getgrgid(os.getegid()).gr_name
    shared = Loop(tmp_path / "run" / "shared", stack, group).open()
    assert stat.S_IMODE(shared.path.stat().st_mode) == 0o660
    assert shared.path.stat().st_gid == os.getegid()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become others")
def test_member_of_the_group_may_ask_and_others_may_not(stack: ExitStack) -> None:
    # pytest's own directories are for their owner only.
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        loop = Loop(Path(place, "status"), stack, "nogroup").open()
        assert (loop.path.stat().st_uid, loop.path.stat().st_gid) == (0, grp.getgrnam("nogroup").gr_gid)
        for groups, refused in (([65534], 0), ([65533], 13)):
            child = os.fork()
            if child == 0:
                os.setgroups([])
                os.setresgid(groups[0], groups[0], groups[0])
                os.setresuid(65533, 65533, 65533)
                os._exit(socket.socket(socket.AF_UNIX).connect_ex(str(loop.path)))
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == refused


def test_unknown_group_is_an_error_of_the_configuration(tmp_path: Path, stack: ExitStack) -> None:
    with pytest.raises(ConfigError, match="status_group = 'no-such-group': there is no such group"):
        Loop(tmp_path / "status", stack, "no-such-group")
    assert list(tmp_path.iterdir()) == []


def test_path_too_long_for_a_socket_is_a_configuration_error(tmp_path: Path, stack: ExitStack) -> None:
    with pytest.raises(ConfigError, match="at most 107 bytes"):
        Loop(tmp_path / ("x" * 108), stack)


def test_socket_that_a_killed_daemon_left_is_replaced(tmp_path: Path, stack: ExitStack) -> None:
    path = tmp_path / "status"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    loop = Loop(path, stack).open()
    link = loop.client()
    loop.turn()
    assert json.loads(everything(link)) == {"pinholes": []}


def test_second_daemon_is_refused_and_leaves_the_first_ones_socket(loop: Loop) -> None:
    with ExitStack() as other, pytest.raises(BackendError, match="another nfreaim serves it"):
        Loop(loop.path, other).open()
    loop.turn()  # the question whether somebody is there
    link = loop.client()
    loop.turn()
    assert json.loads(everything(link)) == {"pinholes": []}


def test_file_of_somebody_else_is_not_replaced(tmp_path: Path, stack: ExitStack) -> None:
    (tmp_path / "status").write_text("mine")
    with pytest.raises(BackendError, match="is no socket"):
        Loop(tmp_path / "status", stack).open()
    stack.close()
    assert (tmp_path / "status").read_text() == "mine"


def test_the_end_removes_the_socket_and_the_directory_made_for_it(tmp_path: Path) -> None:
    with ExitStack() as stack:
        Loop(tmp_path / "run" / "status", stack).open()
        assert (tmp_path / "run" / "status").is_socket()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "kept"), [("nfreaim", False), ("run", True)])
def test_directory_of_an_earlier_daemon_goes_and_a_strangers_stays(
    tmp_path: Path, name: str, kept: bool
) -> None:
    path = tmp_path / name / "status"
    path.parent.mkdir()
    with ExitStack() as stack:
        Loop(path, stack).open()
    assert path.parent.exists() is kept


def test_the_document_and_its_text_name_the_protocol_and_no_agreement(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("nfreaim.host.netfilter.queue_stats.queues", list)
    flow = FlowId(Endpoint("10.0.0.5", 40123), Endpoint("203.0.113.9", 7777))
    inside, outside = Endpoint("10.0.0.5", 5000), Endpoint("203.0.113.1", 40000)
    standing = Pinhole(inside, outside, flow, b"agreed", "chat", math.inf, since=90.0, protocol="one")
    readers = Readers(EngineStats(1, (flow,), {"packets": 3}))
    document = status.of_daemon([standing], [], readers, began=80.0, now=100.0)
    (pinhole,) = document["pinholes"]
    assert (pinhole["protocol"], pinhole["service"], pinhole["left"]) == ("one", "chat", None)
    assert document["uptime"] == 20.0
    assert document["flows"]["edited"] == [{"client": "10.0.0.5:40123", "server": "203.0.113.9:7777"}]
    said = json.dumps(document)
    assert "agreed" not in said
    assert b"agreed".hex() not in said
    (row,) = tables.pinholes(document).rows
    assert row[:4] == ("203.0.113.1:40000", "10.0.0.5:5000", "chat", "one")
    assert row[4:7] == ("awaits anybody", "10 s", "while connected")


# --- the other end ---


def test_no_daemon_is_told_from_one_that_refuses(loop: Loop, tmp_path: Path) -> None:
    assert status.fetch(tmp_path / "absent") is None
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead"))
    assert status.fetch(tmp_path / "dead") is None
    told: list[Any] = []
    asking = threading.Thread(target=lambda: told.append(status.fetch(loop.path)))
    asking.start()
    while asking.is_alive():
        loop.turn()
    assert told == [{"pinholes": []}]


def test_answer_cut_short_or_of_another_program_is_an_error(tmp_path: Path) -> None:
    for number, (answer, said) in enumerate(((b'{"pin', "mid-answer"), (b"[1]", "not nfreaim's socket"))):
        path = tmp_path / str(number)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()

            def serve(listener: socket.socket = listener, answer: bytes = answer) -> None:
                with listener.accept()[0] as link:
                    link.sendall(answer)

            thread = threading.Thread(target=serve)
            thread.start()
            with pytest.raises(BackendError, match=said):
                status.fetch(path)
            thread.join()
