"""A LAN host with one forwarded port of its own opens pinholes to other LAN hosts.

amy, with ordinary sockets, is reachable from outside on port 5190 (by UPnP, a forward of her own, a DMZ),
and relays to an accomplice outside that "eve" offers ports of alice's, with 0x0003 = 0x0004 = alice. Not
gated (0x0011). UPnP would have let amy open her own ports only, and nothing of alice's must become
reachable.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.attacks.kit import say, verdict

# isort: split
from tests.attacks import network, wire
from tests.lab import home
from tests.lab.net import ADDRESS, Lab
from tests.lab.scene import Scene


def play(made: Scene) -> tuple[list[str], bytes]:
    """What amy's server opens of alice's, and what a host outside hears then."""
    lab = made.lab
    with network.vouching(lab, "amy") as (amy, accomplice):
        for number, port in enumerate(range(network.PORT, network.PORT + 4)):
            cookie = b"cookie%d\0" % number
            amy.sendall(wire.relayed(ADDRESS["alice"], port, 3 + number, cookie, secure=True))
            accomplice.recv(1000)
        time.sleep(0.5)
        opened = sorted(pinhole.inside for pinhole in made.pinholes())
        got = network.reach(lab, "server")
        say(f"opened: {opened}; a host outside hears {got!r}")
        return opened, got


def main() -> None:
    with Lab() as lab:
        home.forward(lab, inside=ADDRESS["amy"])  # what miniupnpd does on amy's request
        made = Scene(lab)
        made.restart()
        network.service(lab, "alice")
        say(f"before: {network.reach(lab, 'server', seconds=2)!r}")
        opened, got = play(made)
        say("log: " + network.last_lines(made, "pinhole", "left"))
        made.daemon.stop()
        made.restart(settings=network.trusting(f'home_servers = ["{ADDRESS["amy"]}"]'))
        named, _ = play(made)
    text = f"ports of alice that amy opened: {opened}; if the configuration names her server: {named}"
    verdict(bool(opened) or b"alice's" in got, text, control=bool(named))


if __name__ == "__main__":
    main()
