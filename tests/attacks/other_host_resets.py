"""A LAN host opens pinholes to another LAN host that is up and answers with resets.

amy forges alice's session with a server outside. alice resets it, and conntrack forgets it ten seconds
later, or somebody flushes conntrack, or alice's firewall keeps her silent; then amy asks, in alice's name,
for a pinhole to a port of alice's: for a file, and as an ICQ client for as long as the session lives.
Nothing must open, with one worker and two.
usage: other_host_resets.py CHECKOUT [WORKERS ...]
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import tests.attacks.kit  # noqa: F401

# isort: split
from tests.attacks.impostor import attack


def main() -> None:
    attack()


if __name__ == "__main__":
    main()
