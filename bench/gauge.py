"""What a process costs, from /proc: CPU seconds and resident bytes, its children included."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from bench.contenders import Process

_PAGE = os.sysconf("SC_PAGE_SIZE")


def tree(process: Process) -> list[int]:
    """Its process id and those of its children."""
    found, pids = [], [process.pid]
    while pids:
        pid = pids.pop()
        found.append(pid)
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            pids += map(int, children.read_text().split())
    return found


def cpu(process: Process | None) -> float:
    """CPU seconds so far, in user space and in the kernel on its behalf; 0 for none."""
    return sum(_cpu(pid) for pid in tree(process)) if process else 0.0


def _cpu(pid: int) -> float:
    # From schedstat: nanoseconds, where /proc/PID/stat counts ticks.
    total = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        total += int((thread / "schedstat").read_text().split()[0])
    return total / 1e9


def resident(process: Process) -> int:
    """Resident bytes."""
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE for pid in tree(process))


def pin(process: Process | None, cpu: int) -> None:
    """Let it run on one CPU only."""
    for pid in tree(process) if process else ():
        subprocess.run(["taskset", "-acp", str(cpu), str(pid)], check=True, capture_output=True)
