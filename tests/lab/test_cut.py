"""Proposals whose sender sends their end only when their beginning is acknowledged: small writes, and Nagle.

Linux would send it by a tail loss probe after 0.2 s; a sender that never probes is one whose kernel has
probes switched off and does not repeat anything for seconds, as other systems do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab import kernel_sets
from tests.lab.cuts import OUTSIDE, check_edited, cuts_of, frame
from tests.lab.net import ADDRESS
from tests.lab.scene import Scene, announced, eventually, scene
from tests.lab.standin import Client, Server, Transfer
from tests.oscar import rendezvous as rdv
from tests.oscar.values import ip4

WAITING = {"name": "cut", "nagle": True}
NEVER_PROBES = ("sysctl", "-qw", "net.ipv4.tcp_early_retrans=0")
REPEATS_LATE = ("ip", "route", "replace", "default", "via", "10.0.0.1", "rto_min", "5s")
POSITIONS = [
    "inside the first address",
    "inside the second address",
    "between the bytes of the port",
    "behind the last address",
]


class Home:
    """Alice and amy behind the router, and bob outside. Amy's kernel never probes."""

    def __init__(self, made: Scene) -> None:
        self.made = made
        self.server: Server = made.server("aol", write="whole")
        self.alice, self.amy, self.bob = made.clients(
            self.server, ("alice", "Alice"), ("amy", "Amy"), ("bob", "Bobby")
        )


@pytest.fixture(scope="module")
def home() -> Iterator[Home]:
    with scene() as made:
        for command in (NEVER_PROBES, REPEATS_LATE):
            made.lab.run("amy", *command)
        yield Home(made)
        assert "failed" not in made.daemon.log_text()


def skewed(made: Scene) -> list[str]:
    """The flows that fail closed."""
    return kernel_sets.entries(made.lab, "A", "nfreaim_skew")


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("sender", ["alice", "amy"], ids=["probes", "never probes"])
def test_cut_proposal_is_rewritten_at_the_first_attempt(home: Home, sender: str, position: str) -> None:
    who: Client = getattr(home, sender)
    cuts = cuts_of("Bobby", "libpurple")[position]["cuts"]
    transfer = Transfer(who, home.bob, "im", write={**WAITING, "cuts": cuts})
    check_edited(transfer, home.bob)
    eventually(lambda: not skewed(home.made))


def test_each_of_many_proposals_of_a_client_with_a_ring_buffer(home: Home) -> None:
    """The buffer cuts one in four of them, each elsewhere."""
    for number in range(10):
        write = {"name": "ring", "nagle": True}
        transfer = Transfer(home.amy, home.bob, "im", text="x" * number, write=write)
        check_edited(transfer, home.bob)


@pytest.mark.parametrize("cut", [116, 118, 122])
def test_cut_proposal_of_the_server_is_mapped_back(home: Home, cut: int) -> None:
    """Alice offers to amy; the server, which never probes, tells amy alice's outside endpoint."""
    home.made.lab.run("server", *NEVER_PROBES)
    home.server.call("write", write={**WAITING, "cuts": [cut]})
    try:
        outcome = Transfer(home.alice, home.amy, "im").outcome()
        assert outcome.first_attempt, outcome
        assert outcome.peer.startswith(ADDRESS["amy"])
    finally:
        home.server.call("write", write={"name": "whole"})


def halted(home: Home, who: Client, pause: float) -> Transfer:
    """A proposal whose end is not written for *pause* seconds; returns when it is in custody."""
    home.bob.call("policy", action="ignore")
    cut = frame("Bobby").index(ip4(ADDRESS["alice"])) + 2
    write: dict[str, Any] = {**WAITING, "cuts": [cut], "pause": pause}
    transfer = Transfer(who, home.bob, "im", write=write, patience=4.0)
    eventually(lambda: skewed(home.made))
    return transfer


def test_nobody_else_waits_for_a_message_that_is_cut(home: Home) -> None:
    transfer = halted(home, home.amy, 0.7)
    home.bob.call("policy", action="accept")
    check_edited(Transfer(home.alice, home.bob, "im"), home.bob)
    assert skewed(home.made), "it was not on its way any more"
    assert announced(home.bob, transfer.cookie).address(rdv.RDV_IP) == OUTSIDE


def test_end_that_comes_too_late_leaves_all_as_it_was(home: Home) -> None:
    transfer = halted(home, home.amy, 1.5)
    assert announced(home.bob, transfer.cookie).address(rdv.RDV_IP) == ADDRESS["amy"]
    home.made.daemon.wait_log("its addresses had left before its end came")
    home.bob.call("policy", action="accept")
    check_edited(Transfer(home.amy, home.bob, "im"), home.bob)


def test_end_of_what_the_server_sends_that_comes_too_late_leaves_all_as_it_was(home: Home) -> None:
    home.amy.call("policy", action="ignore")
    home.server.call("write", write={**WAITING, "cuts": [118], "pause": 1.5})
    try:
        transfer = Transfer(home.alice, home.amy, "im", patience=4.0)
        eventually(lambda: skewed(home.made))
        assert announced(home.amy, transfer.cookie).address(rdv.VERIFIED_IP) == OUTSIDE
    finally:
        home.server.call("write", write={"name": "whole"})


def test_what_was_acknowledged_arrives_after_a_crash(home: Home) -> None:
    transfer = halted(home, home.alice, 0.8)
    home.made.daemon.kill()
    home.made.restart()
    announced(home.bob, transfer.cookie)
    eventually(lambda: not skewed(home.made))
    home.bob.call("policy", action="accept")
    check_edited(Transfer(home.alice, home.bob, "im"), home.bob)


def test_what_was_acknowledged_arrives_though_the_daemon_stops(home: Home) -> None:
    """It removes its rules: nothing could translate the connection any more."""
    transfer = halted(home, home.alice, 0.8)
    assert home.made.daemon.stop() == 0
    assert announced(home.bob, transfer.cookie).address(rdv.RDV_IP) == ADDRESS["alice"]
    home.made.restart()
