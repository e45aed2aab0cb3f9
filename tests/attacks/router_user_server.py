"""A plain user of the router opens pinholes to LAN hosts.

A program of user 65534, without groups and capabilities, listens on port 5190 of the router, where INPUT
lets that port in, and relays to an accomplice outside that "eve" offers ports of alice's, with 0x0003 =
0x0004 = alice. Nothing of alice's must become reachable.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.attacks.kit import say, verdict

# isort: split

from tests.attacks import network, wire
from tests.attacks.inside_server import router_user
from tests.lab import home
from tests.lab.net import ADDRESS, Lab
from tests.lab.scene import Scene


def play(made: Scene) -> tuple[list[str], bytes]:
    """What the user's server opens of alice's, and what a host outside hears then."""
    lab = made.lab
    with router_user(lab) as user:
        for number, port in enumerate(range(network.PORT, network.PORT + 4)):
            cookie = b"cookie%d\0" % number
            user.tell(wire.relayed(ADDRESS["alice"], port, 3 + number, cookie, secure=True))
        time.sleep(0.5)
        opened = sorted(pinhole.inside for pinhole in made.pinholes())
        got = network.reach(lab, "server")
        say(f"opened: {opened}; a host outside hears {got!r}")
        return opened, got


def main() -> None:
    with Lab() as lab:
        home.open_port(lab)
        made = Scene(lab)
        made.restart()
        network.service(lab, "alice", *range(network.PORT, network.PORT + 4))
        say(f"before: {network.reach(lab, 'server', seconds=2)!r}")
        opened, got = play(made)
        say("log: " + network.last_lines(made, "pinhole", "left"))
        made.daemon.stop()
        made.restart(settings=network.trusting('home_server_users = ["65534"]'))
        named, _ = play(made)
    text = f"ports of alice that a user opened: {opened}, heard {got!r}; if the user is named: {named}"
    verdict(bool(opened) or b"alice's" in got, text, control=bool(named))


if __name__ == "__main__":
    main()
