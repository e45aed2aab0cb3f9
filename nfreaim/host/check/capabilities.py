"""The two capabilities that nfreaim needs; it needs no other privilege of root, nor to be root.

CAP_NET_ADMIN is for the queue, connection tracking, the sets and the rules, CAP_NET_RAW for libiptc's raw
socket and for resets.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from nfreaim.errors import BackendError

CAPABILITIES: Final = {"CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13}
"""Bit numbers, linux/capability.h."""


def missing() -> list[str]:
    """The names of the capabilities that are not effective in this process."""
    status = Path("/proc/self/status").read_text()
    effective = int(next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), 16)
    return [name for name, bit in CAPABILITIES.items() if not effective >> bit & 1]


def require() -> None:
    """Raise BackendError if a capability is missing: the daemon would start and fail at the first message."""
    if lacking := missing():
        raise BackendError(
            f"{' and '.join(lacking)} missing: run it as root, or in the unit CapabilityBoundingSet= and "
            f"AmbientCapabilities= need {' '.join(CAPABILITIES)}"
        )
