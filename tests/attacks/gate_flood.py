"""SYNs from outside to one open port, as fast as they come, stall the sessions of other hosts.

alice's pinhole is open and gated; the SYNs have 60,000 source ports of an address that nobody has. amy's
keep-alives, in a session of her own, must not wait behind them.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.attacks.kit import say, verdict

# isort: split
from tests.attacks import network
from tests.lab.impair import offloads_off
from tests.lab.scene import eventually, scene
from tests.lab.standin import Transfer
from tests.tcp.packets import SYN, mss, packet

SECONDS = 12


def main() -> None:
    with scene() as made:
        lab = made.lab
        offloads_off(lab)
        alice, bob = made.clients(made.server(), ("alice", "Alice"), ("bob", "Bobby"))
        bob.call("policy", action="ignore")
        network.serve(network.listen(lab, "bob"), network.echo)
        amy = network.KeepAlives(network.sign_on(lab, "amy", "bob"))
        Transfer(alice, bob, "file")
        pinhole = eventually(lambda: next(iter(made.pinholes()), None))
        assert pinhole is not None
        target = network.ROUTER, int(pinhole.outside.rsplit(":")[1])
        packets = [
            packet(("203.0.113.66", 1024 + n), target, n << 8, 0, SYN, tcp_options=mss(1460))
            for n in range(60000)
        ]
        with network.Flood(lab, "server", packets) as flood:
            took = amy.measure(SECONDS)
        say(f"{flood.rate(took)}; {amy}; queue {network.queues(lab)}")
    worst, rate = amy.longest, flood.sent / took
    verdict(worst > 0.5, f"another host's keep-alive takes up to {worst:.2f} s at {rate:.0f} SYNs/s")


if __name__ == "__main__":
    main()
