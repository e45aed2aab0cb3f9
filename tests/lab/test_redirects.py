"""What a server that names many others can have diverted: of its own client, a few, and for minutes."""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.lab import kernel_sets
from tests.lab.namespace import socket_in
from tests.lab.net import ADDRESS, SERVER, Lab
from tests.lab.scene import INSTALL, Scene, eventually
from tests.lab.sockets import exactly
from tests.oscar.flap import FLAP_SNAC, FlapReader
from tests.oscar.signon import HOST_ONLINE, SIGNON, hello
from tests.oscar.snac import SERVICE_REDIRECT, SERVICE_REQUEST, snac_frame
from tests.oscar.tlv import tlv

SIZE = 30 << 20
FEW = 2000  # packets: SIZE has 22,000 at 1,448 bytes, and in the lab some 4,000 of 64 KiB at most
ELSEWHERE = [f"198.51.100.{number}:20000" for number in range(1, 100)]


def listening(lab: Lab, node: str, port: int, serve: Callable[[socket.socket], None]) -> None:
    """A server on *node*; each connection has a thread."""
    listener = socket_in(lab, node)
    listener.settimeout(600)
    listener.bind((ADDRESS[node], port))
    listener.listen(64)

    def run() -> None:
        while True:
            try:
                end, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(end,), daemon=True).start()

    threading.Thread(target=run, daemon=True).start()


def naming(places: list[str]) -> Callable[[socket.socket], None]:
    """A server that answers each request for a service with the next of *places*, over and over."""

    turns = itertools.cycle(places)

    def serve(end: socket.socket) -> None:
        exactly(end, len(hello()))
        end.sendall(SIGNON + HOST_ONLINE)
        number, reader = 0x66, FlapReader()
        while data := end.recv(65536):
            for channel, _, _ in reader.feed(data):
                if channel == FLAP_SNAC:
                    place = tlv(5, next(turns).encode())
                    end.sendall(snac_frame(SERVICE_REDIRECT, place, number=number))
                    number += 1

    return serve


def asking(lab: Lab, node: str, times: int) -> socket.socket:
    """A session of *node* with the server on bob, which asks for so many services."""
    end = socket_in(lab, node)
    end.settimeout(30)
    end.connect((ADDRESS["bob"], 5190))
    end.sendall(hello(1))
    exactly(end, len(SIGNON + HOST_ONLINE))
    for number in range(times):
        end.sendall(snac_frame(SERVICE_REQUEST, b"\0\x18", number=2 + number))
        end.recv(65536)
    return end


def entries(made: Scene) -> list[str]:
    """The kernel's set, without time-outs."""
    return sorted(kernel_sets.entries(made.lab, "A", "nfreaim_srv"))


def time_outs(made: Scene) -> list[int]:
    saved = kernel_sets.saved(made.lab, "A", "nfreaim_srv").splitlines()
    return [int(line.split()[4]) for line in saved]


def web(end: socket.socket) -> None:
    """Waits for a word, and sends a lot."""
    if end.recv(1):
        for _ in range(SIZE >> 20):
            end.sendall(bytes(1 << 20))


def queued(lab: Lab) -> int:
    return sum(lab.queue_state("A").values())


def download(lab: Lab, end: socket.socket) -> int:
    """How many packets of a download are queued."""
    before, got = queued(lab), 0
    end.sendall(b"x")
    while got < SIZE:
        part = end.recv(1 << 20)
        assert part
        got += len(part)
    return queued(lab) - before


def connected(lab: Lab, node: str, place: tuple[str, int]) -> socket.socket:
    end = socket_in(lab, node)
    end.settimeout(60)
    end.connect(place)
    return end


@contextmanager
def installed(workers: int = 1) -> Iterator[Scene]:
    """Rules that are there already, so that they stay when the daemon stops."""
    with Lab() as lab:
        lab.run("A", *INSTALL, *(("--workers", str(workers)) if workers > 1 else ()))
        made = Scene(lab)
        made.restart(settings=f"workers = {workers}\n")
        yield made


@contextmanager
def hostile(workers: int, places: list[str]) -> Iterator[Scene]:
    with installed(workers) as made:
        listening(made.lab, "bob", 5190, naming(places))
        listening(made.lab, "server", 20000, web)
        yield made


@pytest.mark.parametrize("workers", [1, 2])
def test_a_server_that_names_many_others_has_a_few_of_its_own_client_s_followed(workers: int) -> None:
    with hostile(workers, ELSEWHERE) as made:
        first = asking(made.lab, "amy", 30)
        assert len(entries(made)) == 8
        second, third = asking(made.lab, "amy", 30), asking(made.lab, "amy", 30)
        found = entries(made)
        assert len(found) == 16
        assert all(entry.endswith(f",{ADDRESS['amy']}") for entry in found)
        assert all(150 < seconds <= 180 for seconds in time_outs(made))
        assert made.daemon.log_text().count("is not followed") == 3, "once for each session"
        assert made.daemon.stop() == 0
        made.restart(settings=f"workers = {workers}\n")
        assert entries(made) == found, "a restart adopts what is there and nothing else"
        assert all(seconds <= 180 for seconds in time_outs(made))
        fourth = asking(made.lab, "alice", 30)
        assert len(entries(made)) == len(found) + 8
        for end in (first, second, third, fourth):
            end.close()


def test_what_an_earlier_version_left_is_bounded_at_the_start() -> None:
    with installed() as made:
        assert made.daemon.stop() == 0
        for number in range(40):
            entry = f"198.51.100.7,tcp:{20000 + number},10.0.0.6"
            add = kernel_sets.change("add", "nfreaim_srv", entry, 7000, "nfreaim oscar")
            made.lab.run("A", "sh", "-c", add)
        made.restart()
        assert len(entries(made)) == 16
        assert all(seconds <= 180 for seconds in time_outs(made))


@pytest.mark.parametrize("place", [f"{SERVER}:443", f"{SERVER}:25", f"{SERVER}:8080", f"{SERVER}:22"])
def test_no_redirect_diverts_the_port_of_another_service(place: str) -> None:
    with hostile(1, [place]) as made:
        asking(made.lab, "amy", 3).close()
        assert entries(made) == []
        assert "is not followed: port" in made.daemon.log_text()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_download_from_a_followed_server_leaves_the_queue(workers: int) -> None:
    """Whether its connection began before the redirect or after it, or the daemon does not know the entry."""
    with hostile(workers, [f"{SERVER}:20000"]) as made:
        lab, place = made.lab, (SERVER, 20000)
        early = connected(lab, "amy", place)
        session = asking(lab, "amy", 1)
        assert entries(made) == [f"{SERVER},tcp:20000,{ADDRESS['amy']}"]
        assert download(lab, early) < FEW
        assert download(lab, connected(lab, "amy", place)) < FEW
        assert download(lab, connected(lab, "alice", place)) == 0, "nobody redirected her"
        unknown = f"{SERVER},tcp:20000,{ADDRESS['alice']}"
        lab.run("A", "sh", "-c", kernel_sets.change("add", "nfreaim_srv", unknown, 600))
        assert download(lab, connected(lab, "alice", place)) < FEW
        eventually(made.offloaded)
        session.close()
