"""No deadline may depend on the clock on the wall: it is set, it leaps, and it differs after a restart."""

from __future__ import annotations

import ast
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "nfreaim"
WALL = {"time", "time_ns", "localtime", "gmtime", "ctime", "now", "utcnow", "today", "CLOCK_REALTIME"}
SOURCES = {"time", "datetime", "date", "os"}


def wall_clocks(source: str) -> Iterator[str]:
    """Every use of a wall clock in *source*, by attribute or by import."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr in WALL:
            value = node.value
            name = value.id if isinstance(value, ast.Name) else getattr(value, "attr", "")
            if name in SOURCES:
                yield f"{name}.{node.attr}"
        elif isinstance(node, ast.ImportFrom) and node.module in SOURCES:
            yield from (f"from {node.module}: {a.name}" for a in node.names if a.name in WALL | {"datetime"})
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name == "datetime")


def test_nothing_that_has_deadlines_reads_the_wall_clock() -> None:
    """One place tells people when something happened. What only shows something has no deadlines."""
    paths = sorted(path for path in PACKAGE.rglob("*.py") if PACKAGE / "show" not in path.parents)
    found = {str(path.relative_to(PACKAGE)): list(wall_clocks(path.read_text())) for path in paths}
    assert len(found) > 40
    assert {path: uses for path, uses in found.items() if uses} == {"host/events.py": ["time.time"]}


def test_the_search_finds_what_it_looks_for() -> None:
    for source in (
        "import time\ntime.time()",
        "from time import time",
        "import time\ntime.clock_gettime(time.CLOCK_REALTIME)",
        "import datetime\ndatetime.datetime.now()",
        "from datetime import datetime",
    ):
        assert list(wall_clocks(source)), source
    assert not list(wall_clocks("import time\ntime.monotonic()\ntime.sleep(1)\nself.now"))


def test_the_daemons_clock_counts_from_boot() -> None:
    pytest.importorskip("netfilterqueue")
    from nfreaim.host.loop import clock

    assert abs(clock() - time.clock_gettime(time.CLOCK_BOOTTIME)) < 60.0
    assert clock() < float(Path("/proc/uptime").read_text().split()[0]) + 60.0
