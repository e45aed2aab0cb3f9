"""The outside address is the flow's own: several of them, and one that changes, need no configuration."""

from __future__ import annotations

import pytest

from tests.lab.namespace import socket_in
from tests.lab.net import CORE
from tests.lab.scene import announced, eventually, scene
from tests.lab.standin import Transfer
from tests.oscar import rendezvous as rdv

FIRST, SECOND = "203.0.113.1", "203.0.113.3"


def test_each_flow_gets_its_pinhole_at_the_address_it_leaves_with_and_at_no_other() -> None:
    with scene() as made:
        made.lab.run("A", *f"ip address add {SECOND}/24 dev wan".split())
        amys = f"-t nat -I POSTROUTING -s 10.0.0.6 -o wan -j SNAT --to-source {SECOND}"
        made.lab.run("A", "iptables-legacy", *amys.split())
        alice, amy, bob, carol = made.clients(
            made.server(), ("alice", "alice", 5200), ("amy", "amy", 5200), ("bob", "bob"), ("carol", "carol")
        )
        bob.call("policy", action="ignore")
        open_both = [Transfer(alice, bob, "file"), Transfer(amy, bob, "file")]
        expected = {("10.0.0.5:5200", f"{FIRST}:5200"), ("10.0.0.6:5200", f"{SECOND}:5200")}
        eventually(lambda: {(pinhole.inside, pinhole.outside) for pinhole in made.pinholes()} == expected)
        assert announced(bob, open_both[0].cookie).address(rdv.RDV_IP) == FIRST
        assert announced(bob, open_both[1].cookie).address(rdv.RDV_IP) == SECOND
        amy.call("cancel", cookie=open_both[1].cookie)
        eventually(lambda: {pinhole.outside for pinhole in made.pinholes()} == {f"{FIRST}:5200"})
        with socket_in(made.lab, "bob") as caller:
            caller.settimeout(1.0)
            with pytest.raises(TimeoutError):
                caller.connect((SECOND, 5200))
        with socket_in(made.lab, "bob") as caller:
            caller.connect((FIRST, 5200))
        both = [Transfer(alice, carol, "im").outcome(), Transfer(amy, carol, "im").outcome()]
        assert all(outcome.first_attempt for outcome in both), both


def test_address_that_changes_between_two_proposals() -> None:
    with scene() as made:
        server = made.server()
        alice, bob, carol = made.clients(server, ("alice", "alice", 5200), ("bob", "bob"), ("carol", "carol"))
        bob.call("policy", action="ignore")
        lost = Transfer(alice, bob, "file", patience=2)
        eventually(lambda: {pinhole.outside for pinhole in made.pinholes()} == {f"{FIRST}:5200"})
        made.lab.run(
            "A",
            *("sh", "-ec"),
            f"ip address del {FIRST}/24 dev wan; ip address add {SECOND}/24 dev wan;"
            f"ip route replace default via {CORE}",
        )
        # Masquerading forgets its connections with the address; nobody says a word on the wire.
        eventually(lambda: not made.pinholes())
        assert "5200: control connection lost" in made.daemon.log_text()
        assert not lost.outcome().ok
        alice.call("sign_on", server=server.address)
        outcomes = [Transfer(alice, carol, kind) for kind in ("file", "im")]
        for transfer in outcomes:
            assert transfer.outcome().first_attempt
            assert announced(carol, transfer.cookie).address(rdv.RDV_IP) == SECOND
