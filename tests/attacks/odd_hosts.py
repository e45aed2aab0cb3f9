"""A server inside that vouches for hosts and ports that nothing may lead to.

The router's own addresses, loopback, broadcast, multicast, hosts outside, ports that are denied. None of
them must get a pinhole; the configuration names the server, and a control
shows that it is believed.
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

HOSTS = (
    *("10.0.0.1", "203.0.113.1", "127.0.0.1", "127.1.2.3", "0.0.0.0", "10.0.0.255", "255.255.255.255"),
    *("224.0.0.1", "203.0.113.9", "203.0.113.20", "192.168.7.5", "169.254.1.1"),
)
PORTS = (0, 1, 22, 80, 443, 445, 1023, 3306, 3389, 5000, 5900, 8080, 9100, 27017)
ODD = [*((host, network.PORT) for host in HOSTS), *((ADDRESS["alice"], port) for port in PORTS)]
CONTROL = f"{ADDRESS['alice']}:{network.PORT}"


def main() -> None:
    with Lab() as lab:
        home.forward(lab, inside=ADDRESS["amy"])
        made = Scene(lab)
        made.restart(settings=network.trusting(f'home_servers = ["{ADDRESS["amy"]}"]'))
        with network.vouching(lab, "amy") as (amy, accomplice):
            for number, (host, port) in enumerate(ODD):
                amy.sendall(wire.relayed(host, port, 3 + number, b"%07d\0" % number, secure=True))
                accomplice.recv(1000)
                time.sleep(0.1)
            amy.sendall(wire.relayed(ADDRESS["alice"], network.PORT, 3 + len(ODD), b"control\0", secure=True))
            time.sleep(0.5)
            opened = {pinhole.inside for pinhole in made.pinholes()}
        left = sum("left alone" in line for line in made.daemon.log_text().splitlines())
        say(f"opened: {opened}; {left} left alone; the control: {CONTROL in opened}")
    odd = opened - {CONTROL}
    verdict(bool(odd), f"{len(ODD)} odd destinations, opened {sorted(odd)}", control=CONTROL in opened)


if __name__ == "__main__":
    main()
