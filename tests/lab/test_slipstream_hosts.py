"""Whole sessions in another LAN host's name, which wait for their moment: nothing opens, for no host.

amy speaks in alice's name with a server outside that is her accomplice. alice resets what she did not ask
for, or is kept silent; connection tracking forgets the connection, or takes it up again amid it; then amy
proposes.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator

import pytest

from tests.attacks.forged_session import FORGETTING, MD5, Session
from tests.lab.capture import Capture
from tests.lab.forged import Forger, Sender
from tests.lab.net import ADDRESS, SERVER, WAN
from tests.lab.scene import eventually
from tests.lab.slipstream import PORT, Hostile
from tests.lab.standin import Client, Transfer
from tests.tcp.packets import ACK, RST, SYN, checked, mss, packet

_numbers = itertools.count()
standing = pytest.mark.parametrize("standing", [False, True], ids=["file", "icq"])


@contextlib.contextmanager
def silent(hostile: Hostile, port: int) -> Iterator[None]:
    """alice's own firewall drops what comes to *port*. Its rule goes with the test: it reads ports, so it
    drops each packet of any port whose first fragment ends within the TCP header.
    """
    rule = f"PREROUTING -p tcp --dport {port} -j DROP".split()
    hostile.made.lab.run("alice", *"iptables-legacy -t raw -A".split(), *rule)
    try:
        yield
    finally:
        hostile.made.lab.run("alice", *"iptables-legacy -t raw -D".split(), *rule)


@contextlib.contextmanager
def signed_on(hostile: Hostile, options: bytes = b"", firewall: bool = False) -> Iterator[Session]:
    """A forged session, signed on. *options* are on each of the server's segments; *firewall*: alice's own
    drops them. Nothing may open while it lasts, or behind it."""
    lab, number = hostile.made.lab, next(_numbers)
    own = (ADDRESS["alice"], 35000 + number)
    with (
        silent(hostile, own[1]) if firewall else contextlib.nullcontext(),
        hostile.attack(),
        Forger(lab, "bob", (f"203.0.113.{100 + number}", 5190)) as server,
        Sender(lab, "amy") as forger,
    ):
        one = Session(forger, server, own, options)
        one.sign_on()
        yield one


def forgotten(hostile: Hostile, one: Session) -> None:
    """Make connection tracking forget this connection, as a flush does."""
    words = f"conntrack -D -p tcp --orig-src {one.own[0]} --orig-port-src {one.own[1]}"
    hostile.made.lab.run("A", *words.split(), check=False)


def unknown(hostile: Hostile, one: Session) -> bool:
    """Whether connection tracking has no entry of this connection."""
    words = f"conntrack -L -p tcp --orig-src {one.own[0]} --orig-port-src {one.own[1]}"
    return not hostile.made.lab.run("A", *words.split(), check=False).stdout.strip()


def asks(hostile: Hostile, one: Session, standing: bool) -> None:
    """amy asks for alice's port, and the router has had it for a second."""
    with Capture(hostile.made.lab, "A", "p-amy") as wire:
        one.ask(PORT, standing)
        eventually(lambda: any(p.ports[0] == one.own[1] and p.payload for p in list(wire.packets)))
    time.sleep(1.0)


@standing
def test_host_that_answers_with_resets_until_the_connection_is_forgotten(
    hostile: Hostile, standing: bool
) -> None:
    with Capture(hostile.made.lab, "A", "p-alice") as wire, signed_on(hostile) as one:
        assert any(not p.leaving and p.flags & RST and p.ports[0] == one.own[1] for p in list(wire.packets))
        time.sleep(FORGETTING)
        assert unknown(hostile, one)
        asks(hostile, one, standing)


@standing
def test_host_that_answers_with_resets_and_a_flush(hostile: Hostile, standing: bool) -> None:
    with signed_on(hostile) as one:
        forgotten(hostile, one)
        asks(hostile, one, standing)


@standing
@pytest.mark.parametrize("between", ["nothing", "flush", "flush and more of both sides"])
@pytest.mark.parametrize("silence", ["option 19", "firewall"])
def test_host_that_is_silent(hostile: Hostile, silence: str, between: str, standing: bool) -> None:
    """Connection tracking holds an established connection, or none, or one that it took up amid it."""
    options = MD5 if silence == "option 19" else b""
    with signed_on(hostile, options, firewall=silence == "firewall") as one:
        if between != "nothing":
            forgotten(hostile, one)
        if between == "flush and more of both sides":
            one.pick_up()
            assert not unknown(hostile, one)
        asks(hostile, one, standing)


def port_of(hostile: Hostile, client: Client) -> int:
    """The port of a client's control connection, in place of the luck that a forger would need."""
    with Capture(hostile.made.lab, "A", "p-alice") as wire:
        client.call("keep_alive")

        def ports() -> list[int]:
            sent = [p for p in list(wire.packets) if not p.leaving and p.payload.startswith(b"\x2a\5")]
            return [p.ports[0] for p in sent]

        return eventually(ports)[0]


@pytest.mark.parametrize("third", [False, True], ids=["a pair", "and the third packet"])
@pytest.mark.parametrize("mortal", [False, True], ids=["to the server", "dies at the router"])
def test_beginning_forged_under_a_living_session(hostile: Hostile, mortal: bool, third: bool) -> None:
    """A SYN in a host's name, and a SYN/ACK that fits it in the server's name from outside: conntrack
    believes them, and refuses the host's own packets for a minute. The session's pinhole stays."""
    lab = hostile.made.lab
    victim = Client(lab, "alice", "Victim", first_port=5196)
    try:
        victim.wait_ready()
        victim.sign_on(hostile.server)
        transfer = Transfer(victim, hostile.other, "file", patience=60.0)
        (pinhole,) = eventually(hostile.made.pinholes)
        own, server = (ADDRESS["alice"], port_of(hostile, victim)), (SERVER, 5190)
        syn = packet(own, server, 0x5000, 0, SYN, tcp_options=mss(1460))
        if mortal:
            syn = checked(syn[:8] + b"\1" + syn[9:])
        back = (WAN["A"], own[1])
        with Sender(lab, "amy") as amy, Sender(lab, "bob") as accomplice:
            amy(syn)
            time.sleep(0.1)
            accomplice(packet(server, back, 77, 0x5001, SYN | ACK, tcp_options=mss(1460)))
            time.sleep(0.1)
            if third:
                amy(packet(own, server, 0x5001, 78, ACK))
        time.sleep(1.0)
        assert hostile.made.pinholes() == {pinhole}
        assert "connection replaced" not in hostile.made.daemon.log_text()
        victim.call("cancel", cookie=transfer.cookie)
        eventually(lambda: not hostile.pinholes())
    finally:
        victim.stop()
