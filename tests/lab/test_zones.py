"""Connection tracking with zones: each interface, or each direction of a connection, in one of its own."""

from __future__ import annotations

import time

import pytest

from tests.lab import home
from tests.lab.flows import home_flow
from tests.lab.net import Lab
from tests.lab.scene import Scene, opened
from tests.lab.standin import Transfer
from tests.lab.stream import Plan

ONE = ("PREROUTING -i lan -j CT --zone 7", "PREROUTING -i wan -j CT --zone 7")
BY_DIRECTION = ("PREROUTING -i lan -j CT --zone-orig 9",)


@pytest.mark.parametrize("rules", [ONE, BY_DIRECTION], ids=["zone", "zone-orig"])
@pytest.mark.parametrize("late", [False, True], ids=["before", "later"])
def test_a_pinhole_lives_as_long_as_its_control_connection_in_whatever_zone(
    rules: tuple[str, ...], late: bool
) -> None:
    with Lab() as lab:
        made = Scene(lab)

        def in_zones() -> None:
            for rule in rules:
                lab.run("A", *f"iptables-legacy -t raw -I {rule}".split())

        if not late:
            in_zones()
        made.restart()
        server = made.server("aol", write="whole")
        if late:
            amy, other = made.clients(server, ("amy", "amy"), ("bob", "bob2"))
            assert Transfer(amy, other, "file").outcome().first_attempt
            in_zones()
        alice, bob, carol = made.clients(server, ("alice", "alice", 5200), ("bob", "bob"), ("carol", "carol"))
        outcome = Transfer(alice, carol, "im").outcome()
        assert outcome.first_attempt, outcome
        bob.call("policy", action="ignore")
        opened(made, alice, bob, 5200)
        time.sleep(16)  # for longer than a flow that connection tracking does not have counts as alive
        assert "control connection lost" not in made.daemon.log_text()
        assert made.pinhole_of("10.0.0.5:5200")


def test_a_server_at_home_in_a_zone_and_a_daemon_that_is_killed() -> None:
    with Lab(home_server=True) as lab:
        for rule in ONE:
            lab.run("A", *f"iptables-legacy -t raw -I {rule}".split())
        home.forward(lab)
        lab.run("A", *"rules/nfreaim-rules install --lan lan --wan wan".split())
        daemon = lab.start_alg("A")
        plan = Plan(frames=80, pause=0.03, largest=300)
        flow = home_flow(lab, server_plan=Plan(frames=80, redirects=15, pause=0.03), client_plan=plan)
        time.sleep(1.0)
        daemon.kill()
        daemon = lab.start_alg("A")
        assert "connections of an earlier daemon: 1 found, 1 go on" in daemon.log_text()
        assert "connection tracking has zones: 0, 7" in daemon.log_text()
        flow.exact()
