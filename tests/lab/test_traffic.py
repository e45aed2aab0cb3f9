"""Traffic on the servers' port that is not OSCAR, or not the router's to read: it passes unread."""

from __future__ import annotations

import random
import socket

import pytest

from tests.lab.namespace import socket_in
from tests.lab.net import ADDRESS, LAN, WAN
from tests.lab.scene import eventually, scene
from tests.lab.sockets import HTTP, connect, listener, pour
from tests.oscar.flap import numbered
from tests.oscar.peer_headers import PROMPT, oft_header
from tests.oscar.signon import KEEPALIVE, hello

MEGABYTE = 1 << 20
SIGN_ON = hello(1)
KEEP_ALIVE = numbered(KEEPALIVE, 2)


RANDOM = random.Random(8).randbytes(2 * MEGABYTE)
STARS = b"*" * (10 * MEGABYTE)
HELLO = bytes.fromhex("160301010001000100fc0303") + RANDOM[:245]
# What the two ends say first, and then in bulk.
CONVERSATIONS: dict[str, tuple[bytes, bytes, bytes, bytes]] = {
    "tls": (HELLO, b"\x16\x03\x03\x00\x7a" + RANDOM[:122], RANDOM, RANDOM[::-1]),
    "http": (HTTP, b"HTTP/1.1 200 OK\r\n\r\n", RANDOM[:1000], RANDOM),
    "asterisks": (b"*" * 100, b"*" * 100, STARS, STARS),
    "file to a peer's port 5190": (
        oft_header(PROMPT, bytes(8), len(RANDOM), 0, "f.bin"),
        b"OFT2",
        RANDOM,
        b"x",
    ),
    "one byte first": (b"*", b"*", b"\xff" + RANDOM, RANDOM),
}


def test_what_is_not_oscar_passes_byte_for_byte_and_leaves_the_queue() -> None:
    with scene() as made, listener(made, "bob", ADDRESS["bob"]) as server:
        for what, (asks, answers, up, down) in CONVERSATIONS.items():
            client, accepted = connect(made, "alice", ADDRESS["bob"], server)
            with client, accepted:
                pour(client, accepted, asks)
                pour(accepted, client, answers)
                pour(client, accepted, up[:8])
                entry = f"10.0.0.5,tcp:{client.getsockname()[1]},{ADDRESS['bob']}"
                eventually(lambda entry=entry: entry in made.offloaded())  # type: ignore[misc]
                before = made.queued()
                pour(client, accepted, up[8:])
                pour(accepted, client, down)
                assert made.queued() == before, what
        made.daemon.stop()
        assert f"foreign_flows={len(CONVERSATIONS)}" in made.daemon.log_text()


def test_flap_connection_from_the_port_of_an_offloaded_one_is_read_again() -> None:
    with scene() as made, listener(made, "bob", ADDRESS["bob"]) as server:
        client, accepted = connect(made, "alice", ADDRESS["bob"], server)
        port = client.getsockname()[1]
        pour(client, accepted, HTTP)
        eventually(made.offloaded)
        for end in (accepted, client):  # the server goes first, so that its side keeps no TIME_WAIT from us
            end.close()
        again = socket_in(made.lab, "alice")
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind((ADDRESS["alice"], port))
        again.connect((ADDRESS["bob"], 5190))
        accepted, _ = server.accept()
        with again, accepted:
            assert made.offloaded() == []
            for source, sink in ((accepted, again), (again, accepted)):
                pour(source, sink, SIGN_ON)
            before = made.queued()
            for _ in range(20):
                pour(again, accepted, KEEP_ALIVE)
                pour(accepted, again, KEEP_ALIVE)
            assert made.queued() >= before + 40
            assert made.offloaded() == []


def test_connection_older_than_the_daemon_passes_and_leaves_the_queue() -> None:
    with scene() as made, listener(made, "bob", ADDRESS["bob"]) as server:
        client, accepted = connect(made, "alice", ADDRESS["bob"], server)
        with client, accepted:
            pour(client, accepted, SIGN_ON)
            pour(accepted, client, SIGN_ON)
            assert made.daemon.stop() == 0
            pour(client, accepted, KEEP_ALIVE)
            made.restart()
            pour(client, accepted, KEEP_ALIVE)
            eventually(made.offloaded)
            before = made.queued()
            pour(client, accepted, RANDOM)
            pour(accepted, client, RANDOM)
            assert made.queued() == before


@pytest.mark.parametrize("bridged", [0, 1], ids=["bridge", "bridge-calls-iptables"])
def test_traffic_that_does_not_cross_the_router_is_never_queued(bridged: int) -> None:
    with scene() as made:
        setting = "/proc/sys/net/bridge/bridge-nf-call-iptables"
        set_it = made.lab.run("A", "sh", "-c", f"echo {bridged} > {setting}", check=False)
        if set_it.returncode:
            pytest.skip(f"no {setting}: {set_it.stderr}")
        ways: dict[str, tuple[str, str, str]] = {
            "host to host": ("alice", "amy", ADDRESS["amy"]),
            "host to router": ("alice", "A", LAN["A"]),
            "host to router's outside address": ("alice", "A", WAN["A"]),
            "router to host": ("A", "alice", ADDRESS["alice"]),
            "router to the Internet": ("A", "bob", ADDRESS["bob"]),
        }
        before = made.queued()
        for what, (node, other, address) in ways.items():
            with listener(made, other, address) as server:
                client, accepted = connect(made, node, address, server)
                with client, accepted:
                    for data in (SIGN_ON, RANDOM):
                        pour(client, accepted, data)
                        pour(accepted, client, data)
            assert made.queued() == before, what
