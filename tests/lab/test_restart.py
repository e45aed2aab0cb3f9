"""kill -9 and restart, many times in a row, under connections of each kind: no byte may differ."""

from __future__ import annotations

import time

from tests.lab import home, impair, kernel_sets
from tests.lab.flows import Flow, home_flow
from tests.lab.net import Lab
from tests.lab.stream import Plan

ROUNDS = 10
SECOND = 5191  # another port of the same server, for another connection at the same time
PACED = Plan(frames=50, pause=0.02, largest=300)


def edited(lab: Lab) -> Flow:
    """Edited again and again: it must wait for the daemon."""
    serving = Plan(frames=40, redirects=10, pause=0.02, largest=300)
    return home_flow(lab, server_plan=serving, client_plan=PACED)


def held(lab: Lab) -> Flow:
    """Each frame is a redirect and comes in two halves: at any time, the beginning of one is being held."""
    serving = Plan(frames=0, redirects=50, write="halves", inner=0.02)
    return home_flow(lab, client="carol", port=SECOND, server_plan=serving, client_plan=PACED)


def unedited(lab: Lab) -> Flow:
    """Of an inside client with a server outside: nothing in it is edited, so it need not wait."""
    address = "203.0.113.9:5190"
    serving = Plan(listen=address, frames=50, pause=0.02, largest=300)
    return Flow(lab, ("server", serving), ("alice", Plan(connect=address, frames=50, pause=0.02, seed=2)))


def waiting(lab: Lab) -> set[str]:
    """The connections that would wait for a daemon."""
    return set(kernel_sets.entries(lab, "A", "nfreaim_skew"))


def test_ten_kills_in_a_row_change_no_byte_of_edited_held_and_other_connections() -> None:
    with Lab(home_server=True) as lab:
        ports = ("--port", "5190", "--port", str(SECOND))
        # The rules are installed apart from the daemon: they stay when it dies.
        lab.run("A", "rules/nfreaim-rules", "install", "--lan", "lan", "--wan", "wan", *ports)
        home.forward(lab)
        home.forward(lab, port=SECOND)
        impair.count_invalid(lab)
        daemon = lab.start_alg("A", ports)
        for number in range(ROUNDS):
            before = waiting(lab)
            flows = [unedited(lab), edited(lab), held(lab)]
            deadline = time.monotonic() + 10.0
            while len(waiting(lab) - before) < 2:
                assert time.monotonic() < deadline, daemon.log_text()
                time.sleep(0.01)
            time.sleep(0.031 * number)  # somewhere else in a frame each time
            daemon.kill()
            daemon = lab.start_alg("A", ports)
            results = [flow.exact() for flow in flows]
            assert results[1][1]["rewritten"] > 0, "it was not edited: the round proves nothing"
        assert impair.invalid(lab) == 0
        assert daemon.stop() == 0
