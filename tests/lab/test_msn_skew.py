"""Conversations of MSN whose lengths change: real TCP stacks, loss, and kill -9; exact to the byte.

The client's announcements grow on their way out; the server's, which name the same pinhole, shrink on their
way in. Each has four lengths that follow. The client has a session at a notification server beside it,
without which nothing would be opened for it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from tests.lab import impair, kernel_sets
from tests.lab.flows import WAYS_TO_WRITE, Flow
from tests.lab.inhabitants import Inhabitants
from tests.lab.msn_client import PURPLE, MsnClient
from tests.lab.msn_server import MsnServer
from tests.lab.net import SERVER, Lab
from tests.lab.stream import Plan

ROUNDS = 4
EDITS = 20
BOARD = f"{SERVER}:1864"
INSIDE, OUTSIDE = "10.0.0.5:5500", "203.0.113.1:5500"
PROTOCOLS = ("--protocol", "oscar", "--protocol", "msn:1863,1864")
INSTALL = ("rules/nfreaim-rules", "install", "--lan", "lan", "--wan", "wan", *PROTOCOLS)


@contextmanager
def network() -> Iterator[Lab]:
    """nfreaim's rules on router A."""
    with Lab() as lab:
        lab.run("A", *INSTALL)
        yield lab


def sign_on(lab: Lab) -> None:
    """alice's session."""
    here = Inhabitants(lab)
    MsnClient(here, "alice", PURPLE).sign_on(MsnServer(here, ports=(1863, 2864)))


def conversation(lab: Lab, plan: Plan) -> Flow:
    """alice talks to somebody outside; both ends announce the listener that she has."""
    both = replace(plan, dialect="msn")
    serving = replace(both, listen=BOARD, named=OUTSIDE, expects=(INSIDE, OUTSIDE))
    calling = replace(both, connect=BOARD, named=INSIDE, expects=(OUTSIDE, INSIDE), seed=2)
    return Flow(lab, ("server", serving), ("alice", calling))


def waiting(lab: Lab) -> set[str]:
    """The connections that would wait for a daemon."""
    return set(kernel_sets.entries(lab, "A", "nfreaim_skew"))


def test_kills_in_a_row_change_no_byte_and_announcements_go_on_being_edited() -> None:
    with network() as lab:
        impair.count_invalid(lab)
        daemon = lab.start_alg("A", PROTOCOLS)
        sign_on(lab)
        for number in range(ROUNDS):
            before = waiting(lab)
            plan = Plan(frames=40, redirects=20, pause=0.02, largest=100, write="halves", inner=0.005)
            flow = conversation(lab, plan)
            deadline = time.monotonic() + 10.0
            while not waiting(lab) - before:
                assert time.monotonic() < deadline, daemon.log_text()
                time.sleep(0.01)
            time.sleep(0.031 * number)  # somewhere else in a message each time
            daemon.kill()
            daemon = lab.start_alg("A", PROTOCOLS)
            server, _ = flow.exact()
            assert server["rewritten"] > 0, "it was not edited: the round proves nothing"
        assert impair.invalid(lab) == 0
        assert daemon.stop() == 0


@pytest.fixture(scope="module")
def lossy() -> Iterator[Lab]:
    """nfreaim on router A, small segments, and loss."""
    with network() as lab:
        impair.small_segments(lab, 200)
        lab.start_alg("A", PROTOCOLS)
        sign_on(lab)
        impair.count_invalid(lab)
        impair.lose(lab, 5)
        yield lab
        assert impair.lost(lab) > 0, "nothing was lost: the tests prove nothing"
        assert impair.invalid(lab) == 0


@pytest.mark.parametrize("changes", WAYS_TO_WRITE.values(), ids=WAYS_TO_WRITE)
def test_edited_stream_arrives_exactly_in_loss(lossy: Lab, changes: dict[str, Any]) -> None:
    plan = replace(Plan(frames=40, redirects=EDITS, largest=100, pause=0.005, stays=True), **changes)
    server, client = conversation(lossy, plan).exact(180.0)
    assert server["rewritten"] + server["left"] == EDITS
    assert server["rewritten"] > 0, server
    assert client["rewritten"] + client["left"] == EDITS
