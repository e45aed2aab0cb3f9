"""What a process costs, from /proc: CPU seconds and resident bytes, its children included."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from bench.contenders import Process

_PAGE = os.sysconf("SC_PAGE_SIZE")


def tree(root: int) -> list[int]:
    """The process id *root* and those of its children."""
    found, pids = [], [root]
    while pids:
        pid = pids.pop()
        found.append(pid)
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            pids += map(int, children.read_text().split())
    return found


def cpu(process: Process | None) -> float:
    """CPU seconds so far, in user space and in the kernel on its behalf, children included; 0 for none."""
    return cpu_of(process.pid) if process else 0.0


def cpu_of(root: int) -> float:
    """The same of a process id."""
    return sum(_cpu(pid) for pid in tree(root))


def _cpu(pid: int) -> float:
    # From schedstat: nanoseconds, where /proc/PID/stat counts ticks.
    total = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        total += int((thread / "schedstat").read_text().split()[0])
    return total / 1e9


def resident(process: Process) -> int:
    """Resident bytes."""
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE for pid in tree(process.pid))


def pin(process: Process | None, *cpus: int) -> None:
    """Let it run on these CPUs only."""
    for pid in tree(process.pid) if process else ():
        subprocess.run(
            ["taskset", "-acp", ",".join(map(str, cpus)), str(pid)], check=True, capture_output=True
        )
