"""Runs programs of the system and reads their answers. None of the programs changes anything."""

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
    """The path of a program, looked for also in the system's directories, which a plain user's PATH lacks."""
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
    """The JSON that a program prints; an empty list if it prints nothing.

    Raises BackendError if the program fails, json.JSONDecodeError if it prints something else.
    """
    result = run(words)
    if result.returncode != 0:
        raise BackendError(f"{' '.join(words)}: {result.stderr.strip()}")
    return json.loads(result.stdout or "[]")


def interface_exists(name: str) -> bool:
    """Whether this network namespace has a network interface of this name."""
    try:
        return socket.if_nametoindex(name) > 0
    except OSError:
        return False


def networks_of(interface: str) -> set[str]:
    """IPv4 networks of an interface, connected and static, but no default route: those of nfreaim-rules."""
    if not interface_exists(interface):
        return set()
    routes = json_from(["ip", "-4", "-j", "route", "show", "dev", interface])
    return {route["dst"] for route in routes if route["dst"][0].isdigit() and not route["dst"].endswith("/0")}


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"
