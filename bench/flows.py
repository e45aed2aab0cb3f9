"""Scenarios (f) and (g): idle sessions, starting up, doing nothing."""

from __future__ import annotations

import statistics
import time
from contextlib import ExitStack

from bench import contenders, gauge
from bench.contenders import CPU, PORT, Contender, Process, end, start
from bench.paths import Figures, Table, load, serve
from tests.lab.net import SECOND_SERVER, SERVER, Lab

STARTS = 5
IDLE_SECONDS = 10.0
TALK_SECONDS = 1.0
MOST = 9000  # sessions of one process: each is an open file at either end
PACKET = "f: CPU a packet beside idle sessions"
# What stands beside how many sessions; each on a network of its own, so that they can be measured in turn.
BESIDE: dict[str, tuple[Contender, int]] = {
    "10": (contenders.nfreaim, 10),
    "1000": (contenders.nfreaim, 1000),
    "20000": (contenders.nfreaim, 20000),
    "do-nothing queue, 10": (contenders.do_nothing, 10),
    "do-nothing queue, 20000": (contenders.do_nothing, 20000),
}


def per_packet(lab: Lab, process: Process) -> Figures:
    """Microseconds of the process's CPU for one queued packet, while one client talks."""
    queued, before = sum(lab.queue_state("A").values()), gauge.cpu(process)
    load(lab, "alice", "talk", SERVER, PORT, 1, TALK_SECONDS, 0)
    packets = sum(lab.queue_state("A").values()) - queued
    return {"value": (gauge.cpu(process) - before) / packets * 1e6}


def sign_on(lab: Lab, stack: ExitStack, count: int) -> None:
    """So many sessions that say nothing, for as long as *stack* is open."""
    for address in (SERVER, SECOND_SERVER):
        stack.callback(end, serve(lab, "server", address, PORT))
    for index, held in enumerate(range(0, count, MOST)):
        address = (SERVER, SECOND_SERVER)[index % 2]
        words = contenders.load_command("idle", address, PORT, min(MOST, count - held))
        stack.callback(end, start(lab, "amy", *words))


def sessions(rounds: int) -> tuple[Table, dict[str, float]]:
    """CPU per packet beside 10, 1,000 and 20,000 idle sessions, and resident bytes with each."""
    table: Table = {PACKET: {name: [] for name in BESIDE}}
    resident: dict[str, float] = {}
    with ExitStack() as stack:
        stands: dict[str, tuple[Lab, Process]] = {}
        for name, (contender, count) in BESIDE.items():
            lab = stack.enter_context(Lab())
            process = stack.enter_context(contender(lab))
            assert process is not None
            gauge.pin(process, CPU)
            sign_on(lab, stack, count)
            stands[name] = lab, process
            resident[f"resident {name}"] = gauge.resident(process)
        for number in range(rounds):
            for name, (lab, process) in stands.items():
                table[PACKET][name].append(per_packet(lab, process))
                value = f"{table[PACKET][name][-1]['value']:10.1f} µs"
                print(f"round {number + 1}  {PACKET} {name:24} {value}", flush=True)
    return table, resident


def life() -> dict[str, float]:
    """Seconds from the start to "ready", share of a CPU when idle, resident bytes."""
    starts = []
    with Lab() as lab:
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
