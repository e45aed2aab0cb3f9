"""Scenarios (f) and (g): idle sessions, starting up, doing nothing."""

from __future__ import annotations

import statistics
import time

from bench import contenders, gauge
from bench.contenders import PORT, Process, end, start
from bench.paths import load
from tests.lab.net import SECOND_SERVER, SERVER, Lab

STARTS = 5
IDLE_SECONDS = 10.0
STEPS = (10, 1000, 20000)
MOST = 9000  # sessions of one process: each is an open file at either end


def per_packet(lab: Lab, process: Process, rounds: int) -> float:
    """Microseconds of the process's CPU for one queued packet, while one client talks: median of rounds."""
    taken = []
    for _ in range(rounds):
        queued, before = sum(lab.queue_state("A").values()), gauge.cpu(process)
        load(lab, "alice", "talk", SERVER, PORT, 1, 1.0)
        taken.append((gauge.cpu(process) - before) / (sum(lab.queue_state("A").values()) - queued) * 1e6)
    return statistics.median(taken)


def sessions(lab: Lab, rounds: int) -> dict[str, float]:
    """Memory and CPU per packet beside 10, 1,000 and 20,000 idle sessions, in one life of the daemon."""
    figures: dict[str, float] = {}
    second = start(lab, "server", *contenders.server_command(SECOND_SERVER, PORT, PORT + 1))
    idle: list[Process] = []
    try:
        with contenders.nfreaim(lab) as daemon:
            held = 0
            for step in STEPS:
                while held < step:
                    count = min(MOST, step - held)
                    address = (SERVER, SECOND_SERVER)[len(idle) % 2]
                    idle.append(start(lab, "amy", *contenders.load_command("idle", address, PORT, count)))
                    held += count
                figures[f"resident {step}"] = gauge.resident(daemon)
                figures[f"cpu {step}"] = per_packet(lab, daemon, rounds)
                print(
                    f"f: {step} idle sessions: {figures[f'resident {step}'] / 2**20:.1f} MiB, "
                    f"{figures[f'cpu {step}']:.1f} µs a packet",
                    flush=True,
                )
    finally:
        for process in (*idle, second):
            end(process)
    return figures


def life(lab: Lab) -> dict[str, float]:
    """Seconds from the start to "ready", share of a CPU when idle, resident bytes."""
    starts = []
    for _ in range(STARTS):
        begin = time.perf_counter()
        with contenders.nfreaim(lab) as daemon:
            starts.append(time.perf_counter() - begin)
            resident = gauge.resident(daemon)
    with contenders.nfreaim(lab) as daemon:
        time.sleep(1.0)
        before = gauge.cpu(daemon)
        time.sleep(IDLE_SECONDS)
        idle = (gauge.cpu(daemon) - before) / IDLE_SECONDS
    return {"start": statistics.median(starts), "idle": idle, "resident": resident}
