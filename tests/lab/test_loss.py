"""Real TCP stacks in bad weather: 5 % of the packets lost each way, and every byte where it belongs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

import pytest

from tests.lab import home, impair
from tests.lab.flows import Flow, home_flow
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


def exact(flow: Flow) -> None:
    """Both ends received what was sent, and redirects were rewritten: how many, the weather decides.

    One whose second half was lost may have to leave before that comes again.
    """
    _, client = flow.exact(120.0)
    assert client["rewritten"] + client["left"] == 2 * EDITS
    assert client["rewritten"] >= EDITS // 2, client


@pytest.mark.parametrize("selective", [True, False], ids=["sack", "no-sack"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"write": "oos", "pause": 0.02},  # else hundreds of segments follow a lost one, too many to wait for
        {"write": "coalesced"},
        {"write": "random"},
        {"write": "oos", "nagle": True},
        {"buffer": 4096},
    ],
    ids=["pipelined", "small-writes", "coalesced", "random-cuts", "nagle", "small-window"],
)
def test_edited_stream_arrives_exactly(lossy: Lab, changes: dict[str, object], selective: bool) -> None:
    impair.sack(lossy, selective)
    plan = Plan(frames=80, redirects=2 * EDITS, largest=300, pause=0.005)
    serving = Plan(**(asdict(plan) | changes))  # type: ignore[arg-type]
    calling = Plan(frames=120, largest=300, pause=0.005, seed=2, buffer=serving.buffer)
    exact(home_flow(lossy, server_plan=serving, client_plan=calling))
