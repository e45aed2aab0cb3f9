"""What is looked at in each network beside the clients: other traffic, and the routers' rules."""

from __future__ import annotations

import difflib
import time

from demo.rows import Cell, Column
from tests.lab.net import LAN, Daemon, Lab
from tests.lab.traffic import download


def ordinary(column: Column) -> Cell:
    """Traffic that is none of nfreaim's business: right at both ends, and not one packet of it queued."""
    lab = column.lab
    before: dict[str, dict[int, int]] = {}
    while before != (before := {router: lab.queue_state(router) for router in column.routers}):
        time.sleep(0.5)  # the last packets of the control connections
    began = time.monotonic()
    download(lab, "alice", "bob", "203.0.113.20", 8080)
    download(lab, "carol", "bob", "203.0.113.20", 8080)
    download(lab, "alice", "amy", "10.0.0.6", 5190)
    download(lab, "alice", "A", LAN["A"], 5190)
    download(lab, "carol", "B", LAN["B"], 5190)
    seconds = time.monotonic() - began
    after = {router: lab.queue_state(router) for router in column.routers}
    for router in column.routers:
        if not any(before[router].values()):
            return Cell(
                False, "no queue", reason=f"router {router}: control traffic was not queued", good=False
            )
    if before != after:
        return Cell(False, "queued", reason=f"NFQUEUE counters {before} became {after}", good=False)
    return Cell(True, f"ok {seconds:.1f} s")


def stopped(lab: Lab, daemons: dict[str, Daemon], before: dict[str, str]) -> Cell:
    """Stop the daemons: then the routers' rules must be what they were *before*."""
    if not daemons:
        return Cell(True, "-")
    problems = []
    for router, daemon in daemons.items():
        if lab.firewall_rules(router) == before[router]:
            problems.append(f"router {router}: no rules while running")
        status = daemon.stop()
        if status != 0:
            problems.append(f"router {router}: nfreaim ended with status {status}")
        pair = before[router].splitlines(), lab.firewall_rules(router).splitlines()
        problems += [f"router {router}: {line}" for line in difflib.unified_diff(*pair, lineterm="", n=0)]
    good = not problems
    return Cell(good, "yes" if good else "no", reason="; ".join(problems), good=good)
