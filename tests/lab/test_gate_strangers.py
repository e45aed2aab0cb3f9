"""Strangers at open pinholes, in a real kernel: they shut nobody out, and keep nothing beyond the pinhole."""

from __future__ import annotations

import contextlib
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from nfreaim.marks import DEFAULT
from tests.lab.forged import Forger, Sender
from tests.lab.impair import offloads_off
from tests.lab.namespace import socket_in
from tests.lab.net import ADDRESS
from tests.lab.scene import Scene, eventually, scene
from tests.lab.standin import Client
from tests.oscar import peer_headers as peer
from tests.oscar import rendezvous as rdv
from tests.oscar.icbm import icbm_to_server
from tests.oscar.profiles import PROFILES, Offer
from tests.oscar.tlv import tlvs
from tests.tcp.packets import ACK, SYN, mss, packet

OUTSIDE = "203.0.113.1"
COOKIE = b"4711471\0"
MARKED = f"mark={DEFAULT.pinhole | DEFAULT.unverified} "
GREETING = peer.odc_frame(COOKIE, "Bobby Tables", flags=peer.CONFIRM)
MD5 = bytes([1, 1, 19, 18]) + bytes(16)
"""TCP option 19: a Linux host drops such a SYN without an answer, and it stays in connection tracking."""
TALK = rdv.TALK  # nobody knows how its peers begin


HELLO = bytes.fromhex("16030100f8010000f40303") + bytes(242)


def offered(
    made: Scene, client: Client, node: str, port: int, capability: bytes = rdv.DIRECT_IM
) -> socket.socket:
    """What listens on *node*'s port, which *client* has proposed."""
    listener = socket_in(made.lab, node)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("0.0.0.0", port))
    listener.listen(512)
    offer = Offer(COOKIE, capability, ADDRESS[node], port)
    body = PROFILES["libpurple"].proposal("Bobby Tables", offer)
    client.call("send_snac", family=4, subtype=6, body=body.hex())
    eventually(lambda: made.pinhole_of(f"{ADDRESS[node]}:{port}"))
    return listener


def withdrawn(made: Scene, client: Client, node: str, port: int, capability: bytes = rdv.DIRECT_IM) -> None:
    block = rdv.rdv_block(rdv.CANCEL, COOKIE, capability)
    body = icbm_to_server(COOKIE, 2, "Bobby Tables", tlvs([(5, block)]))
    client.call("send_snac", family=4, subtype=6, body=body.hex())
    eventually(lambda: not made.pinhole_of(f"{ADDRESS[node]}:{port}"))


def gets_in(made: Scene, listener: socket.socket, port: int, node: str = "bob") -> bool:
    """Whether a peer on *node* is heard by what listens behind the pinhole."""
    with socket_in(made.lab, node) as caller:
        caller.settimeout(5.0)
        try:
            caller.connect((OUTSIDE, port))
            caller.sendall(GREETING)
        except OSError:
            return False
        own = caller.getsockname()
        while True:  # others may be before it
            try:
                host, who = listener.accept()
            except OSError:
                return False
            with host:
                if who == own:
                    host.settimeout(5.0)
                    return host.recv(len(GREETING)) == GREETING


@contextmanager
def signed_on(settings: str = "") -> Iterator[tuple[Scene, Client, Client]]:
    with scene(settings=settings) as made:
        offloads_off(made.lab)
        bob, alice, amy = made.clients(
            made.server(), ("bob", "Bobby Tables"), ("alice", "Alice"), ("amy", "Amy", 5300)
        )
        bob.call("policy", action="ignore")
        yield made, alice, amy


def tracked(made: Scene, port: int) -> str:
    return made.lab.run("A", "conntrack", "-L", "-p", "tcp", "--orig-port-src", str(port), check=False).stdout


def test_half_open_flood_from_a_source_that_nobody_has_shuts_no_peer_out() -> None:
    with signed_on() as (made, alice, amy):
        one = offered(made, alice, "alice", 5400)
        other = offered(made, amy, "amy", 5401)
        for listener in (one, other):
            listener.settimeout(5.0)
        made.lab.run(
            "alice", "sysctl", "-qw", "net.ipv4.tcp_max_syn_backlog=65535", "net.core.somaxconn=65535"
        )
        queued = made.queued()
        with Sender(made.lab, "server") as flood:
            for number in range(4500):
                source = ("203.0.113.66", 1024 + number)
                flood(packet(source, (OUTSIDE, 5400), number << 8, 0, SYN, tcp_options=mss(1460)))
        assert gets_in(made, one, 5400)
        assert gets_in(made, other, 5401)
        assert made.queued() - queued < 4500 * 3, "SYN/ACKs and their repetitions at most, no SYN"
        for listener in (one, other):
            listener.close()


def test_silent_connections_from_31_addresses_shut_no_peer_out() -> None:
    with signed_on() as (made, alice, amy):
        one = offered(made, alice, "alice", 5400)
        other = offered(made, amy, "amy", 5401)
        made.lab.run("alice", "sysctl", "-qw", "net.core.somaxconn=4096")
        sources = [f"203.0.113.{number}" for number in range(100, 131)]
        for source in sources:
            made.lab.run("server", *f"ip address add {source}/24 dev eth0".split())
        silent: list[socket.socket] = []
        with contextlib.ExitStack() as stack:
            for source in sources * 5:
                caller = stack.enter_context(socket_in(made.lab, "server"))
                caller.bind((source, 0))
                caller.settimeout(5.0)
                caller.connect((OUTSIDE, 5400))
                silent.append(caller)
            for listener in (one, other):
                listener.settimeout(5.0)
            assert gets_in(made, one, 5400)
            assert gets_in(made, other, 5401)
            # All but the latest are reset after some seconds.
            until = time.monotonic() + 30

            done: set[int] = set()
            while len(done) < len(silent) - 1 and time.monotonic() < until:
                for number, caller in enumerate(silent):
                    if number not in done and has_ended(caller):
                        done.add(number)
                time.sleep(0.2)
            assert len(done) >= len(silent) - 1
        assert "gave way" in made.daemon.log_text() or "said too little" in made.daemon.log_text()
        for listener in (one, other):
            listener.close()


def has_ended(end: socket.socket) -> bool:
    """Whether the connection was reset or closed."""
    state = end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
    return state[0] != 1  # TCP_ESTABLISHED


def test_what_waits_is_reset_at_both_ends_when_its_pinhole_closes() -> None:
    with signed_on() as (made, alice, _):
        listener = offered(made, alice, "alice", 5400)
        with socket_in(made.lab, "server") as caller:
            caller.connect((OUTSIDE, 5400))
            host, _ = listener.accept()
            with host:
                eventually(lambda: MARKED in tracked(made, caller.getsockname()[1]))
                time.sleep(0.1)  # the announcement of connection tracking
                withdrawn(made, alice, "alice", 5400)
                for end in (caller, host):
                    end.settimeout(5.0)
                    with pytest.raises(ConnectionResetError):
                        end.recv(1)
        listener.close()


def hold(made: Scene, port: int, number: int) -> Forger:
    """A stranger that has sent a SYN which the inside host drops; connection tracking remembers it."""
    stranger = Forger(made.lab, "server", ("203.0.113.66", number), (OUTSIDE, port))
    stranger.__enter__()
    stranger(stranger.made(SYN, tcp_options=mss(1460) + MD5))
    eventually(lambda: "SYN_SENT" in tracked(made, number))
    return stranger


def is_answered(stranger: Forger) -> bool:
    """Whether a plain SYN of the same ports gets an answer."""
    stranger(stranger.made(SYN, tcp_options=mss(1460)))
    try:
        stranger.await_packet(lambda flags, _: flags == SYN | ACK, 2.0)
    except AssertionError:
        return False
    return True


@pytest.mark.parametrize("capability", [rdv.DIRECT_IM, TALK], ids=["gated", "ungated"])
def test_syn_held_in_reserve_connects_no_more_once_the_pinhole_is_closed_or_narrowed(
    capability: bytes,
) -> None:
    gated = capability == rdv.DIRECT_IM
    with signed_on() as (made, alice, amy):
        closing = offered(made, alice, "alice", 5400, capability)
        narrowing = offered(made, amy, "amy", 5401, capability)
        held = [hold(made, 5400, 41001), hold(made, 5401, 41002), hold(made, 5401, 41003)]
        assert is_answered(held[2]), "it is open still"
        withdrawn(made, alice, "alice", 5400, capability)
        with socket_in(made.lab, "bob") as caller:
            caller.connect((OUTSIDE, 5401))
            caller.sendall(GREETING)
            if gated:
                eventually(lambda: any(one.peer == ADDRESS["bob"] for one in made.pinholes()))
            else:  # nobody can tell whether he is the peer, and it admits others, too
                made.daemon.wait_log("5401 by 203.0.113.20")
            assert not is_answered(held[0])
            assert is_answered(held[1]) is not gated
            caller.sendall(b"more")  # the one that was complete lives on
        for port in (41001, 41002) if gated else (41001,):
            eventually(lambda port=port: "SYN" not in tracked(made, port))  # type: ignore[misc]
        for stranger in held:
            stranger.__exit__(None, None, None)
        for listener in (closing, narrowing):
            listener.close()


def test_ack_held_in_reserve_completes_nothing_once_the_pinhole_is_closed() -> None:
    with signed_on() as (made, alice, _):
        listener = offered(made, alice, "alice", 5400, TALK)
        with Forger(made.lab, "server", ("203.0.113.66", 41001), (OUTSIDE, 5400)) as stranger:
            stranger.connect()
            withdrawn(made, alice, "alice", 5400, TALK)
            stranger.send(ACK)
            stranger.send(ACK, b"hello")
            listener.settimeout(1.0)
            with pytest.raises(TimeoutError):
                listener.accept()
        listener.close()


@pytest.mark.parametrize("capability", [rdv.DIRECT_IM, TALK], ids=["gated", "ungated"])
def test_nothing_completes_after_the_kernel_closed_the_pinhole_of_a_dead_daemon(capability: bytes) -> None:
    with signed_on("[pinholes]\nlifetime = 6\n") as (made, alice, amy):
        one = offered(made, alice, "alice", 5400, capability)
        two = offered(made, amy, "amy", 5401, capability)
        syn = hold(made, 5400, 41001)
        with Forger(made.lab, "server", ("203.0.113.66", 41002), (OUTSIDE, 5401)) as ack:
            ack.connect()
            made.daemon.kill()
            eventually(lambda: not made.pinholes(), 30)
            assert not is_answered(syn)
            ack.send(ACK)
            ack.send(ACK, GREETING)
            two.settimeout(1.0)
            with pytest.raises(TimeoutError):
                two.accept()
            made.restart(settings="[pinholes]\nlifetime = 6\n")
            assert not is_answered(syn)
            # What the dead daemon left is deleted: the port may be opened for another host.
            eventually(lambda: "SYN" not in tracked(made, 41001))
        syn.__exit__(None, None, None)
        for listener in (one, two):
            listener.close()


def test_forward_of_the_configuration_needs_no_entry_in_the_set() -> None:
    """Its connections have the connmark of pinholes, too: a second SYN, and what follows, has to pass."""
    forward = '[[forward]]\nhost = "10.0.0.5"\nports = 20000\n'
    with signed_on(forward) as (made, _, _), socket_in(made.lab, "alice") as listener:
        listener.bind(("0.0.0.0", 20000))
        listener.listen(5)
        lost = "PREROUTING -p tcp --dport 20000 --syn -m limit --limit 1/hour --limit-burst 1 -j DROP"
        made.lab.run("alice", "iptables-legacy", "-t", "raw", "-A", *lost.split())
        with socket_in(made.lab, "bob") as caller:
            caller.settimeout(10.0)
            caller.connect((OUTSIDE, 20000))
            host, _ = listener.accept()
            with host:
                caller.sendall(b"hello")
                assert host.recv(5) == b"hello"


def test_link_that_will_be_tls_is_said_to_be_unverified_and_takes_no_other_first_bytes() -> None:
    with signed_on() as (made, alice, _):
        listener = socket_in(made.lab, "alice")
        listener.bind(("0.0.0.0", 5400))
        listener.listen(5)
        profile = PROFILES["libpurple"]
        inner = [*profile.inner(Offer(COOKIE, rdv.DIRECT_IM, ADDRESS["alice"], 5400)), (0x0011, b"")]
        block = rdv.rdv_block(rdv.PROPOSE, COOKIE, rdv.DIRECT_IM, tlvs(inner))
        body = icbm_to_server(COOKIE, 2, "Bobby Tables", tlvs([(5, block)]))
        alice.call("send_snac", family=4, subtype=6, body=body.hex())
        eventually(lambda: made.pinhole_of("10.0.0.5:5400"))
        made.daemon.wait_log("5400 for direct-im of")
        for first, right in ((b"GET / HTTP/1.1\r\n\r\n", False), (GREETING, False), (HELLO, True)):
            with socket_in(made.lab, "bob") as caller:
                caller.connect((OUTSIDE, 5400))
                host, _ = listener.accept()
                with host:
                    host.settimeout(5.0)
                    caller.sendall(first)
                    if right:
                        assert host.recv(4096) == first
                        made.daemon.wait_log("by 203.0.113.20, peers unverified (tls)")
                    else:
                        with pytest.raises(ConnectionResetError):
                            host.recv(1)
        assert "for direct-im of " in made.daemon.log_text()
        listener.close()


def test_capability_that_nobody_knows_gets_no_pinhole_unless_it_is_allowed() -> None:
    unknown = b"nobody knows it!"
    with signed_on() as (made, alice, _):
        offer = Offer(COOKIE, unknown, ADDRESS["alice"], 5400)
        body = PROFILES["libpurple"].proposal("Bobby Tables", offer).hex()
        alice.call("send_snac", family=4, subtype=6, body=body)
        made.daemon.wait_log(
            f'is not known; to allow it, write also = ["{uuid.UUID(bytes=unknown)}"] in [services]'
        )
        assert not made.pinholes()
        made.daemon.stop()
        made.restart(settings=f'[services]\nalso = ["{unknown.hex()}"]\n')
        again = Client(made.lab, "alice", "Alice again")
        again.wait_ready()
        again.sign_on("203.0.113.9:5190")
        again.call("send_snac", family=4, subtype=6, body=body)
        eventually(lambda: made.pinhole_of("10.0.0.5:5400"))
