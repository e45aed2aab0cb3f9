"""Half-open connections lock every host's peers out: 4,200 SYNs with a source that nobody has.

The SYNs go to alice's open port, which is gated; alice answers each (a host without room for them sends SYN
cookies). Then alice's real peer and amy's, another host, call and speak. Both must get in, at once and
LATER seconds later.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.attacks.kit import say, verdict

# isort: split
from tests.attacks import network, peers
from tests.lab.forged import Sender
from tests.lab.impair import offloads_off
from tests.lab.scene import Scene, scene
from tests.tcp.packets import SYN, mss, packet

COUNT = 4200
SECONDS = 2.2  # in which they are sent
LATER = int(os.environ.get("LATER", "75"))


def throw(made: Scene) -> None:
    """The SYNs."""
    target = network.ROUTER, peers.PORTS["alice"]
    packets = [
        packet(("203.0.113.66", 1024 + n), target, n << 8, 0, SYN, tcp_options=mss(1460))
        for n in range(COUNT)
    ]
    with Sender(made.lab, "server") as stranger:
        for first in range(0, COUNT, 100):
            stranger(*packets[first : first + 100])
            time.sleep(SECONDS * 100 / COUNT)


def main() -> None:
    seen: dict[str, str] = {}
    with scene() as made:
        lab = made.lab
        offloads_off(lab)
        alice, amy, bob = made.clients(
            made.server(), ("alice", "Alice"), ("amy", "Amy", 5300), ("bob", "Bobby")
        )
        bob.call("policy", action="ignore")
        with peers.offered(made, alice, "alice") as first, peers.offered(made, amy, "amy") as second:
            throw(made)
            half = network.conntrack(lab, "--state", "SYN_RECV").count("\n")
            say(f"{COUNT} SYNs; some {half} half-open entries in conntrack")
            seen["alice's peer"] = peers.peer(made, "alice", first)
            seen["amy's peer"] = peers.peer(made, "amy", second)
            say(f"at once: {seen}")
        if LATER:
            time.sleep(LATER)
            left = network.conntrack(lab, "--state", "SYN_RECV").count("\n")
            peers.COOKIES.update(alice=b"cookieC\0", amy=b"cookieD\0")
            peers.PORTS.update(alice=6003, amy=6004)
            with peers.offered(made, alice, "alice") as first, peers.offered(made, amy, "amy") as second:
                seen["alice's later"] = peers.peer(made, "alice", first)
                seen["amy's later"] = peers.peer(made, "amy", second)
            say(f"{LATER} s later, with some {left} half-open entries: {seen}")
        say("log: " + network.last_lines(made, "pinhole claimed", "refused", "half", "gave way"))
    kept = {name: what for name, what in seen.items() if what}
    text = f"{COUNT} SYNs; real peers that are kept out: {kept or 'none'}"
    verdict(bool(kept), text, control=half > COUNT * 0.9)


if __name__ == "__main__":
    main()
