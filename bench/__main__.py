"""``python -m bench``: nfreaim beside everything a user would pick instead, in one run on one machine."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from bench import callback, contenders, firewalls, flows, paths, pinholes, report, workers
from tests.lab.net import lab_available


def main() -> int:
    """Measure, write what was asked for, print tables and targets. Status 1 if nothing can be measured."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, default=Path("bench.json"))
    parser.add_argument("--picture", type=Path, help="needs matplotlib")
    parser.add_argument(
        "--callback", action="store_true", help="only the Python part of a packet; needs no root"
    )
    arguments = parser.parse_args()
    if arguments.callback:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        callback.main()
        return 0
    if (reason := lab_available()) is not None:
        print(f"nothing can be measured: {reason}", file=sys.stderr)
        return 1
    begin = time.monotonic()
    rounds = arguments.rounds
    tables = paths.run(rounds, paths.SCENARIOS, contenders.available())
    python = callback.main()
    tables |= pinholes.measure(rounds) | pinholes.openings(rounds)
    idle, resident = flows.sessions(rounds)
    tables |= idle
    tables |= paths.run(rounds, workers.SCENARIOS, workers.available())
    tables |= paths.run(rounds, firewalls.SCENARIOS, firewalls.available()) | firewalls.reloads(rounds)
    life = flows.life()
    units = {one.name: one.unit for one in (*paths.SCENARIOS, *workers.SCENARIOS, *firewalls.SCENARIOS)}
    cells = report.rows(tables, dict.fromkeys(tables, "µs") | units)
    found = report.targets(tables, resident, life)
    talk = python[callback.MSN_TEXT] / python[callback.AIM_TEXT]
    found.append(report.Target(callback.TARGET, "<= 1.2", talk, talk <= 1.2))
    print("\n" + report.markdown(cells, found, resident, rounds))
    report.write(arguments.json, cells, found, {"sessions": resident, "life": life})
    if arguments.picture:
        report.picture(arguments.picture, cells)
    print(f"{rounds} rounds in {(time.monotonic() - begin) / 60:.1f} minutes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
