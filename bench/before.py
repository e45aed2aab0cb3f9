"""``python -m bench.before REVISION``: this tree beside an earlier one, in turn on networks of their own.

Prints the ratio now to before, with the 95 % interval of its mean over the rounds: of scenario (c) with one
client (median round trip, and CPU of the daemon for a message), of (d) (a proposal, above plain NAT, and CPU
of the daemon for it and its cancel), of the time to start, and of the memory after the start and for an idle
flow.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench import contenders, flows, gauge
from bench.contenders import CPU, PORT, Process, end
from bench.paths import load, serve, stand, talked
from tests.lab.net import ADDRESS, SERVER, Lab

REPO = Path(__file__).resolve().parents[1]
SECONDS = 1.5
IDLE = 2000  # sessions
OFFERS = 50
SETTLED = 0.3  # seconds; then the programs that the daemon asks at its start have ended
T_95 = {5: 2.571, 10: 2.228, 14: 2.145, 19: 2.093, 24: 2.064, 29: 2.045}  # Student's t, by degrees of freedom

Figures = dict[str, list[float]]


@contextmanager
def earlier(revision: str) -> Iterator[Path]:
    """A program that runs the daemon of *revision* with this Python."""
    with tempfile.TemporaryDirectory(prefix="nfreaim-before-") as folder:
        tree = Path(folder, "tree")
        tree.mkdir()
        packed = subprocess.run(["git", "archive", revision], cwd=REPO, capture_output=True, check=True)
        subprocess.run(["tar", "-x", "-C", tree], input=packed.stdout, check=True)
        program = Path(folder, "nfreaim")
        program.write_text(
            f'#!/bin/sh\nPYTHONPATH={tree} exec {sys.executable} -P -c "'
            'import sys; sys.argv[0] = \'nfreaim\'; from nfreaim.cli import main; sys.exit(main())" "$@"\n'
        )
        program.chmod(0o755)
        yield program


@contextmanager
def daemon(lab: Lab, program: Path | None) -> Iterator[Process]:
    """The daemon on router A, of *program* or of this tree."""
    os.environ.pop("NFREAIM", None)
    if program is not None:
        os.environ["NFREAIM"] = str(program)
    try:
        with contenders.nfreaim(lab) as process:
            os.environ.pop("NFREAIM", None)
            yield process
    finally:
        os.environ.pop("NFREAIM", None)


def traffic(rounds: int, programs: dict[str, Path | None]) -> dict[str, Figures]:
    """Scenarios (c), one client, and (d)."""
    kinds = ("p50", "cpu", "offer", "offer cpu")
    found: dict[str, Figures] = {name: {kind: [] for kind in kinds} for name in programs}
    with ExitStack() as stack:
        plain, _ = stack.enter_context(stand(contenders.plain))
        stands: dict[str, tuple[Lab, Process]] = {}
        for name, program in programs.items():
            lab = stack.enter_context(Lab())
            stack.callback(end, serve(lab, "server", SERVER, PORT))
            process = stack.enter_context(daemon(lab, program))
            gauge.pin(process, CPU)
            stands[name] = lab, process
        for number in range(rounds):
            usual = _offered(plain, None)[0]
            # The second of a pair has the warmer machine: they take turns.
            for name in sorted(stands, reverse=bool(number % 2)):
                lab, process = stands[name]
                figures = talked(lab, 1, SECONDS, process)
                for what in ("p50", "cpu"):
                    found[name][what].append(figures[what])
                offer, cpu = _offered(lab, process)
                found[name]["offer"].append(offer - usual)
                found[name]["offer cpu"].append(cpu)
    return found


def _offered(lab: Lab, process: Process | None) -> tuple[float, float]:
    """Seconds of a proposal to the server, and of CPU of *process* for it and its cancel."""
    before = gauge.cpu(process) if process else 0.0
    figures = load(lab, "alice", "offer", SERVER, PORT, ADDRESS["alice"], OFFERS)
    if process is not None and figures["edited"] != OFFERS:
        raise RuntimeError(f"{figures['edited']} of {OFFERS} proposals were edited")
    return figures["p50"], (gauge.cpu(process) - before) / OFFERS if process else 0.0


def lives(rounds: int, programs: dict[str, Path | None]) -> dict[str, Figures]:
    """Start and memory."""
    kinds = ("start", "resident", "idle flow")
    found: dict[str, Figures] = {name: {kind: [] for kind in kinds} for name in programs}
    with Lab() as lab:
        for number in range(rounds):
            for name in sorted(programs, reverse=bool(number % 2)):
                began = time.perf_counter()
                with daemon(lab, programs[name]) as process:
                    found[name]["start"].append(time.perf_counter() - began)
                    time.sleep(SETTLED)
                    found[name]["resident"].append(gauge.resident(process))
        for _ in range(3):
            for name in programs:
                with daemon(lab, programs[name]) as process, ExitStack() as sessions:
                    time.sleep(SETTLED)
                    before = gauge.resident(process)
                    flows.sign_on(lab, sessions, IDLE)
                    time.sleep(1.0)
                    found[name]["idle flow"].append((gauge.resident(process) - before) / IDLE)
    return found


def interval(now: list[float], before: list[float]) -> tuple[float, float, float]:
    """Mean ratio, and the bounds of its 95 % interval, by the logarithms of the rounds' ratios."""
    logs = [math.log(one / other) for one, other in zip(now, before, strict=True)]
    mean = statistics.mean(logs)
    freedom = max((each for each in T_95 if each <= len(logs) - 1), default=0)
    half = T_95.get(freedom, 4.303) * statistics.stdev(logs) / math.sqrt(len(logs))
    return math.exp(mean), math.exp(mean - half), math.exp(mean + half)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.before", description=__doc__)
    parser.add_argument("revision")
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    with earlier(arguments.revision) as program:
        programs: dict[str, Path | None] = {"before": program, "now": None}
        found = traffic(arguments.rounds, programs)
        for name, figures in lives(arguments.rounds, programs).items():
            found[name] |= figures
    for what, now in found["now"].items():
        before = found["before"][what]
        ratio, low, high = interval(now, before)
        typical = f"{statistics.median(before):.6g} -> {statistics.median(now):.6g}"
        print(f"{what:10} {ratio:.3f} [{low:.3f}, {high:.3f}]  median {typical}, {len(now)} rounds")


if __name__ == "__main__":
    main()
