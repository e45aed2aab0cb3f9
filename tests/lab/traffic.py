"""A plain TCP download, for traffic that no ALG has any business with.

``python -m tests.lab.traffic serve PORT`` answers one request and prints the SHA-256 of what it sent; ``...
fetch ADDRESS PORT SIZE`` asks for SIZE random bytes and prints the SHA-256 of what came. :func:`download`
runs both in a lab.
"""

from __future__ import annotations

import hashlib
import os
import socket
import sys
import threading

from tests.lab.net import Lab, LabError


def download(lab: Lab, client: str, server: str, address: str, port: int, size: int = 2_000_000) -> None:
    """Let node *client* fetch *size* bytes from *address*:*port*, which is node *server*; LabError unless
    exact."""
    listening = lab.spawn(server, sys.executable, "-m", "tests.lab.traffic", "serve", str(port), pipes=True)
    stuck = threading.Timer(30.0, listening.kill)
    stuck.start()
    try:
        assert listening.stdout is not None
        listening.stdout.readline()
        fetch = [sys.executable, "-m", "tests.lab.traffic", "fetch", address, str(port), str(size)]
        got = lab.run(client, *fetch, check=False).stdout.strip()
        sent = listening.stdout.readline().decode().strip()
    finally:
        stuck.cancel()
        listening.kill()
        listening.wait(10)
    if not sent or got != sent:
        raise LabError(f"{client} -> {address}:{port}: sent {sent or 'nothing'}, received {got or 'nothing'}")


def _serve(port: int) -> None:
    with socket.create_server(("0.0.0.0", port)) as listener:
        print("listening", flush=True)
        connection, _ = listener.accept()
    with connection:
        size = int(connection.makefile("rb").readline().split()[1])
        data = os.urandom(size)
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)  # until the other end has read it all and closes
    print(hashlib.sha256(data).hexdigest(), flush=True)


def _fetch(address: str, port: int, size: int) -> None:
    with socket.create_connection((address, port), 10) as connection:
        connection.sendall(f"GET {size} HTTP/1.0\r\n".encode())
        data = connection.makefile("rb").read()
    if len(data) != size:
        raise SystemExit(f"{len(data)} of {size} bytes")
    print(hashlib.sha256(data).hexdigest(), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        _serve(int(sys.argv[2]))
    else:
        _fetch(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
