"""A hostile server has its client's traffic to servers of its choice go through the daemon.

As followed_collapse.py, but alice herself has signed on to that server. Her downloads from a web server
must not be queued all the same.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import tests.attacks.kit  # noqa: F401

# isort: split
from tests.attacks.followed import attack


def main() -> None:
    attack("alice", "the web traffic of the client that was redirected")


if __name__ == "__main__":
    main()
