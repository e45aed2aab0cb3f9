"""What the log says in situations that look like others: each line is true, and names what can be done."""

from __future__ import annotations

import re

from tests.lab.net import WAN
from tests.lab.scene import eventually, nfreaim, scene
from tests.lab.standin import Transfer


def test_a_peer_at_the_servers_port_and_the_end_of_its_pinhole_are_nothing_amiss() -> None:
    """libpurple listens on 5190, so its host's packets to the peer are queued like a server's."""
    with scene(settings='[log]\nlevel = "debug"\n') as made:
        alice, bob = made.clients(made.server(), ("alice", "alice", 5190), ("bob", "bob"))
        assert Transfer(alice, bob, "file", size=200_000).outcome().first_attempt
        assert f"{WAN['A']}:5190 -> 10.0.0.5:5190" in made.daemon.log_text()
        eventually(lambda: "pinhole closed" in made.daemon.log_text(), 30)
        log = made.daemon.log_text()
        assert "older than this daemon" not in log
        assert "only one direction" not in log
        assert "somebody else changed" not in log
        assert re.search(r"DEBUG .*203\.0\.113\.20:\d+ > 10\.0\.0\.5:5190: a peer's connection", log), log


def test_a_native_firewall_that_drops_pinholes_is_named_until_it_accepts_them() -> None:
    with scene(variants=("native-nft", "legacy")) as made:
        alice, bob = made.clients(made.server(), ("alice", "alice", 5200), ("bob", "bob"))
        made.daemon.wait_log("WARNING nftables chain inet router forward drops the connections of pinholes")
        offer = Transfer(alice, bob, "file", patience=1)
        useless = "pinhole of no use, because nftables chain inet router forward drops what comes"
        made.daemon.wait_log(useless)
        assert not offer.outcome().first_attempt
        assert "pinhole opened" not in made.daemon.log_text()
        check = nfreaim(made.lab, "A", "check", "--lan", "lan", "--wan", "wan")
        (line,) = [one for one in check.splitlines() if "drops pinhole connections" in one]
        made.lab.run("A", "sh", "-ec", line.partition(" -> ")[2])
        made.daemon.wait_log("no native nftables chain drops the connections of pinholes any more", 30)
        assert Transfer(alice, bob, "im").outcome().first_attempt
