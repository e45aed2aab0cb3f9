"""Connections between nodes of a lab, made and used by this process."""

from __future__ import annotations

import hashlib
import socket
import threading

from tests.lab.namespace import socket_in
from tests.lab.scene import Scene

HTTP = b"GET /index.html HTTP/1.1\r\nHost: example.com\r\n\r\n"


def listener(made: Scene, node: str, address: str) -> socket.socket:
    made_one = socket_in(made.lab, node)
    made_one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made_one.bind((address, 5190))
    made_one.listen(1)
    return made_one


def connect(
    made: Scene, node: str, address: str, server: socket.socket
) -> tuple[socket.socket, socket.socket]:
    """Both ends of a connection to *server*, which listens on *address*."""
    client = socket_in(made.lab, node)
    client.connect((address, 5190))
    accepted, _ = server.accept()
    accepted.settimeout(20.0)
    return client, accepted


def exactly(source: socket.socket, size: int) -> bytes:
    """*size* bytes from a socket."""
    data = bytearray()
    while len(data) < size:
        part = source.recv(min(1 << 16, size - len(data)))
        assert part, f"ended after {len(data)} of {size} bytes"
        data += part
    return bytes(data)


def pour(source: socket.socket, sink: socket.socket, data: bytes) -> None:
    """Send *data* and compare what comes."""
    sender = threading.Thread(target=source.sendall, args=(data,))
    sender.start()
    came = exactly(sink, len(data))
    sender.join()
    assert hashlib.sha256(came).digest() == hashlib.sha256(data).digest()
