"""`nfreaim status`: prints the open pinholes, the queues and the counters.

The daemon gives the document; without a daemon the kernel's part is read. The document never holds a
message's text, a user's name, or the agreement of a pinhole: a peer may need to know no more to be let in.
"""

from __future__ import annotations

import errno
import json
import socket
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from nfreaim import __version__
from nfreaim.core.address import FlowId
from nfreaim.core.firewall.pinhole import Pinhole
from nfreaim.core.firewall.policy import Forward
from nfreaim.errors import BackendError
from nfreaim.host.netfilter import queue_stats
from nfreaim.host.report.metrics import Readers

_TIMEOUT_S: Final = 10.0

Document = dict[str, Any]
"""Strings, numbers, lists and such documents; times in seconds. See the README for the keys."""


def of_daemon(
    pinholes: Iterable[Pinhole], forwards: Iterable[Forward], readers: Readers, began: float, now: float
) -> Document:
    """The document of a daemon. It *began* then, and it is *now*, on the engine's clock."""
    return {
        "version": __version__,
        "running": True,
        "uptime": round(now - began, 1),
        **_opened(pinholes, forwards, now),
        "flows": {"known": readers.stats.flows, "edited": [_flow(flow) for flow in readers.stats.edited]},
        "counters": readers.stats.counters,
        "queues": _queues(),
        "workers": list(readers.workers),
    }


def of_kernel() -> Document:
    """The part of the document that the kernel of this network namespace holds. Raises BackendError."""
    from nfreaim.host.pinholes.ipset_firewall import IpsetFirewall

    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    firewall = IpsetFirewall(lambda: now)
    return {
        "version": __version__,
        "running": False,
        **_opened(firewall.list(), firewall.forwards(), now),
        "queues": _queues(),
    }


def main(path: Path, as_json: bool) -> int:
    """Print the document of the daemon at socket *path*, or else the kernel's. Raises BackendError."""
    document = fetch(path) or of_kernel()
    if as_json:
        print(json.dumps(document, indent=1))
    else:
        print("\n".join(_lines(document)))
    return 0


def fetch(path: Path) -> Document | None:
    """The document of the daemon at socket *path*; None if no daemon listens there. Raises BackendError."""
    chunks = []
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(_TIMEOUT_S)
        try:
            link.connect(str(path))
            while chunk := link.recv(65536):
                chunks.append(chunk)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ECONNREFUSED, errno.ECONNRESET):
                return None
            remedy = "run it as root, or as a member of status_group" if error.errno == errno.EACCES else ""
            raise BackendError(f"{path}: {error}{remedy and '; ' + remedy}") from error
    if not chunks:  # the daemon is stopping
        return None
    try:
        document = json.loads(b"".join(chunks))
    except ValueError as error:
        raise BackendError(f"{path}: the daemon stopped in mid-answer; try again") from error
    if not isinstance(document, dict):
        raise BackendError(f"{path}: that is not nfreaim's socket; see status_socket in the configuration")
    return document


def _lines(document: Document) -> Iterable[str]:
    for pinhole in document["pinholes"]:
        remaining = "while connected" if pinhole["left"] is None else f"{pinhole['left']:.0f} s left"
        peer = f", only from {' '.join(pinhole['peers'])}" if pinhole["peers"] else ""
        yield (
            f"pinhole {pinhole['outside']} -> {pinhole['inside']} for {pinhole['service']} "
            f"of {pinhole['flow']['client']}{peer}, {remaining}, open for {pinhole['age']:.0f} s, "
            f"{pinhole['protocol']}"
        )
    for forward in document["forwards"]:
        yield f"forward {forward}, as configured"
    yield f"{len(document['pinholes'])} pinholes"
    for worker in document.get("workers", ()):
        yield (
            f"worker {worker['number']}: process {worker['pid']}, queue {worker['queue']}, "
            f"{worker['flows']} connections, {worker['packets']} packets"
        )
    for queue in document["queues"]:
        yield (
            f"queue {queue['number']}: {queue['waiting']} waiting, {queue['seen']} seen, "
            f"{queue['dropped_full']} + {queue['dropped_socket']} dropped"
        )


def _opened(pinholes: Iterable[Pinhole], forwards: Iterable[Forward], now: float) -> Document:
    return {
        "pinholes": [
            {
                "outside": str(pinhole.outside),
                "inside": str(pinhole.inside),
                "protocol": pinhole.protocol,
                "service": pinhole.service,
                "peers": list(pinhole.peers),
                "age": round(now - pinhole.since, 1),
                "left": None if pinhole.standing else round(max(0.0, pinhole.deadline - now), 1),
                "flow": _flow(pinhole.flow),
            }
            for pinhole in sorted(pinholes, key=lambda pinhole: pinhole.deadline)
        ],
        "forwards": [str(forward) for forward in forwards],
    }


def _flow(flow: FlowId) -> dict[str, str]:
    return {"client": str(flow.client), "server": str(flow.server)}


def _queues() -> list[dict[str, int]]:
    """The kernel's statistics of each queue here. Raises BackendError."""
    names = ("number", "waiting", "dropped_full", "dropped_socket", "seen")
    return [{name: getattr(queue, name) for name in names} for queue in queue_stats.queues()]
