"""New connections through a pinhole that was closed.

While the pinhole is open to everybody, an outside host sends SYNs that the inside host drops without an
answer (TCP option 19, RFC 2385, on Linux). Each leaves an entry in conntrack: SYN_SENT, translated, with
the pinhole's mark, for 120 s. Later a plain SYN of the same ports follows: nat is asked only for the first
packet of an entry. It must not connect once the pinhole has gone.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.attacks.kit import say, verdict

# isort: split
from nfreaim.core.firewall.policy import PinholePolicy
from tests.attacks import network, wire
from tests.lab.forged import Forger
from tests.lab.impair import offloads_off
from tests.lab.net import ADDRESS
from tests.lab.scene import eventually, scene
from tests.oscar import rendezvous as rdv
from tests.tcp.packets import ACK, PSH_ACK, SYN, mss

MD5 = bytes([1, 1, 19, 18]) + bytes(16)
HOLD = int(os.environ.get("HOLD", "100"))  # seconds between the SYN that is held in reserve and its use
COOKIE = b"cookie1\0"


def main() -> None:
    # A gate would refuse what is said here, and hide whether the connection is completed.
    settings = "[pinholes]\nverify_peers = false\n" if "verify_peers" in PinholePolicy.__slots__ else ""
    with scene(settings=settings) as made:
        lab = made.lab
        offloads_off(lab)
        alice, bob = made.clients(made.server(), ("alice", "Alice"), ("bob", "Bobby"))
        bob.call("policy", action="ignore")
        network.service(lab, "alice")
        body = wire.body_to_server(
            "Bobby", COOKIE, inner=wire.offer(ADDRESS["alice"], network.PORT, secure=True)
        )
        alice.call("send_snac", family=4, subtype=6, body=body.hex())
        pinhole = eventually(lambda: made.pinhole_of(f"{ADDRESS['alice']}:{network.PORT}"))
        with Forger(lab, "server", ("203.0.113.66", 40001), (network.ROUTER, network.PORT)) as stranger:
            stranger(stranger.made(SYN, tcp_options=mss(1460) + MD5))
            time.sleep(0.3)
            held = network.conntrack(lab, "--orig-port-src", "40001")
            say(f"pinhole open: {pinhole} {held}")
            with Forger(lab, "server", ("203.0.113.67", 40002), stranger.peer) as other:
                other.connect()  # from somebody else it is completed while the pinhole is open
            body = wire.body_to_server("Bobby", COOKIE, rdv.CANCEL)
            alice.call("send_snac", family=4, subtype=6, body=body.hex())
            eventually(lambda: not made.pinholes())
            fresh = network.reach(lab, "bob", seconds=2)
            say(f"pinhole closed by a cancel; a new connection from outside: {fresh!r}")
            time.sleep(HOLD)
            say(f"{HOLD} s later: " + network.conntrack(lab, "--orig-port-src", "40001"))
            connected = False
            try:
                stranger.connect()
                connected = True
                stranger.send(ACK)
                stranger.send(PSH_ACK, b"hello\n")
                stranger.await_bytes(10)
            except AssertionError as error:
                say(repr(error))
            got = stranger.got
            say(f"the stranger says hello and hears {got!r}; pinholes {made.pinholes()}")
        say("log: " + network.last_lines(made, "pinhole"))
    text = f"{HOLD} s after the pinhole was closed: connected: {connected}, heard {got!r}"
    verdict(connected or b"alice's" in got, text, control="SYN_SENT" in held)


if __name__ == "__main__":
    main()
