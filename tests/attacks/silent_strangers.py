"""Strangers who connect to an open port and say nothing lock the real peers out.

4,340 connections from 31 addresses to alice's gated port; her listener accepts any number of them. alice's
real peer and amy's, another host, must get in meanwhile.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.attacks.kit import say, verdict

# isort: split
from tests.attacks import peers
from tests.lab.scene import scene

EACH = 140
ADDRESSES = tuple(f"203.0.113.{131 + n}" for n in range(31))


def main() -> None:
    peers.many_files()
    seen: dict[str, str] = {}
    with scene() as made:
        lab = made.lab
        alice, amy, bob = made.clients(
            made.server(), ("alice", "Alice"), ("amy", "Amy", 5300), ("bob", "Bobby")
        )
        bob.call("policy", action="ignore")
        for address in ADDRESSES:
            lab.run("server", "ip", "address", "add", f"{address}/24", "dev", "eth0")
        lab.run("alice", "sysctl", "-qw", "net.core.somaxconn=65535", "net.ipv4.tcp_max_syn_backlog=65535")
        with peers.offered(made, alice, "alice") as first, peers.offered(made, amy, "amy") as second:
            first.listen(peers.FILES)
            start = time.monotonic()
            ends = peers.silent(made, peers.PORTS["alice"], EACH, ADDRESSES)
            say(f"{len(ends)} silent connections in {time.monotonic() - start:.1f} s")
            seen["alice's peer"] = peers.peer(made, "alice", first)
            seen["amy's peer"] = peers.peer(made, "amy", second)
            say(f"meanwhile: {seen}")
            for end in ends:
                end.close()
    kept = {name: what for name, what in seen.items() if what}
    text = f"{len(ends)} silent strangers; real peers that are kept out: {kept or 'none'}"
    verdict(bool(kept), text, control=len(ends) == EACH * len(ADDRESSES))


if __name__ == "__main__":
    main()
