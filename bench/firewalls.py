"""Scenario (k): the two packet filters that may have the rules, side by side: legacy tables, nftables.

What opening a pinhole takes in each is measured by pinholes.openings. Here is what clients see: text messages
to and fro, and a peer's first packet. And how long the table of nftables is away when somebody else deletes
everything, as a reload of /etc/nftables.conf does.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from bench import contenders, gauge, pinholes
from bench.contenders import CPU, PEER_PORT, Contender, Process, end
from bench.paths import Figures, Scenario, Table, hold, load, stand, talked
from nfreaim.host.netfilter.firewall_kind import VARIABLE, FirewallKind
from tests.lab.net import ADDRESS, WAN, Lab

SECONDS = 1.5
CONNECTS = 1000
FORWARD = "static forward"
RELOAD = "k: back after a deletion"


@contextmanager
def on(kind: FirewallKind, lab: Lab) -> Iterator[Process]:
    """The daemon with its rules in this packet filter."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = kind
    try:
        started = contenders.nfreaim(lab)
        process = started.__enter__()
    finally:
        os.environ.pop(VARIABLE) if before is None else os.environ.update({VARIABLE: before})
    with ExitStack() as stack:
        stack.push(started)
        yield process


def available() -> dict[str, Contender]:
    """A forward without nfreaim, and nfreaim with either."""
    kinds = {f"nfreaim, {kind}": lambda lab, kind=kind: on(kind, lab) for kind in FirewallKind}
    return {FORWARD: contenders.static_forward, **kinds}


def talk(lab: Lab, name: str, process: Process | None) -> Figures:
    """Text messages to and fro, one in flight."""
    gauge.pin(process, CPU)
    figures = talked(lab, 1, SECONDS, process)
    figures["value"] = figures["p50"] * 1e6
    return figures


def first(lab: Lab, name: str, process: Process | None) -> Figures:
    """A peer's connection, with one pinhole open."""
    gauge.pin(process, CPU)
    with ExitStack() as stack:
        if name != FORWARD:
            alice = ADDRESS["alice"]
            stack.callback(end, hold(lab, "alice", f"{alice}-{alice}", 1, PEER_PORT))
        figures = load(lab, "bob", "connect", WAN["A"], PEER_PORT, CONNECTS)
    return {"value": figures["p50"] * 1e6}


SCENARIOS = (
    Scenario("k: messages, 1 client", "µs", talk, False),
    Scenario("k: first packet of a peer", "µs", first, False),
)


def reloads(rounds: int) -> Table:
    """Microseconds until table and pinholes are back, the longest of five times in each round."""
    table: Table = {RELOAD: {}}
    for _ in range(rounds):
        with stand(lambda lab: on(FirewallKind.NFT, lab)) as (lab, process), ExitStack() as stack:
            gauge.pin(process, CPU)
            pinholes.add_hosts(lab)
            for _, hosts, each, base in pinholes.STEPS:
                stack.callback(end, hold(lab, "amy", hosts, each, base))
            told = json.loads(lab.run("A", sys.executable, "-m", "bench.reload").stdout)
        for what, name in (("table", "table"), ("pinholes", "1000 pinholes")):
            table[RELOAD].setdefault(name, []).append({"value": told[what] * 1e6})
            print(f"{RELOAD:28} {name:24} {told[what] * 1e6:10.0f} µs", flush=True)
    return table
