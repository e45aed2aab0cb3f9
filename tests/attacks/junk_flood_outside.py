"""Data of no connection, from outside to a port that is forwarded to a server at home, stall all sessions.

Anybody on the Internet sends packets with ACK and data from 60,000 ports to 5190. conntrack takes each for
a new connection, the operator's forward translates it. alice's keep-alives must not wait behind them.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.attacks.kit import say, verdict

# isort: split
from tests.attacks import network
from tests.lab import home
from tests.lab.impair import offloads_off
from tests.lab.net import Lab
from tests.lab.scene import Scene
from tests.tcp.packets import PSH_ACK, packet

SECONDS = 12


def main() -> None:
    with Lab(home_server=True) as lab:
        home.forward(lab)
        made = Scene(lab)
        made.restart()
        offloads_off(lab)
        made.clients(made.server(), ("alice", "Alice"), ("bob", "Bobby"))
        network.serve(network.listen(lab, "bob"), network.echo)
        alice = network.KeepAlives(network.sign_on(lab, "alice", "bob"))
        source, target = "203.0.113.66", (network.ROUTER, 5190)
        packets = [packet((source, 1024 + n), target, n << 8, 77, PSH_ACK, b"junk") for n in range(60000)]
        with network.Flood(lab, "server", packets) as flood:
            took = alice.measure(SECONDS)
        say(f"{flood.rate(took)}; {alice}; queue {network.queues(lab)}")
    worst, rate = alice.longest, flood.sent / took
    verdict(worst > 0.5, f"another host's keep-alive takes up to {worst:.2f} s at {rate:.0f} packets/s")


if __name__ == "__main__":
    main()
