"""A status document as a daemon gives it, for what shows it."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nfreaim.core.counters import Counters
from nfreaim.helpers import HELPERS

ALICE = {"client": "10.0.0.5:40123", "server": "203.0.113.9:5190"}


def document(**changes: Any) -> dict[str, Any]:
    """One session and two pinholes, one of them in use, of a daemon that runs for two hours."""
    pinhole = {
        "outside": "203.0.113.1:5200",
        "inside": "10.0.0.5:5200",
        "protocol": "oscar",
        "service": "send-file",
        "peers": [],
        "unverified": "",
        "age": 75.0,
        "left": 12.4,
        "flow": ALICE,
        "connected": ["198.51.100.7"],
        "connections": 2,
        "active": 1,
        "packets": 84,
        "bytes": 3_005_152,
    }
    waiting = {**pinhole, "outside": "203.0.113.1:40000", "inside": "10.0.0.6:5200", "left": None}
    waiting |= {"connected": [], "connections": 0, "active": 0, "packets": None, "bytes": None}
    session = {**ALICE, "host": "10.0.0.5", "protocol": "oscar", "state": "established", "age": 7300.0}
    event = {"time": 1e9, "event": "pinhole-claimed", "outside": "203.0.113.1:5200", "service": "send-file"}
    queue = {"number": 5190, "waiting": 0, "dropped_full": 0, "dropped_socket": 0, "seen": 309}
    found = {
        "version": "0.1.0",
        "running": True,
        "uptime": 7384.2,
        "accounting": True,
        "sessions": [{**session, "pinholes": 2}],
        "pinholes": [pinhole, waiting],
        "forwards": [],
        "shadowed": [],
        "idle": None,
        "interfaces": {"lan": ["br-lan"], "wan": ["eth0"], "changed": ""},
        "reload": {"at": None, "error": "", "restart": []},
        "carried": {"connections": 1, "packets": 7, "bytes": 900},
        "events": [{**event, "inside": "10.0.0.5:5200", "peer": "198.51.100.7"}],
        "flows": {"known": 1, "edited": []},
        "counters": Counters.of(HELPERS).as_dict() | {"packets": 309, "proposals": 2, "redirects_left": 1},
        "queues": [queue, {**queue, "number": 5222}],
        "workers": [],
    }
    return found | changes


@contextmanager
def answering(path: Path, answer: dict[str, Any]) -> Iterator[None]:
    """A daemon at socket *path*, as far as its answer goes."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            while True:
                try:
                    link, _ = listener.accept()
                except OSError:
                    return
                with link:
                    link.sendall(json.dumps(answer).encode())

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def idle(**changes: Any) -> dict[str, Any]:
    """What a daemon says that waits for interfaces."""
    told = {"why": "IPv4 forwarding is off", "file": "/etc/f.toml", "lan": ["br-lan"], "wan": ["eth0"]}
    nothing: dict[str, Any] = {name: [] for name in ("sessions", "pinholes", "events", "queues")}
    counted = {"carried": dict.fromkeys(("connections", "packets", "bytes"), 0), "counters": {}}
    there = {"lan": [], "wan": [], "changed": ""}
    return (
        document(**nothing, **counted, flows={"known": 0, "edited": []}, interfaces=there, idle=told)
        | changes
    )
