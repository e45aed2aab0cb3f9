"""One LAN host takes every pinhole that there is, with addresses that it gives itself.

amy gives herself 33 addresses of the LAN and opens 32 pinholes from each, to a server of hers (bob).
Another host's proposal must get a pinhole all the same.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.attacks.kit import say, verdict

# isort: split
import socket

from tests.attacks import network, wire
from tests.lab.net import ADDRESS
from tests.lab.scene import scene
from tests.lab.standin import Transfer


def serve(end: socket.socket) -> None:
    """A server that greets, and never looks at what comes."""
    network.greet(end)
    time.sleep(600)


def main() -> None:
    with scene() as made:
        lab = made.lab
        network.serve(network.listen(lab, "bob"), serve)
        alice, carol = made.clients(made.server(), ("alice", "Alice"), ("carol", "Carol"))
        carol.call("policy", action="ignore")
        start = time.monotonic()
        ends = []
        for host in range(100, 133):
            address = f"10.0.0.{host}"
            lab.run("amy", "ip", "address", "add", f"{address}/24", "dev", "eth0")
            for flow in range(4):
                end = network.sign_on(lab, "amy", "bob", source=address)
                for number in range(flow * 8, flow * 8 + 8):
                    port, frame = 20000 + (host - 100) * 100 + number, 2 + number - flow * 8
                    end.sendall(wire.proposal(address, port, frame, cookie=b"%07d\0" % number))
                    time.sleep(0.002)
                ends.append(end)
        took = time.monotonic() - start
        time.sleep(1)
        count = len(made.pinholes())
        Transfer(alice, carol, "file")
        time.sleep(1)
        got = any(one.inside.startswith(ADDRESS["alice"] + ":") for one in made.pinholes())
        say(f"{count} pinholes in {took:.1f} s; alice's offer got one: {got}")
        say(made.daemon.log_text().splitlines()[-1])
        for end in ends:
            end.close()
    text = f"one LAN host took {count} pinholes; another host's proposal got {'one' if got else 'none'}"
    verdict(not got, text, control=count > 1000)


if __name__ == "__main__":
    main()
