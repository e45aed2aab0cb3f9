"""What was measured, as ratios within a round: the targets, a table in Markdown, bench.json and a picture."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import flows, paths, pinholes
from bench.paths import Table

PLAIN, NOTHING, OURS = "plain NAT", "do-nothing queue", "nfreaim"


@dataclass(frozen=True)
class Target:
    """A promise and the figure found; *target* is its bound in words."""

    name: str
    target: str
    figure: float
    met: bool


@dataclass(frozen=True)
class Row:
    """A contender in a scenario: median, least and most over the rounds, and of its ratio to plain NAT."""

    scenario: str
    unit: str
    contender: str
    median: float
    least: float
    most: float
    ratio: float
    ratio_least: float
    ratio_most: float


def ratios(table: Table, scenario: str, ours: str, base: str, figure: str = "value") -> list[float]:
    """Round by round, one contender's figure through another's; some took part in the first round only."""
    pairs = zip(table[scenario][ours], table[scenario][base], strict=False)
    return [mine[figure] / theirs[figure] for mine, theirs in pairs]


def rows(table: Table, units: dict[str, str]) -> list[Row]:
    """Every cell of the tables; ratios are to the first contender of the scenario."""
    made = []
    for scenario, contenders in table.items():
        base = next(iter(contenders))
        for name, rounds in contenders.items():
            values = [figures["value"] for figures in rounds]
            to_base = ratios(table, scenario, name, base)
            made.append(
                Row(
                    *(scenario, units[scenario], name),
                    *(statistics.median(values), min(values), max(values)),
                    *(statistics.median(to_base), min(to_base), max(to_base)),
                )
            )
    return made


def targets(table: Table, resident: dict[str, float], life: dict[str, float]) -> list[Target]:
    """Every target with its figure."""

    def at_least(name: str, bound: float, figure: float) -> Target:
        return Target(name, f">= {bound}", figure, figure >= bound)

    def at_most(name: str, bound: float, figure: float) -> Target:
        return Target(name, f"<= {bound}", figure, figure <= bound)

    def ratio(scenario: str, base: str, figure: str = "value", ours: str = OURS) -> float:
        return statistics.median(ratios(table, scenario, ours, base, figure))

    one, many = "c: messages, 1 client", "c: messages, 2000 clients"
    crowd = table[many][OURS]
    offers = table[pinholes.OFFER]
    above, dissected = (
        [ours["value"] - theirs["value"] for ours, theirs in zip(offers[case], offers[PLAIN], strict=True)]
        for case in ("0 open", pinholes.BY_SCAPY)
    )
    return [
        at_least(
            "(a) one file through a pinhole, to plain NAT", 0.97, ratio("a: peer link, one file", PLAIN)
        ),
        at_least(
            "(a) small files through pinholes, to plain NAT", 0.97, ratio("a: peer link, small files", PLAIN)
        ),
        at_least(
            "(b) bulk on 5190 that is not OSCAR, to plain NAT",
            0.90,
            ratio("b: bulk on 5190, not OSCAR", PLAIN),
        ),
        at_most("(c) one client, median round trip, to the do-nothing queue", 1.10, ratio(one, NOTHING)),
        at_most("(c) one client, CPU a message, to the do-nothing queue", 1.15, ratio(one, NOTHING, "cpu")),
        at_most(
            "(c) 2,000 clients, packets dropped by the queue", 0, sum(figures["drops"] for figures in crowd)
        ),
        at_most("(c) 2,000 clients, stuck connections", 0, sum(figures["stuck"] for figures in crowd)),
        at_least("(c) 2,000 clients, messages a second, to the do-nothing queue", 0.9, ratio(many, NOTHING)),
        at_most(
            "(d) proposal, microseconds above plain NAT, no pinhole open", 1500, statistics.median(above)
        ),
        at_most(
            "(d) proposal, time above plain NAT, to that of one confirmed by scapy",
            0.65,
            statistics.median(ours / theirs for ours, theirs in zip(above, dissected, strict=True)),
        ),
        at_most(
            "(d) proposal with 1,000 pinholes open, to none open",
            1.5,
            ratio(pinholes.OFFER, "0 open", ours="1000 open"),
        ),
        at_most(
            "(e) first packet with 1,000 open, to one open",
            1.3,
            ratio(pinholes.FIRST, "1 open", ours="1000 open"),
        ),
        at_most(
            "(e) other new connections with 1,000 open, to plain NAT",
            1.05,
            ratio(pinholes.OTHER, PLAIN, ours="1000 open"),
        ),
        at_most(
            "(f) bytes of an idle session",
            2048,
            (resident["resident 20000"] - resident["resident 10"]) / 19990,
        ),
        at_most(
            "(f) CPU a packet beside 20,000 sessions, to 10", 1.1, ratio(flows.PACKET, "10", ours="20000")
        ),
        at_most("(g) CPU when idle, share of one", 0.001, life["idle"]),
        at_most("(g) seconds to start", 1.0, life["start"]),
        at_most("(g) resident MiB", 60, life["resident"] / 2**20),
    ]


def markdown(cells: Sequence[Row], found: Sequence[Target], resident: dict[str, float], rounds: int) -> str:
    """Section 2 of docs/performance.md."""
    where = machine()
    lines = [
        f"{rounds} rounds on {where['cpus']} CPUs, Linux {where['kernel']}, Python {where['python']}. "
        "Ratios are to the first line of each table, in the same round.",
        "",
    ]
    lines += ["| target | bound | found | met |", "|---|---|---|---|"]
    lines += [
        f"| {one.name} | {one.target} | {one.figure:.4g} | {'yes' if one.met else '**no**'} |"
        for one in found
    ]
    scenario = ""
    for row in cells:
        if row.scenario != scenario:
            scenario = row.scenario
            lines += [
                "",
                f"**{scenario}**",
                "",
                f"| | {row.unit} (least-most) | ratio (least-most) |",
                "|---|---|---|",
            ]
        lines.append(
            f"| {row.contender} | {_short(row.median)} ({_short(row.least)}-{_short(row.most)}) "
            f"| {row.ratio:.3g} ({row.ratio_least:.3g}-{row.ratio_most:.3g}) |"
        )
    lines += ["", "**f: resident memory beside idle sessions**", "", "| | MiB |", "|---|---|"]
    lines += [f"| {name.removeprefix('resident ')} | {size / 2**20:.1f} |" for name, size in resident.items()]
    return "\n".join(lines) + "\n"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def machine() -> dict[str, str | int]:
    """Where it was measured."""
    return {"kernel": platform.release(), "python": platform.python_version(), "cpus": os.cpu_count() or 0}


def write(
    path: Path, cells: Sequence[Row], found: Sequence[Target], rest: dict[str, dict[str, float]]
) -> None:
    """bench.json: the machine, the targets, every cell, and the figures of (f) and (g)."""
    document = {
        "machine": machine(),
        "targets": [asdict(one) for one in found],
        "rows": [asdict(row) for row in cells],
        **rest,
    }
    path.write_text(json.dumps(document, indent=1) + "\n")


def picture(path: Path, cells: Sequence[Row]) -> None:
    """A bar for each contender of (a), (b) and (c): its speed as a share of plain NAT's. Needs matplotlib."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot, ticker

    # The same file from the same figures, whenever and wherever it is drawn.
    matplotlib.rcParams["svg.hashsalt"] = "nfreaim"
    scenarios = list(paths.SCENARIOS)
    patch = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # the line at 1 does not cross the figures
    figure, axes = pyplot.subplots(2, 3, figsize=(13, 6.5), constrained_layout=True)
    for axis, scenario in zip(axes.flat, scenarios, strict=True):
        mine = [row for row in cells if row.scenario == scenario.name][::-1]
        speed = [row.ratio if scenario.higher else 1 / row.ratio for row in mine]
        colours = ["#c0392b" if row.contender == OURS else "#7f8c8d" for row in mine]
        axis.barh([row.contender for row in mine], speed, color=colours)
        for place, value in enumerate(speed):
            axis.text(value * 1.05, place, f"{value:.2g}", va="center", fontsize=8, bbox=patch)
        axis.set_xscale("log")
        axis.set_xlim(min(speed) / 2, max(*speed, 1) * 2.5)  # room for the figures
        axis.axvline(1, color="black", linewidth=0.8)
        axis.set_title(scenario.name, fontsize=10)
        axis.xaxis.set_minor_formatter(ticker.NullFormatter())
        axis.tick_params(labelsize=8)
    figure.suptitle(
        "Speed as a share of plain NAT in the same round (1 = plain NAT; logarithmic)", fontsize=11
    )
    figure.savefig(path, metadata={"Date": None})
