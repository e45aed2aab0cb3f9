"""The peer gate in a real kernel: who gets through a pinhole, who does not, and what it costs."""

from __future__ import annotations

import contextlib
import itertools
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from nfreaim.core.address import Endpoint
from tests.lab import impair
from tests.lab.forged import Forger
from tests.lab.namespace import socket_in
from tests.lab.net import ADDRESS
from tests.lab.scene import Scene, eventually, scene
from tests.lab.standin import Client, Transfer
from tests.oscar import peer_headers as peer
from tests.oscar import rendezvous as rdv
from tests.oscar.profiles import PROFILES, Offer
from tests.tcp.packets import ACK, PSH_ACK, RST, URG, cut

OUTSIDE = "203.0.113.1"
COOKIE = b"4711471\0"
GREETING = peer.odc_frame(COOKIE, "Bobby Tables", flags=peer.CONFIRM)
HTTP = b"GET / HTTP/1.1\r\nHost: 203.0.113.1\r\n\r\n"
TLS = bytes.fromhex("16030100f8010000f40303") + bytes(200)
STRANGERS = {
    "http": HTTP,
    "tls": TLS,
    "zeros": bytes(100),
    "another service": peer.oft_header(peer.ACK, COOKIE, 1, 1, "x"),
    "another cookie": peer.odc_frame(b"4711472\0", "Bobby Tables", flags=peer.CONFIRM),
    "64 KiB in one packet": HTTP + bytes(65536),
}
UNVERIFIED, PINHOLE = 0x4000000, 0x2000000


@dataclass
class Door:
    """A listener on alice that takes any number of calls, and its pinhole."""

    scene: Scene
    listener: socket.socket
    port: int

    @contextmanager
    def call(self, node: str = "bob") -> Iterator[tuple[socket.socket, socket.socket]]:
        """A connection from *node*: (its end, the listener's end)."""
        with socket_in(self.scene.lab, node) as caller:
            caller.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            caller.connect((OUTSIDE, self.port))
            host, _ = self.listener.accept()
            host.settimeout(10.0)
            with host:
                yield caller, host

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(OUTSIDE, self.port)

    def marks(self, caller: socket.socket | int) -> int:
        """The connmark of the connection with this outside end."""
        port = caller if isinstance(caller, int) else caller.getsockname()[1]
        query = f"conntrack -L -p tcp --orig-port-src {port} --orig-port-dst {self.port}"
        found = re.search(r"\bmark=(\d+)", self.scene.lab.run("A", *query.split()).stdout)
        assert found, f"no connection from port {port}"
        return int(found[1])

    def claimed(self) -> bool:
        return f"pinhole claimed: {OUTSIDE}:{self.port} " in self.scene.daemon.log_text()


_ports = itertools.count(50000)


def forger(made: Scene, target: Endpoint) -> Forger:
    """A peer on bob that sends what no operating system would, a hostile one may."""
    raw = Forger(made.lab, "bob", (ADDRESS["bob"], next(_ports)), target)
    raw.seq = 4_294_967_290  # the numbers wrap within the greeting
    return raw


def is_rst(flags: int, data: bytes) -> bool:
    return bool(flags & RST)


def door(made: Scene, alice: Client, port: int, capability: bytes = rdv.DIRECT_IM) -> Door:
    """Let *alice* propose what somebody else on her host listens for."""
    listener = socket_in(made.lab, "alice")
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("0.0.0.0", port))
    listener.listen(64)
    body = PROFILES["libpurple"].proposal("Bobby Tables", Offer(COOKIE, capability, "10.0.0.5", port))
    alice.call("send_snac", family=4, subtype=6, body=body.hex())
    eventually(lambda: made.pinhole_of(f"10.0.0.5:{port}"))
    return Door(made, listener, port)


@pytest.fixture(scope="module")
def made() -> Iterator[Scene]:
    with scene() as one:
        bob, alice, carol = one.clients(
            one.server(), ("bob", "Bobby Tables"), ("alice", "Alice", 5190), ("carol", "Carol")
        )
        bob.call("policy", action="ignore")
        one.alice, one.bob, one.carol = alice, bob, carol  # type: ignore[attr-defined]
        for chain in ("PREROUTING", "OUTPUT"):
            rule = f"-t mangle -I {chain} -p tcp -m conntrack --ctstate INVALID"
            one.lab.run("A", "iptables-legacy", *rule.split())
        yield one
        assert impair.invalid(one.lab) == 0
        log = one.daemon.log_text()
        assert "failed" not in log
        for secret in ("Bobby", "Tables", "4711471", COOKIE.hex(), "GET /"):
            assert secret not in log


@pytest.fixture(scope="module")
def alice(made: Scene) -> Client:
    return made.alice  # type: ignore[attr-defined,no-any-return]


def is_reset(end: socket.socket, *pieces: bytes) -> bool:
    """Whether the connection ends with a reset, without a byte, when these are written to it."""
    try:
        for piece in pieces:
            end.sendall(piece)
        end.recv(4096)
    except ConnectionError:
        return True
    return False


def read(end: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := end.recv(size - len(data))):
        data += more
    return data


def test_strangers_are_reset_and_the_real_peer_still_gets_in(made: Scene, alice: Client) -> None:
    one = door(made, alice, 5300)
    silent = socket_in(made.lab, "server")
    with silent, contextlib.ExitStack() as stack:
        silent.connect((OUTSIDE, 5300))
        stack.enter_context(one.listener.accept()[0])
        for what, first in STRANGERS.items():
            with one.call("server") as (caller, host):
                assert is_reset(caller, first), what
                assert is_reset(host), what
        with one.call("server") as (caller, host):  # right up to the cookie's last digit, byte by byte
            assert is_reset(caller, *(bytes([byte]) for byte in peer.odc_frame(b"4711472\0", "x")))
            got = b""
            with contextlib.suppress(ConnectionResetError):
                while more := host.recv(100):
                    got += more
            assert GREETING.startswith(got)
            assert len(got) <= 18
        assert not one.claimed()
        assert made.pinhole_of("10.0.0.5:5300")
        with one.call() as (caller, host):
            for byte in GREETING:
                caller.sendall(bytes([byte]))
            assert read(host, len(GREETING)) == GREETING
            host.sendall(b"answer")
            assert read(caller, 6) == b"answer"
            eventually(one.claimed)
            assert one.marks(caller) == PINHOLE
        assert is_reset(silent, HTTP)
    log = made.daemon.log_text()
    assert log.count("peer refused: 203.0.113.9:") == len(STRANGERS) + 2
    one.listener.close()


def test_real_clients_get_through_in_every_negotiation(made: Scene, alice: Client) -> None:
    """Alice proposes and sends, or answers with a proposal of her own and receives."""
    bob: Client = made.bob  # type: ignore[attr-defined]
    carol: Client = made.carol  # type: ignore[attr-defined]
    bob.call("policy", action="accept")
    refuse = "-I INPUT -i wan -p tcp --syn -j REJECT --reject-with tcp-reset"
    made.lab.run("B", "iptables-legacy", *refuse.split())
    before = made.daemon.log_text().count("pinhole claimed")
    others = [
        Client(made.lab, "alice", "Alice winaim", "winaim", 5400),
        Client(made.lab, "bob", "Bob winaim", "winaim", 5400),
        Client(made.lab, "carol", "Carol winaim", "winaim", 5400),
    ]
    for client in others:
        client.wait_ready()
        client.sign_on("203.0.113.9:5190")
    transfers = [
        Transfer(one, two, kind, **more)
        for one, two in ((alice, bob), (carol, alice), (others[0], others[1]), (others[2], others[0]))
        for kind, more in (("file", {"size": 300_000}), ("im", {}))
    ]
    outcomes = [transfer.outcome() for transfer in transfers]
    assert all(outcome.ok for outcome in outcomes), outcomes
    assert [one.attempt for one in outcomes] == ["direct"] * 2 + ["redirect"] * 2 + ["direct"] * 2 + [
        "redirect"
    ] * 2
    eventually(lambda: made.daemon.log_text().count("pinhole claimed") == before + len(outcomes))
    bob.call("policy", action="ignore")


def test_what_a_hostile_stack_sends_is_not_delivered_unless_it_was_checked(
    made: Scene, alice: Client
) -> None:
    one = door(made, alice, 5310)

    @contextmanager
    def begun(data: bytes = b"") -> Iterator[tuple[Forger, socket.socket]]:
        with forger(made, one.endpoint) as raw:
            raw.connect(data)
            raw.send(ACK)
            host, _ = one.listener.accept()
            with host:
                host.settimeout(10.0)
                yield raw, host

    with begun(HTTP) as (raw, host):  # data on the SYN
        raw.send(PSH_ACK, GREETING)
        assert read(host, 76) == GREETING
    with begun() as (raw, host):  # two versions of the same bytes
        raw.send(PSH_ACK, GREETING[:10])
        raw(raw.made(PSH_ACK, HTTP, off=5 - 10), raw.made(PSH_ACK, HTTP, off=76 - 10))
        raw.send(PSH_ACK, GREETING[10:])
        assert read(host, 76) == GREETING
    with begun() as (raw, host):  # fragments, the last one first within the connection's first bytes
        raw(*cut(raw.made(PSH_ACK, GREETING), 7, 24))
        assert read(host, 76) == GREETING
        raw.seq += 76
        eventually(lambda: one.marks(raw.own[1]) == PINHOLE)
    for what in ("fragments", "urgent", "far"):
        with begun() as (raw, host):
            if what == "fragments":
                raw(*cut(raw.made(PSH_ACK, HTTP), 7, 24))
            elif what == "urgent":
                raw(raw.made(PSH_ACK | URG, b"O"))
            else:
                raw(raw.made(PSH_ACK, HTTP, off=900), raw.made(PSH_ACK, bytes(900)))
            raw.await_packet(is_rst)
            assert is_reset(host), what
    with begun() as (raw, host):  # a greeting that does not arrive: a short time to live would do the same
        lost = "PREROUTING -p tcp --dport 5310 -m length --length 116 -j DROP"
        made.lab.run("alice", "iptables-legacy", "-t", "raw", "-A", *lost.split())
        for data, off in ((GREETING, 0), (HTTP, 0), (HTTP, 76)):
            raw(raw.made(PSH_ACK, data, off))
        host.settimeout(0.5)
        with pytest.raises(TimeoutError):
            host.recv(1)
        assert one.marks(raw.own[1]) == PINHOLE | UNVERIFIED
    one.listener.close()


def test_stray_ack_makes_no_way_around_the_gate(made: Scene, alice: Client) -> None:
    """Connection tracking takes it for a connection, and a later SYN with its ports for the same one."""
    one = door(made, alice, 5320)
    with forger(made, one.endpoint) as raw:
        raw(raw.made(ACK, off=1), raw.made(PSH_ACK, b"stray", off=1))
        with contextlib.suppress(AssertionError):
            raw.await_packet(is_rst, 0.5)
        raw.connect()
        raw.send(ACK)
        host, _ = one.listener.accept()
        with host:
            assert one.marks(raw.own[1]) & UNVERIFIED
            raw(raw.made(PSH_ACK, HTTP))
            host.settimeout(5.0)
            assert is_reset(host)
    one.listener.close()


def test_verified_connection_runs_past_the_queue(made: Scene, alice: Client) -> None:
    one = door(made, alice, 5330, rdv.SEND_FILE)
    size = 8_000_000
    with one.call() as (caller, host):
        before = made.queued()
        host.sendall(peer.oft_header(peer.PROMPT, bytes(8), size, 0, "f.bin"))
        caller.sendall(peer.oft_header(peer.ACK, COOKIE, size, 0, "f.bin"))
        assert len(read(host, 256)) == len(read(caller, 256)) == 256
        eventually(lambda: one.marks(caller) == PINHOLE)
        decided = made.queued()
        for source, target in ((host, caller), (caller, host)):
            received = 0
            source.setblocking(False)
            sent = 0
            block = memoryview(bytes(size))
            while received < size:
                with contextlib.suppress(BlockingIOError):
                    sent += source.send(block[sent : sent + 1_000_000])
                target.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    received += len(target.recv(1_000_000))
        # Thousands of packets carried the bytes; the control connection may have had a few of its own.
        assert made.queued() - decided <= 4
        assert decided - before <= 12
    one.listener.close()


def test_daemon_that_is_killed_in_the_middle_breaks_no_connection(made: Scene, alice: Client) -> None:
    one = door(made, alice, 5340)
    with (
        one.call() as (early, early_host),
        one.call() as (late, late_host),
        one.call() as (third, third_host),
    ):
        early.sendall(GREETING[:15])
        assert read(early_host, 15) == GREETING[:15]
        assert one.marks(early) == PINHOLE | UNVERIFIED
        made.daemon.kill()
        early.sendall(GREETING[15:])
        assert read(early_host, 61) == GREETING[15:]
        made.restart()
        third.sendall(GREETING)
        assert read(third_host, 76) == GREETING
        late.sendall(GREETING + b"and more")
        assert read(late_host, 84) == GREETING + b"and more"
        early_host.sendall(b"answer")
        assert read(early, 6) == b"answer"
        for end in (early, late, third):
            eventually(lambda end=end: one.marks(end) == PINHOLE)  # type: ignore[misc]
        with one.call() as (stranger, host):
            stranger.sendall(HTTP)
            assert is_reset(host)
        with one.call() as (caller, host):
            caller.sendall(GREETING)
            assert read(host, 76) == GREETING
            eventually(one.claimed)
    one.listener.close()


def test_gate_can_be_switched_off(made: Scene) -> None:
    made.daemon.stop()
    made.restart(settings="[pinholes]\nverify_peers = false\n")
    again = Client(made.lab, "alice", "Alice again")
    again.wait_ready()
    again.sign_on("203.0.113.9:5190")
    one = door(made, again, 5350)
    with one.call() as (caller, host):
        caller.sendall(HTTP)
        assert read(host, len(HTTP)) == HTTP
        assert one.marks(caller) == PINHOLE
    one.listener.close()
