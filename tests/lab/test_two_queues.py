"""Sessions whose packets change their queue. How long they wait beside floods is measured by `make load`."""

from __future__ import annotations

from tests.lab import kernel_sets
from tests.lab.flows import Flow
from tests.lab.net import ADDRESS, Lab
from tests.lab.scene import Scene
from tests.lab.stream import Plan


def test_streams_are_exact_while_their_entries_come_and_go() -> None:
    """Their packets are in two queues then, which are served one before the other."""
    with Lab() as lab:
        Scene(lab).restart("A")
        plan = Plan(frames=400, pause=0.005)
        listen = f"{ADDRESS['bob']}:5190"
        flow = Flow(
            lab,
            ("bob", Plan(frames=400, pause=0.005, listen=listen)),
            ("alice", Plan(seed=2, frames=plan.frames, pause=plan.pause, connect=listen)),
        )
        flush = f"for n in $(seq 30); do {kernel_sets.change('flush', 'nfreaim_flow')}; sleep 0.05; done"
        lab.run("A", "sh", "-ec", flush)
        flow.exact()
