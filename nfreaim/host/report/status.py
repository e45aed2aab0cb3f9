"""The status: one document of the sessions, the open pinholes, recent events, the queues and the counters.

The daemon gives it; without a daemon the kernel's part can be read. The document never holds a
message's text, a user's name, or the agreement of a pinhole: a peer may need to know no more to be let in.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from nfreaim import __version__
from nfreaim.core.address import FlowId
from nfreaim.core.counters import FlowStatus
from nfreaim.core.firewall.pinhole import Pinhole
from nfreaim.core.firewall.policy import Forward
from nfreaim.errors import BackendError
from nfreaim.host.events import Event
from nfreaim.host.netfilter import queue_stats
from nfreaim.host.netfilter.accounting import is_accounting
from nfreaim.host.report.metrics import NOTHING, Readers

_TIMEOUT_S: Final = 10.0

Document = dict[str, Any]
"""Strings, numbers, lists and such documents; times in seconds. docs/status.md has the keys."""


class Seen(NamedTuple):
    """What was seen beside the pinholes themselves.

    carried  see Ledger.told
    total    see Ledger.total
    events   the latest ones
    """

    carried: Mapping[str, Document]
    total: Document
    events: Iterable[Event]


NOTHING_SEEN: Final = Seen({}, {}, ())
_NOTHING_CARRIED: Final = Seen({}, {"connections": 0, "packets": 0, "bytes": 0}, ())


def of_daemon(
    pinholes: Iterable[Pinhole],
    forwards: Iterable[Forward],
    readers: Readers,
    began: float,
    now: float,
    seen: Seen = NOTHING_SEEN,
) -> Document:
    """The document of a daemon. It *began* then, and it is *now*, on the engine's clock."""
    pinholes = list(pinholes)
    return {
        "version": __version__,
        "running": True,
        "uptime": round(now - began, 1),
        "accounting": is_accounting(),
        "sessions": _sessions(readers.stats.newest, Counter(pinhole.flow for pinhole in pinholes), now),
        **_opened(pinholes, forwards, now, seen.carried),
        "carried": seen.total,
        "events": [event.document() for event in seen.events],
        "flows": {"known": readers.stats.flows, "edited": [_flow(flow) for flow in readers.stats.edited]},
        "counters": readers.stats.counters,
        "queues": _queues(),
        "workers": list(readers.workers),
    }


def of_idle(began: float, now: float, idle: Document) -> Document:
    """The document of a daemon that serves nobody yet; times as for ``of_daemon``. Raises BackendError.

    idle  `why`, and what may be written into which `file`: `lan` and `wan`
    """
    told = of_daemon((), (), Readers(NOTHING), began, now, _NOTHING_CARRIED)
    interfaces = {"lan": [], "wan": [], "changed": ""}
    return {**told, "upstream": "", "shadowed": [], "interfaces": interfaces, "idle": idle}


def lines_to_write(idle: Document) -> list[str]:
    """What the operator may write, of the part ``idle`` of a document."""
    return [f"{side} = {json.dumps(idle[side])}" for side in ("lan", "wan")]


def of_kernel() -> Document:
    """The part of the document that the kernel of this network namespace holds. Raises BackendError."""
    from nfreaim.host.pinholes.chosen_firewall import kernel_firewall

    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    firewall = kernel_firewall(lambda: now)
    return {
        "version": __version__,
        "running": False,
        **_opened(firewall.left(), firewall.forwards(), now, {}),
        "queues": _queues(),
    }


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
            refused = error.errno == errno.EACCES and os.geteuid() != 0
            remedy = "; run it as root, or as a member of status_group" if refused else ""
            raise BackendError(f"{path}: {error}{remedy}") from error
    if not chunks:  # the daemon is stopping
        return None
    try:
        document = json.loads(b"".join(chunks))
    except ValueError as error:
        raise BackendError(f"{path}: the daemon stopped in mid-answer; try again") from error
    if not isinstance(document, dict):
        raise BackendError(f"{path}: that is not nfreaim's socket; see status_socket in the configuration")
    return document


def _sessions(flows: Iterable[FlowStatus], pinholes: Counter[FlowId], now: float) -> list[Document]:
    return [
        {
            **_flow(told.flow),
            "host": told.flow[told.inside].address,
            "protocol": told.protocol,
            "state": told.state,
            "age": round(now - told.since, 1),
            "pinholes": pinholes[told.flow],
        }
        for told in flows
    ]


def _opened(
    pinholes: Iterable[Pinhole],
    forwards: Iterable[Forward],
    now: float,
    carried: Mapping[str, Document],
) -> Document:
    return {
        "pinholes": [
            {
                "outside": str(pinhole.outside),
                "announced": None if pinhole.told is None else str(pinhole.told),
                "inside": str(pinhole.inside),
                "protocol": pinhole.protocol,
                "service": pinhole.service,
                "peers": list(pinhole.peers),
                "unverified": pinhole.unverified,
                "age": round(now - pinhole.since, 1),
                "left": None if pinhole.standing else round(max(0.0, pinhole.deadline - now), 1),
                "flow": _flow(pinhole.flow),
                **carried.get(str(pinhole.outside), {}),
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
