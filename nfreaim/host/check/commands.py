"""Programs of the system that are asked for something: run, and their answers read. None changes anything."""

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Sequence
from typing import Any

from nfreaim.errors import BackendError

TIMEOUT_S = 60.0


def which(program: str) -> str | None:
    """Where a program is, the directories of system programs included; a plain user's PATH lacks them."""
    return shutil.which(program, path=_path())


def run(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a program, in English and without input. Raises OSError and subprocess.TimeoutExpired."""
    return subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        env={**os.environ, "LC_ALL": "C", "PATH": _path()},
    )


def json_from(words: Sequence[str]) -> Any:
    """The JSON that a program prints; no output means an empty list.

    Raises BackendError if it fails, json.JSONDecodeError if it prints something else.
    """
    result = run(words)
    if result.returncode != 0:
        raise BackendError(f"{' '.join(words)}: {result.stderr.strip()}")
    return json.loads(result.stdout or "[]")


def interface_exists(name: str) -> bool:
    """Is there a network interface of this name in this network namespace?"""
    try:
        return socket.if_nametoindex(name) > 0
    except OSError:
        return False


def networks_of(interface: str) -> set[str]:
    """IPv4 networks of an interface, connected and static, as nfreaim-rules sees them: no default route."""
    if not interface_exists(interface):
        return set()
    routes = json_from(["ip", "-4", "-j", "route", "show", "dev", interface])
    return {route["dst"] for route in routes if route["dst"][0].isdigit() and not route["dst"].endswith("/0")}


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"
