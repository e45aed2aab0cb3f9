"""One input once more: `python -m tests.fuzz.again TARGET FILE ...`. Fails as it failed. Needs no atheris."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.fuzz.targets import TARGETS


def main() -> None:
    target = TARGETS[sys.argv[1]]
    for name in sys.argv[2:]:
        target(Path(name).read_bytes())
        print(f"{name}: nothing wrong")


if __name__ == "__main__":
    main()
