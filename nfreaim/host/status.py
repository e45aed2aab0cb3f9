"""``nfreaim status``: what is open right now, read from the kernel, so that it needs no running daemon."""

from __future__ import annotations

import time
from pathlib import Path

from nfreaim.host.forwards import Forwards
from nfreaim.host.pins import Pins

_QUEUES = Path("/proc/net/netfilter/nfnetlink_queue")


def main() -> int:
    """Print the pinholes and the queues of this network namespace. Raises BackendError."""
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    firewall = Pins(Forwards(), lambda: now)
    forwards = firewall.forwards()
    pinholes = sorted(firewall.list(), key=lambda pinhole: pinhole.deadline)
    for hole in pinholes:
        left = "while signed on" if hole.session else f"{max(0.0, hole.deadline - now):.0f} s left"
        only = f", only from {' '.join(hole.peers)}" if hole.peers else ""
        print(
            f"pinhole {hole.outside} -> {hole.inside} for {hole.service} of {hole.owner.client}"
            f"{only}, {left}, open for {now - hole.since:.0f} s"
        )
    for forward in forwards:
        print(f"forward {forward}, as configured")
    print(f"{len(pinholes)} pinholes")
    for line in _QUEUES.read_text().splitlines():
        number, _, waiting, _, _, full, lost, last, *_ = line.split()
        print(f"queue {number}: {waiting} waiting, {last} seen, {full} + {lost} dropped")
    return 0
