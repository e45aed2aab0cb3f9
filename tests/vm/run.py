"""`make vm-test` and `make vm-lab`: Debian's kernels and systemd, in virtual machines.

python -m tests.vm.run                    every row, and docs/vm-results.md anew
python -m tests.vm.run --lab [TEST ...]   the lab, or these of its tests, on the newest kernel
python -m tests.vm.run --shell            a shell in a machine with the newest kernel
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from nfreaim import __version__
from tests.documents import to_run
from tests.vm import images, machines, table
from tests.vm.images import REPO, Image, ImageError
from tests.vm.machines import ANSWER, BOOT, Machine, MachineError
from tests.vm.rows import PACKAGE, ROWS, Row, chosen
from tests.vm.table import Column, Result

LIMIT: Final = 40 * 60.0
"""Seconds for all rows, without what it takes to build the images."""
LAB_LIMIT: Final = 8 * 3600.0
PAGE: Final = REPO / "docs" / "vm-results.md"
LOGS: Final = REPO / "build" / "vm"
BUILD: Final = REPO / "tests" / "vm" / "inside"
CHECKOUT: Final = "/root/nfreaim"
PREPARE: Final = f"""
cd {CHECKOUT} && rm -rf .venv && ln -s /opt/venv .venv && git init -q -b main && git add -A &&
git -c user.name=vm -c user.email=vm@localhost commit -qm here && git clone -q --bare . /root/upstream.git &&
git remote add origin /root/upstream.git && git fetch -q && git branch -qu origin/main
"""
"""An operator's clone: `git pull` works, and the tests have their libraries."""


class Run:
    """Machines, results and the time that is left."""

    def __init__(self, seconds: float) -> None:
        self.deadline = time.monotonic() + seconds
        self.results: dict[tuple[str, Column], Result] = {}
        self._machines: list[Machine] = []
        self._over = threading.Event()
        LOGS.mkdir(parents=True, exist_ok=True)

    @property
    def left(self) -> float:
        return self.deadline - time.monotonic()

    def end(self) -> None:
        """Switch all machines off, and start no other one."""
        self._over.set()
        for machine in self._machines:
            machine.close()

    @contextlib.contextmanager
    def machine(self, image: Image, kernel: str) -> Iterator[Machine]:
        """A machine with a copy of this checkout."""
        console = LOGS / f"{image.suite}-{kernel}.console"
        machine = Machine(image, kernel, self.left, console)
        self._machines.append(machine)
        with machine:
            machines.copy_tree(machine, CHECKOUT, 300.0)
            done = machine.run(PREPARE, 300.0)
            if done.returncode != 0:
                raise MachineError(f"the checkout is not usable: {done.stdout}")
            yield machine

    def column(self, image: Image, kernel: str, rows: Sequence[Row]) -> None:
        """All rows on one kernel. What cannot run any more is told as such."""
        column = Column(image.suite, kernel)
        for row in rows:
            self.results[row.name, column] = Result(table.NOT_RUN)
        try:
            with self.machine(image, kernel) as machine:
                if any(row.tests == PACKAGE.tests for row in rows) and self.left > 60:
                    self.package(image, machine)
                for row in rows:
                    if self._over.is_set() or self.left < 60:
                        break
                    first = row is rows[0]
                    self.results[row.name, column] = result = self.row(machine, column, row, first)
                    print(f"{column}: {row.name}: {result}", flush=True)
        except (MachineError, OSError, subprocess.SubprocessError) as error:
            if not self._over.is_set():
                print(f"{column}: {error}", file=sys.stderr, flush=True)

    def package(self, image: Image, machine: Machine) -> None:
        """Put the Debian package of this checkout there, built by the image's own tools at the host's speed.

        Where that cannot be done, the row builds it in the machine.
        """
        folder = LOGS / image.suite
        shutil.rmtree(folder, ignore_errors=True)
        command = "".join(block.text for block in to_run("build", "vm"))
        done = subprocess.run(
            ["unshare", "--mount", "sh", str(BUILD), str(image.disk), str(folder), command],
            stdin=subprocess.DEVNULL,
            stdout=(LOGS / f"{image.suite}-package.log").open("wb"),
            stderr=subprocess.STDOUT,
            timeout=self.left,
        )
        if done.returncode == 0:
            names = b"".join(os.fsencode(path.name) + b"\0" for path in folder.glob("*.deb"))
            machine.put(folder, names, f"{CHECKOUT}/build", 300.0)

    def or_late(self, word: str) -> str:
        """What a row counts as that did not pass: one that the end of the run has cut short was not run."""
        return word if self.left > 1 else table.NOT_RUN

    def row(self, machine: Machine, column: Column, row: Row, first: bool) -> Result:
        """One row; what it printed is in build/vm. The *first* of a machine finds it just booted."""
        began = time.monotonic()
        if row.before:
            machine.run(row.before, ANSWER)
        if row.boots and (row.before or not first):
            try:
                machine.reboot(min(BOOT, self.left))
            except MachineError:
                self.results[row.name, column] = Result(self.or_late(table.FAILED), time.monotonic() - began)
                raise
        limit = min(row.seconds, self.left)
        tests = " ".join(f"tests/vm/{test}" for test in row.tests)
        command = f"cd {CHECKOUT} && .venv/bin/python -m pytest -x -rP --timeout={int(0.9 * limit)} {tests}"
        done = machine.run(command, limit)
        word = table.verdict(done.returncode, done.stdout)
        if done.returncode != 0:
            word = self.or_late(word)
        log = LOGS / f"{column.suite}-{column.kernel}-{ROWS.index(row) + 1:02}.log"
        log.write_text(f"# {row.name}\n$ {command}\n{done.stdout}")
        if word == table.FAILED:
            print(f"{column}: {row.name}: see {log}", file=sys.stderr, flush=True)
        return Result(word, time.monotonic() - began)


def everything(jobs: int, words: Sequence[str] = (), seconds: float = LIMIT) -> int:
    """Every row on every kernel, and the page; the number of rows that did not pass.

    With *words* only the rows that have one of them in their names, and no page.
    """
    place = images.cache()
    with ThreadPoolExecutor(jobs) as pool:
        built = list(pool.map(lambda suite: images.ensure(suite, place), images.SUITES.values()))
    run, began = Run(seconds), time.monotonic()
    newest = (built[-1], built[-1].kernels[-1])
    others = [(image, kernel) for image in built for kernel in image.kernels if (image, kernel) != newest]
    # The newest has most to do, so it is first; the table has it last.
    plan = {which: chosen(words, which == newest) for which in (newest, *others)}
    try:
        with ThreadPoolExecutor(jobs) as pool:
            try:
                for one in [pool.submit(run.column, *which, rows) for which, rows in plan.items() if rows]:
                    one.result()
            except BaseException:
                run.end()
                raise
    finally:
        run.end()
    order = [Column(image.suite, kernel) for image, kernel in (*others, newest)]
    results = {key: result for column in order for key, result in run.results.items() if key[1] == column}
    names = [row.name for row in ROWS if any(row in rows for rows in plan.values())]
    cells = table.table(names, results)
    print(f"\n{table.plain(cells)}\nOutput of the rows: {LOGS}")
    if not words:
        accelerated = machines.acceleration(built[-1]) == machines.ACCELERATED
        today = datetime.datetime.now(datetime.UTC).date()
        PAGE.write_text(table.page(cells, today, __version__, accelerated, time.monotonic() - began))
        print(f"Written: {PAGE}")
    return sum(result.word != table.PASSED for result in results.values())


def lab(tests: Sequence[str]) -> int:
    """The lab on the newest kernel, its output as it comes; pytest's status."""
    image = images.ensure(list(images.SUITES.values())[-1], images.cache())
    run = Run(LAB_LIMIT)
    with run.machine(image, image.kernels[-1]) as machine:
        accelerated = machines.acceleration(image) == machines.ACCELERATED
        words = [
            ".venv/bin/python",
            "-m",
            "pytest",
            "-q",
            "--timeout=900",
            *(["-n", "5"] if accelerated else []),
        ]
        command = f"cd {CHECKOUT} && {shlex.join((*words, *(tests or ('tests/lab',))))}"
        return machine.run_here(command, run.left)


def shell() -> int:
    image = images.ensure(list(images.SUITES.values())[-1], images.cache())
    run = Run(LAB_LIMIT)
    with run.machine(image, image.kernels[-1]) as machine:
        return machine.run_here(f"cd {CHECKOUT} && exec sh -i", run.left, terminal=True)


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="tests.vm.run", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--lab", action="store_true", help="run the lab in the newest machine")
    parser.add_argument("--rows", nargs="+", default=[], metavar="WORD", help="only rows with such a word")
    parser.add_argument("--shell", action="store_true", help="a shell in the newest machine")
    parser.add_argument(
        "--jobs", type=int, default=int(os.environ.get("VM_JOBS") or 2), help="machines at a time"
    )
    parser.add_argument("--seconds", type=float, default=LIMIT, help="how long the rows may take in all")
    parser.add_argument("tests", nargs="*", help="with --lab: only these tests")
    given = parser.parse_args(words)
    lacking = images.missing()
    if lacking:
        print(
            f"vm-test needs {', '.join(lacking)}: sudo apt-get install {' '.join(lacking)}", file=sys.stderr
        )
        return 2
    try:
        with machines.ended_by_signals():
            if given.lab:
                return lab(given.tests)
            return shell() if given.shell else min(everything(given.jobs, given.rows, given.seconds), 1)
    except (ImageError, MachineError, subprocess.SubprocessError) as error:
        print(f"vm-test: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
