"""One fuzzing process: `python -m tests.fuzz.worker TARGET CORPUS FINDINGS SECONDS SEED REPORT`.

Needs atheris. The process ends at the first finding or when its time is up, whatever comes first. *REPORT*
gets one JSON object: executions, memory, the finding.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import sys
import time
import traceback
from pathlib import Path
from typing import Final

import atheris

with atheris.instrument_imports(include=["nfreaim"]):
    from tests.fuzz import mutate
    from tests.fuzz.corpus import LONGEST, OWN
    from tests.fuzz.targets import TARGETS

WARM_UP: Final = 2000
"""Executions after which memory is measured for the first time: caches are full by then."""
GROWTH: Final = 64
"""MiB that memory may grow by after that; the corpus of the fuzzer itself is kept in it, too."""
_EVERY: Final = 500
HANG: Final = 1.0
"""Seconds of processor time for an execution of _SHORT bytes; longer ones hold thousands of packets.

Real time says nothing on a busy machine.
"""
_SHORT: Final = 2048
STUCK: Final = 60
"""Seconds of real time after which libFuzzer ends the process."""


class Leak(Exception):
    """Memory grew with the executions."""


class Hang(Exception):
    """One execution took too long."""


def resident() -> float:
    """MiB of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


class Worker:
    """Counts and measures around the target."""

    def __init__(self, name: str, findings: Path, report: Path, corpus: Path) -> None:
        self.name, self.findings, self.report, self.corpus = name, findings, report, corpus
        self.target = TARGETS[name]
        self.executions = 0
        self.begun = time.monotonic()
        self.warm = self.memory = 0.0
        self.told = 0.0

    def one(self, data: bytes) -> None:
        self.executions += 1
        try:
            begun = time.process_time()
            self.target(data)
            if time.process_time() - begun > HANG * max(1, len(data) / _SHORT):
                raise Hang(f"{time.process_time() - begun:.1f} s for {len(data)} bytes")
        except BaseException as error:
            self.tell(finding=self.keep(data, error))
            raise
        if self.executions % _EVERY == 0:
            self.measure(data)

    def measure(self, data: bytes) -> None:
        self.memory = resident()
        if self.executions < WARM_UP or not self.warm:
            self.warm = self.memory
        if self.memory - self.warm > GROWTH + self.kept():
            error = Leak(f"{self.memory - self.warm:.0f} MiB since execution {WARM_UP}")
            self.tell(finding=self.keep(data, error))
            raise error
        now = time.monotonic()
        if now - self.told > 1:
            self.told = now
            self.tell()

    def kept(self) -> float:
        """MiB of inputs that libFuzzer found worth keeping; it holds them in memory."""
        size = 0
        for path in self.corpus.iterdir():
            with contextlib.suppress(FileNotFoundError):  # the other process found a shorter one
                size += path.stat().st_size
        return 4 * size / (1 << 20)

    def keep(self, data: bytes, error: BaseException) -> str:
        """Store an input that fails, with what happened and how to see it again; where it is."""
        self.findings.mkdir(parents=True, exist_ok=True)
        path = self.findings / f"{self.name}-{abs(hash(data)):016x}"
        path.write_bytes(data)
        trace = "".join(traceback.format_exception(error))
        again = f".venv/bin/python -m tests.fuzz.again {self.name} {path}"
        path.with_suffix(".txt").write_text(f"{again}\n\n{trace}")
        return f"{type(error).__name__}: {error}\n    {again}"

    def tell(self, finding: str | None = None) -> None:
        news = {
            "target": self.name,
            "executions": self.executions,
            "seconds": time.monotonic() - self.begun,
            "memory": self.memory,
            "growth": self.memory - self.warm,
            "finding": finding,
        }
        scratch = self.report.with_suffix(".new")
        scratch.write_text(json.dumps(news))
        scratch.replace(self.report)


def main() -> None:
    name, corpus, findings, seconds, seed, report = sys.argv[1:]
    worker = Worker(name, Path(findings), Path(report), Path(corpus))

    def mutated(data: bytes, limit: int, number: int) -> bytes:
        if number % 6 == 0:
            return bytes(atheris.Mutate(data, limit))
        return mutate.mutated(name, data, limit, number)

    def crossed(one: bytes, other: bytes, limit: int, number: int) -> bytes:
        if name == "segment" or name in OWN:
            return one[:limit]
        return mutate.crossed(one, other, limit, random.Random(number))

    options = [
        f"-max_total_time={seconds}",
        f"-seed={seed}",
        f"-timeout={STUCK}",
        f"-max_len={LONGEST}",
        "-len_control=0",
        "-rss_limit_mb=4096",
        "-print_final_stats=1",
        "-reload=1",
        f"-artifact_prefix={Path(report).with_suffix('.input-')}",
    ]
    Path(findings).mkdir(parents=True, exist_ok=True)
    atheris.Setup(
        [sys.argv[0], *options, corpus], worker.one, custom_mutator=mutated, custom_crossover=crossed
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
