"""Branch coverage by package, from what coverage.py wrote down: `make coverage`.

Prints a line for each package, and for those that must be covered what is missing. Exit status 1 if one of
them is below its share. Lines and branches count alike, as in coverage.py's own total.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from coverage import Coverage

# What does no I/O can be tested whole. The rest also runs in the lab, as root, where nothing is measured.
GATED = ("nfreaim/core", "nfreaim/helpers", "nfreaim/layers")
SHARE = 95.0


@dataclass
class Package:
    """The sums over its files, and what is missing in each."""

    lines: int = 0
    covered_lines: int = 0
    branches: int = 0
    covered_branches: int = 0
    missing: list[str] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Per cent."""
        return 100.0 * (self.covered_lines + self.covered_branches) / max(1, self.lines + self.branches)


def packages() -> dict[str, Package]:
    """Those below nfreaim by path; its own modules are one of them."""
    coverage = Coverage()
    coverage.load()
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        coverage.json_report(outfile=file.name)
        files = json.loads(Path(file.name).read_text())["files"]
    found: dict[str, Package] = defaultdict(Package)
    for path, measured in files.items():
        package, summary = found["/".join(Path(path).parts[:-1][:2])], measured["summary"]
        package.lines += summary["num_statements"]
        package.covered_lines += summary["covered_lines"]
        package.branches += summary["num_branches"]
        package.covered_branches += summary["covered_branches"]
        lines, jumps = measured["missing_lines"], measured["missing_branches"]
        partial = (f"{a}->{b if b > 0 else 'exit'}" for a, b in jumps if a not in lines and b not in lines)
        if missing := [*map(str, lines), *partial]:
            package.missing.append(f"{path}: {', '.join(missing)}")
    return dict(found)


def main() -> int:
    """The table."""
    measured = packages()
    for name, package in sorted(measured.items()):
        print(
            f"{name:16} {package.share:6.2f} %   {package.covered_lines} of {package.lines} lines,"
            f" {package.covered_branches} of {package.branches} branches"
        )
    for name in GATED:
        print(f"Not covered in {name}:", *measured[name].missing, sep="\n    ")
    if low := [name for name in GATED if measured[name].share < SHARE]:
        print(f"below {SHARE:g} %: {', '.join(low)}", file=sys.stderr)
    return int(bool(low))


if __name__ == "__main__":
    sys.exit(main())
