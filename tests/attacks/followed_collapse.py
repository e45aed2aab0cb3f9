"""A hostile server has the traffic of the whole LAN to servers of its choice go through the daemon.

It redirects its client to 1,101 places, a web server among them, before sign-on is over. alice's downloads
from that web server, in connections of her own, must not be queued.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import tests.attacks.kit  # noqa: F401

# isort: split
from tests.attacks.followed import attack


def main() -> None:
    attack("amy", "alice's web traffic")


if __name__ == "__main__":
    main()
