"""Round trips of a text message through router A: plain NAT, a do-nothing Python queue, and nfreaim.

Everything runs on one CPU, the contenders in turn, round after round; figures are ratios within a round.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.lab.net import SERVER, Lab, lab_available

ROUNDS = 5
TRIPS = 3000
PORT = 5190
DO_NOTHING = """
from netfilterqueue import NetfilterQueue
queue = NetfilterQueue()
queue.bind(5190, lambda packet: packet.accept(), 16384)
print("ready", flush=True)
queue.run()
"""


def trips(lab: Lab) -> float:
    """Median seconds of a round trip from alice to the server."""
    run = lab.run("alice", sys.executable, "-m", "bench.echo", "client", SERVER, str(PORT), str(TRIPS))
    return statistics.median(map(float, run.stdout.split()))


@contextmanager
def plain(lab: Lab) -> Iterator[None]:
    yield


@contextmanager
def do_nothing(lab: Lab) -> Iterator[None]:
    lab.run("A", sys.executable, "-m", "nfreaim", "rules", "install", "--lan", "lan", "--wan", "wan")
    process = lab.spawn("A", sys.executable, "-c", DO_NOTHING, pipes=True)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield
    finally:
        process.terminate()
        process.wait(10)
        lab.run("A", sys.executable, "-m", "nfreaim", "rules", "remove")


@contextmanager
def nfreaim(lab: Lab) -> Iterator[None]:
    daemon = lab.start_alg("A")
    try:
        yield
    finally:
        daemon.stop()


CONTENDERS: dict[str, Callable] = {"plain NAT": plain, "do-nothing queue": do_nothing, "nfreaim": nfreaim}


def main() -> None:
    """Print the median round trip of each contender, and its ratios to the other two."""
    reason = lab_available()
    if reason is not None:
        print(f"no ping-pong: {reason}")
        return
    figures: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    with Lab() as lab:
        server = lab.spawn(
            "server", sys.executable, "-m", "bench.echo", "server", SERVER, str(PORT), str(TRIPS), pipes=True
        )
        assert server.stdout is not None
        server.stdout.readline()
        for _ in range(ROUNDS):
            for name, contender in CONTENDERS.items():
                with contender(lab):
                    time.sleep(0.2)
                    figures[name].append(trips(lab))
    print(f"\nRound trip of a text message on one CPU, {ROUNDS} rounds of {TRIPS}: median (least-most ratio)")
    print(f"{'':20}{'µs':>8}{'to plain NAT':>24}{'to do-nothing queue':>24}")
    for name, seconds in figures.items():
        cells = ""
        for base in ("plain NAT", "do-nothing queue"):
            ratios = [ours / theirs for ours, theirs in zip(seconds, figures[base], strict=True)]
            cells += f"{statistics.median(ratios):12.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
        print(f"{name:20}{statistics.median(seconds) * 1e6:8.0f}{cells}")
