"""Edits that change lengths in connections of inside clients: real TCP stacks, loss, and kill -9.

The connections are IRC's, whose DCC offers name addresses as decimal numbers: 10.0.0.5 has nine digits,
203.0.113.1 ten. alice's offers grow on their way out; the server's, which name a pinhole of amy's, shrink on
their way in.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.lab import impair
from tests.lab.flows import WAYS_TO_WRITE
from tests.lab.irc_offers import amy_offers, irc_flow, waiting
from tests.lab.net import Lab
from tests.lab.stream import Plan

ROUNDS = 20
EDITS = 20
PROTOCOLS = ("--protocol", "oscar", "--protocol", "irc:6667")
INSTALL = ("rules/nfreaim-rules", "install", "--lan", "lan", "--wan", "wan", *PROTOCOLS)


def test_an_offer_grows_and_shrinks_and_every_other_byte_arrives() -> None:
    with Lab() as lab:
        daemon = lab.start_alg("A", PROTOCOLS)
        impair.count_invalid(lab)
        amy_offers(lab, daemon)
        server, client = irc_flow(lab, Plan(frames=80, redirects=2 * EDITS, pause=0.005)).exact()
        assert server["rewritten"] == 2 * EDITS, server
        assert client["rewritten"] > 0, client
        assert impair.invalid(lab) == 0
        assert daemon.stop() == 0


def test_a_connection_without_an_offer_does_not_wait_for_a_daemon() -> None:
    with Lab() as lab:
        lab.run("A", *INSTALL)
        daemon = lab.start_alg("A", PROTOCOLS)
        flow = irc_flow(lab, Plan(frames=60, pause=0.05))
        time.sleep(0.5)
        assert not waiting(lab)
        daemon.kill()
        flow.exact()


@pytest.mark.timeout(400)
def test_twenty_kills_in_a_row_change_no_byte_and_offers_go_on_being_edited() -> None:
    with Lab() as lab:
        lab.run("A", *INSTALL)
        impair.count_invalid(lab)
        daemon = lab.start_alg("A", PROTOCOLS)
        amy_offers(lab, daemon)
        edited = 0
        for number in range(ROUNDS):
            before = waiting(lab)
            plan = Plan(frames=40, redirects=20, pause=0.02, largest=100, write="halves", inner=0.005)
            flow = irc_flow(lab, plan)
            deadline = time.monotonic() + 10.0
            while not waiting(lab) - before:
                assert time.monotonic() < deadline, daemon.log_text()
                time.sleep(0.01)
            time.sleep(0.031 * number)  # somewhere else in a line each time
            daemon.kill()
            daemon = lab.start_alg("A", PROTOCOLS)
            server, _ = flow.exact()
            edited += server["rewritten"] > 0
        assert edited > ROUNDS // 2, "most were not edited: the rounds prove nothing"
        assert impair.invalid(lab) == 0
        assert daemon.stop() == 0


def test_a_connection_that_was_restored_gets_its_first_such_edit_after_the_restart() -> None:
    with Lab() as lab:
        lab.run("A", *INSTALL)
        impair.count_invalid(lab)
        daemon = lab.start_alg("A", PROTOCOLS)
        amy_offers(lab, daemon)
        before = waiting(lab)
        flow = irc_flow(lab, Plan(frames=120, late=10, pause=0.05))
        time.sleep(1.0)
        assert waiting(lab) == before
        daemon.kill()
        daemon = lab.start_alg("A", PROTOCOLS)
        server, client = flow.exact()
        assert server["rewritten"] > 0, (server, daemon.log_text())
        assert client["rewritten"] > 0, client
        assert impair.invalid(lab) == 0


@pytest.fixture(scope="module", params=[1460, 200], ids=lambda mss: f"mss{mss}")
def lossy(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """nfreaim on router A, and the loss."""
    with Lab() as lab:
        if request.param != 1460:
            impair.small_segments(lab, request.param)
        amy_offers(lab, lab.start_alg("A", PROTOCOLS))
        impair.count_invalid(lab)
        impair.lose(lab, 5)
        yield lab
        assert impair.lost(lab) > 0, "nothing was lost: the tests prove nothing"
        assert impair.invalid(lab) == 0


@pytest.mark.parametrize("selective", [True, False], ids=["sack", "no-sack"])
@pytest.mark.parametrize("changes", WAYS_TO_WRITE.values(), ids=WAYS_TO_WRITE)
def test_edited_stream_arrives_exactly_in_loss(lossy: Lab, changes: dict[str, Any], selective: bool) -> None:
    """Byte for byte at both ends, and most offers are rewritten.

    A FIN may arrive before data that were lost. Then the connection is over for connection tracking, so
    nothing is opened for offers in these data. Hence most offers are rewritten only if both ends stay.
    """
    impair.sack(lossy, selective)
    plan = replace(Plan(frames=80, redirects=2 * EDITS, largest=100, pause=0.005), **changes)
    irc_flow(lossy, plan).exact(180.0)
    server, client = irc_flow(lossy, replace(plan, stays=True)).exact(180.0)
    print(f"{server['rewritten']} offers rewritten, {server['left']} left, {server['seconds']} s")
    assert server["rewritten"] + server["left"] == 2 * EDITS
    assert server["rewritten"] >= EDITS, server
    assert client["rewritten"] + client["left"] == 2 * EDITS
