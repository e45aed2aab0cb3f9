"""`make fuzz`: runs the targets for a given time, two processes at once, and prints what came of it.

    python -m tests.fuzz.run --seconds N [--target NAME ...] [--jobs 2] [--seed N]

Ends with status 1 if there is any finding. Everything but findings is left in a temporary folder and removed.
"""

from __future__ import annotations

import argparse
import json
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.fuzz import corpus

FINDINGS: Final = Path(__file__).parent / "findings"
SHARES: Final = {
    "engine": 8,
    "gate": 2,
    "records": 1,
    "helper": 4,
    "flap": 2,
    "segment": 1,
    "msn": 2,
    "stanzas": 2,
    "pager": 1,
}
"""Of the time, for each target."""
_RESTARTS: Final = 8  # of one process after findings
_GRACE: Final = 180  # seconds that a process may take longer than it was told to
_UNITS: Final = re.compile(r"stat::number_of_executed_units:\s*(\d+)|^#(\d+)\s", re.M)
_EDGES: Final = re.compile(r"cov: (\d+)")


@dataclass(slots=True)
class Total:
    """What came of one target."""

    executions: int = 0
    seconds: float = 0.0
    edges: int = 0
    seeds: int = 0
    corpus: int = 0
    growth: float = 0.0
    findings: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        rate = self.executions / self.seconds if self.seconds else 0
        return (
            f"{self.executions} executions, {rate:.0f}/s for each process, {self.edges} edges,"
            f" corpus {self.seeds} -> {self.corpus}, memory +{self.growth:.0f} MiB,"
            f" {len(self.findings)} findings"
        )


class Job:
    """A process that fuzzes one target, begun again after a finding."""

    def __init__(self, name: str, folder: Path, until: float, seed: int, total: Total) -> None:
        self.name, self.folder, self.until, self.seed, self.total = name, folder, until, seed, total
        self.begun = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        left = int(self.until - time.monotonic())
        if left < 1 or self.begun > _RESTARTS:
            return
        self.begun += 1
        self.seed += 1
        stem = self.folder / f"{self.name}-{self.seed}"
        self.report, self.log = stem.with_suffix(".json"), stem.with_suffix(".log")
        arguments = [self.name, self.folder / self.name, FINDINGS, left, self.seed, self.report]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.fuzz.worker", *map(str, arguments)], stdout=log, stderr=log
            )

    def goes_on(self) -> bool:
        """Whether there is more to do. A process that has ended is begun again."""
        if self.process is None:
            return False
        if time.monotonic() > self.until + _GRACE:
            self.process.kill()
            self.process.wait()
        status = self.process.poll()
        if status is None:
            return True
        self.process = None
        self._account(status)
        self.start()
        return self.process is not None

    def _account(self, status: int) -> None:
        total, text = self.total, self.log.read_text("utf-8", "replace")
        news = json.loads(self.report.read_text()) if self.report.exists() else {}
        units = [int(one or two) for one, two in _UNITS.findall(text)]
        total.executions += max([news.get("executions", 0), *units])
        total.edges = max([total.edges, *map(int, _EDGES.findall(text))])
        total.growth = max(total.growth, news.get("growth", 0.0))
        if news.get("finding"):
            self._found(news["finding"])
        elif status:
            FINDINGS.mkdir(exist_ok=True)
            kept = [self.log, *self.folder.glob(f"{self.report.stem}.input-*")]
            for path in kept:
                shutil.copy(path, FINDINGS / path.name)
            self._found(f"a process ended with status {status}: {FINDINGS / self.log.name}")

    def _found(self, text: str) -> None:
        if text not in self.total.findings:
            self.total.findings.append(text)
            print(f"  {self.name}: {text}", flush=True)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


def fuzz(name: str, folder: Path, seconds: float, jobs: int, seed: int) -> Total:
    """Run one target for so many seconds."""
    total = Total(seeds=corpus.write(name, folder / name))
    begun = time.monotonic()
    running = [Job(name, folder, begun + seconds, seed + 1000 * n, total) for n in range(jobs)]
    try:
        while sum(job.goes_on() for job in running):  # each is asked
            time.sleep(0.5)
    finally:
        for job in running:
            job.stop()
    total.seconds = (time.monotonic() - begun) * jobs
    total.corpus = len(list((folder / name).iterdir()))
    return total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, required=True)
    parser.add_argument("--target", action="append", choices=list(SHARES))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="0: a new one")
    options = parser.parse_args()
    names = options.target or list(SHARES)
    seed = options.seed or secrets.randbelow(1 << 24)
    print(f"fuzzing {', '.join(names)} for {options.seconds} s with {options.jobs} processes, seed {seed}")
    whole = sum(SHARES[name] for name in names)
    totals: dict[str, Total] = {}
    with tempfile.TemporaryDirectory(prefix="nfreaim-fuzz-") as folder:
        for name in names:
            totals[name] = fuzz(
                name, Path(folder), options.seconds * SHARES[name] / whole, options.jobs, seed
            )
            print(f"{name}: {totals[name]}", flush=True)
    findings = [text for total in totals.values() for text in total.findings]
    executions = sum(total.executions for total in totals.values())
    print(f"total: {executions} executions, {len(findings)} findings")
    for text in findings:
        print(f"FINDING {text}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
