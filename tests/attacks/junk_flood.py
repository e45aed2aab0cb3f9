"""Data of no connection, sent to port 5190 by a LAN host, stall the sessions of other hosts.

amy sends packets with 60,000 source ports that belong to no connection; there is no handshake that a limit
could count. alice's keep-alives, in a session of her own, must not wait behind them.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.attacks.kit import say, verdict

# isort: split
from tests.attacks import network
from tests.lab.impair import offloads_off
from tests.lab.net import ADDRESS
from tests.lab.scene import scene
from tests.tcp.packets import PSH_ACK, packet

SECONDS = 12


def main() -> None:
    with scene() as made:
        lab = made.lab
        offloads_off(lab)
        made.clients(made.server(), ("alice", "Alice"), ("bob", "Bobby"))
        network.serve(network.listen(lab, "bob"), network.echo)
        alice = network.KeepAlives(network.sign_on(lab, "alice", "bob"))
        source, target = ADDRESS["amy"], (ADDRESS["server"], 5190)
        packets = [packet((source, 1024 + n), target, n << 8, 77, PSH_ACK, b"junk") for n in range(60000)]
        with network.Flood(lab, "amy", packets) as flood:
            took = alice.measure(SECONDS)
        say(f"{flood.rate(took)}; {alice}; queue {network.queues(lab)}")
    worst, rate = alice.longest, flood.sent / took
    verdict(worst > 0.5, f"another host's keep-alive takes up to {worst:.2f} s at {rate:.0f} packets/s")


if __name__ == "__main__":
    main()
