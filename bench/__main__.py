"""``python -m bench``: nfreaim beside everything a user would pick instead, in one run on one machine."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import ExitStack
from pathlib import Path

from bench import callback, contenders, flows, paths, pinholes, report
from bench.contenders import FTP_PORT, PEER_PORT, PORT
from bench.paths import SINK_PORT
from tests.lab.net import ADDRESS, SERVER, Lab, lab_available


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
    with Lab() as lab, ExitStack() as stack:
        for node, ports in (
            ("server", (PORT, SINK_PORT, FTP_PORT)),
            ("alice", (PEER_PORT,)),
            ("bob", (PEER_PORT,)),
        ):
            address = SERVER if node == "server" else ADDRESS[node]
            stack.callback(contenders.end, paths.serve(lab, node, address, *ports))
        traffic = paths.run(lab, arguments.rounds)
        holes = pinholes.measure(lab, arguments.rounds)
        idle, life = flows.sessions(lab, arguments.rounds), flows.life(lab)
    units = {scenario.name: scenario.unit for scenario in paths.SCENARIOS} | dict.fromkeys(holes, "µs")
    cells = report.rows({**traffic, **holes}, units)
    found = report.targets(traffic, holes, idle, life)
    print("\n" + report.markdown(cells, found))
    report.write(arguments.json, cells, found, {"sessions": idle, "life": life})
    if arguments.picture:
        report.picture(arguments.picture, cells)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
