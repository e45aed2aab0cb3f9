"""A LAN host opens pinholes to another LAN host that stays silent, as its server sees to it.

As other_host_resets.py, but each segment of the server carries TCP option 19 (RFC 2385): a Linux host
without a key for it drops the segment and sends no reset, so that conntrack holds an established
connection.
usage: other_host_option19.py CHECKOUT [WORKERS ...]
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import tests.attacks.kit  # noqa: F401

# isort: split
from tests.attacks.forged_session import MD5
from tests.attacks.impostor import attack


def main() -> None:
    attack(MD5)


if __name__ == "__main__":
    main()
