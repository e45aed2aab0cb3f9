"""A program that listens on a node, as somebody's client does."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.lab.net import Lab
from tests.lab.standin import by_user

LISTENER = """
import socket, sys
listener = socket.create_server((sys.argv[1], int(sys.argv[2])))
print("listening", flush=True)
sys.stdin.readline()
"""


@contextmanager
def listening(lab: Lab, user: int, port: int, node: str = "A", address: str = "0.0.0.0") -> Iterator[None]:
    """A program of *user* listens on this node."""
    start = [*by_user(user), sys.executable, "-c", LISTENER, address, str(port)]
    program = lab.spawn(node, *start, pipes=True)
    try:
        assert program.stdout is not None
        assert program.stdout.readline() == b"listening\n"
        yield
    finally:
        program.kill()
        program.wait(10)
