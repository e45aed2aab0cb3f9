"""A living session is forgotten, and its pinholes are closed, by packets with no number of it right.

Over all ports that alice's session may have: a SYN in her name from amy, a LAN host, which may die at the
router (TTL 1), and a SYN/ACK that fits that SYN. The SYN/ACK comes from an accomplice outside that forges
the server's address, or, where the firewall lets INVALID through, from amy as well. alice's pinhole must
stay open, and her next offer get one.
usage: replaced_session.py CHECKOUT [bob|amy ...]
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.attacks.kit import say, verdict

# isort: split
from collections.abc import Sequence

from tests.attacks import network
from tests.lab.forged import Sender
from tests.lab.impair import offloads_off
from tests.lab.net import ADDRESS, SERVER, Lab
from tests.lab.scene import Scene, eventually, scene
from tests.lab.standin import Client, Transfer
from tests.oscar.icbm import TEXT, icbm_to_server, text
from tests.tcp.packets import ACK, SYN, checked, mss, packet

PORTS = range(32768, 61000)
AT_ONCE = 100
RATE = 3000  # pairs a second: below what a router lets through as handshakes
TARGET = (SERVER, 5190)


def mortal(raw: bytes) -> bytes:
    """With a time to live of 1."""
    return checked(raw[:8] + b"\1" + raw[9:])


def throw(lab: Lab, node: str, answered_to: str) -> int:
    """A pair for each port, the SYN/ACK from *node* to alice's session as *answered_to* has it; the count."""
    syns = [
        mortal(packet((ADDRESS["alice"], port), TARGET, port << 8, 0, SYN, tcp_options=mss(1460)))
        for port in PORTS
    ]
    answers = [
        packet(TARGET, (answered_to, port), 77, (port << 8) + 1, SYN | ACK, tcp_options=mss(1460))
        for port in PORTS
    ]
    with Sender(lab, "amy") as amy, Sender(lab, node) as accomplice:
        for first in range(0, len(PORTS), AT_ONCE):
            amy(*syns[first : first + AT_ONCE])
            time.sleep(AT_ONCE / RATE / 2)
            accomplice(*answers[first : first + AT_ONCE])
            time.sleep(AT_ONCE / RATE / 2)
    return 2 * len(PORTS)


def arrived(client: Client) -> int:
    """How many messages have reached this client."""
    return len(client.call("received", family=4, subtype=7)["bodies"])


def goes_on(alice: Client, bob: Client) -> None:
    """Wait until a text of alice's arrives: connection tracking itself refuses her packets for a minute
    after a pair that it believed, whatever runs on the router."""
    heard, start = arrived(bob), time.monotonic()
    body = icbm_to_server(b"cookieT\0", TEXT, "Bobby", text(b"hello"))
    alice.call("send_snac", family=4, subtype=6, body=body.hex())
    eventually(lambda: arrived(bob) > heard, 150.0)
    say(f"alice's session goes on after {time.monotonic() - start:.1f} s")


def lost(made: Scene, alice: Client, bob: Client, how: tuple[str, str]) -> Sequence[str]:
    """What alice has lost when the pairs have come."""
    Transfer(alice, bob, "file", patience=300.0)
    pinhole = eventually(lambda: next(iter(made.pinholes()), None))
    assert pinhole is not None
    start = time.monotonic()
    count = throw(made.lab, *how)
    took = time.monotonic() - start
    time.sleep(1.5)
    found = []
    if made.pinhole_of(pinhole.inside) is None:
        found.append("her pinhole")
    say(f"alice's session itself: {network.conntrack(made.lab, '-s', ADDRESS['alice'])}")
    goes_on(alice, bob)
    before = made.pinholes()
    Transfer(alice, bob, "file", patience=300.0)
    time.sleep(1.5)
    if not made.pinholes() - before:
        found.append("her next offer's")
    say(f"{how[0]}: {count} packets in {took:.1f} s; lost: {found}")
    say(network.last_lines(made, "pinhole closed", "replaced", "not hold"))
    return found


def main() -> None:
    found: dict[str, Sequence[str]] = {}
    for node in sys.argv[2:] or ("bob", "amy"):
        with scene() as made:
            lab = made.lab
            offloads_off(lab)
            alice, bob = made.clients(made.server(), ("alice", "Alice"), ("bob", "Bobby"))
            bob.call("policy", action="ignore")
            answered_to = network.ROUTER
            if node == "amy":
                answered_to = ADDRESS["alice"]
                invalid = "-D FORWARD -m conntrack --ctstate INVALID -j DROP"
                lab.run("A", "iptables-legacy", *invalid.split())
                lab.run("A", "sh", "-c", "echo 0 | tee /proc/sys/net/ipv4/conf/*/rp_filter")
                lab.run("amy", *"ip route add 10.0.0.5/32 via 10.0.0.1".split())
            found[node] = lost(made, alice, bob, (node, answered_to))
    parts = ", ".join(f"{node} answers: {' and '.join(what) or 'nothing'}" for node, what in found.items())
    verdict(any(found.values()), f"what alice lost: {parts}")


if __name__ == "__main__":
    main()
