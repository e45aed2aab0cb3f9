"""Scenario (h): one process behind the queue, and two.

What a second one can bring is shown by the queue that does nothing: one, and two that share the connections
by the hash of their addresses (--queue-balance). Nobody is pinned but the endpoints: on two CPUs the second
process takes its time from those, and from the kernel that forwards.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from bench import contenders, gauge, paths
from bench.contenders import PORT, Contender, Process, end, start
from bench.paths import Figures, Scenario
from tests.lab.net import Lab

SECONDS = 1.5
FIRST = 5191
BASE = "do-nothing, one queue"
_PROGRAM = contenders.NOTHING.replace("bind(5190,", "bind(int(__import__('sys').argv[1]),")
_EACH = 'p=$1 c=$2; shift 2; for n; do "$p" -c "$c" "$n" & all="$all $!"; done; trap "kill $all" TERM; wait'


@contextmanager
def balanced(lab: Lab, queues: int) -> Iterator[Process]:
    """So many do-nothing queues, with a process for each; yields the shell that they are children of."""
    numbers = [str(FIRST + index) for index in range(queues)]
    to = f"--queue-balance {numbers[0]}:{numbers[-1]}" if queues > 1 else f"--queue-num {FIRST}"
    process = start(lab, "A", "sh", "-c", _EACH, "sh", sys.executable, _PROGRAM, *numbers, cpu=None)
    try:
        with contenders.rules(
            lab,
            f"-t raw -A PREROUTING -i lan -p tcp --dport {PORT} -j NFQUEUE {to} --queue-bypass",
            f"-t mangle -A POSTROUTING -o lan -p tcp --sport {PORT} -j NFQUEUE {to} --queue-bypass",
        ):
            yield process
    finally:
        end(process)


def available() -> dict[str, Contender]:
    """One process and two, of either kind."""
    return {
        BASE: partial(balanced, queues=1),
        "do-nothing, two queues": partial(balanced, queues=2),
        "nfreaim, one worker": contenders.nfreaim,
        "nfreaim, two workers": partial(contenders.nfreaim, options=("--workers", "2")),
    }


def talk(clients: int, lab: Lab, name: str, process: Process | None) -> Figures:
    """Text messages to and fro, one in flight per client; the processes run where there is room."""
    gauge.pin(process, *sorted(os.sched_getaffinity(0)))
    figures = paths.talked(lab, clients, SECONDS, process)
    figures["value"] = figures["rate"]
    return figures


SCENARIOS = tuple(
    Scenario(
        f"h: messages, {clients} clients",
        "1/s",
        partial(talk, clients),
        True,
    )
    for clients in (200, 2000)
)
