"""Real TCP stacks in bad weather: 5 % of the packets lost each way, and every byte where it belongs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

import pytest

from tests.lab import home, impair
from tests.lab.flows import WAYS_TO_WRITE, home_flow
from tests.lab.net import Lab
from tests.lab.stream import Plan

EDITS = 20


@pytest.fixture(scope="module", params=[1460, 200], ids=lambda mss: f"mss{mss}")
def lossy(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A forwarded home server and one on the router, nfreaim on router A, and the loss."""
    with Lab(home_server=True) as lab:
        home.forward(lab)
        home.open_port(lab)
        if request.param != 1460:
            impair.small_segments(lab, request.param)
        lab.start_alg("A")
        impair.count_invalid(lab)
        impair.lose(lab, 5)
        yield lab
        assert impair.lost(lab) > 0, "nothing was lost: the tests prove nothing"
        assert impair.invalid(lab) == 0


@pytest.mark.parametrize("selective", [True, False], ids=["sack", "no-sack"])
@pytest.mark.parametrize("changes", WAYS_TO_WRITE.values(), ids=WAYS_TO_WRITE)
def test_edited_stream_arrives_exactly(lossy: Lab, changes: dict[str, object], selective: bool) -> None:
    """Byte for byte at both ends. How many redirects are rewritten is up to the weather, but most of them.

    One is left where the segment that ends it was lost, and the one that begins it comes again alone: it may
    not wait for the other, because its sender may wait for its ACK.
    """
    impair.sack(lossy, selective)
    plan = Plan(frames=80, redirects=2 * EDITS, largest=300, pause=0.005)
    serving = Plan(**(asdict(plan) | changes))
    calling = Plan(frames=120, largest=300, pause=0.005, seed=2, buffer=serving.buffer)
    _, client = home_flow(lossy, server_plan=serving, client_plan=calling).exact(180.0)
    print(f"{client['rewritten']} redirects rewritten, {client['left']} left, {client['seconds']} s")
    assert client["rewritten"] + client["left"] == 2 * EDITS
    assert client["rewritten"] >= EDITS, client
