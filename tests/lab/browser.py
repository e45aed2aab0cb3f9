"""A browser on a LAN host, and the server of a page that makes it upload something.

The browser is curl. The server announces a small MSS and answers as it likes; a session that is to be
smuggled begins where a segment of the upload does, else the attack would prove nothing.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tests.lab.capture import Capture
from tests.lab.namespace import socket_in
from tests.lab.net import ADDRESS, Lab
from tests.lab.scene import eventually
from tests.lab.slipstream import same
from tests.lab.sockets import exactly

SIZE = 8000  # of an upload, in bytes
# Any four bytes of it tell where in the upload they stand.
RULER = b"".join(struct.pack("!BBH", 0xFE, 0xFD, at // 4) for at in range(0, SIZE, 4))


def hostile_listener(lab: Lab, port: int) -> socket.socket:
    """The hostile server's socket on bob."""
    listener = socket_in(lab, "bob")
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
    listener.bind((ADDRESS["bob"], port))
    listener.listen(8)
    return listener


def upload(lab: Lab, listener: socket.socket, words: list[str], answer: bytes, early: bool) -> None:
    """Let curl on alice make a request, which *answer* follows; *early*: one comes before it, too."""
    options = "-s -S --http0.9 --noproxy * --max-time 20 -H Expect: --output -".split()
    url = f"http://{ADDRESS['bob']}:{listener.getsockname()[1]}/upload"
    browser = lab.spawn("alice", "curl", *options, *words, url, pipes=True)
    stuck = threading.Timer(25.0, browser.kill)
    stuck.start()
    try:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(20.0)
            if early:
                connection.sendall(answer)
            request = b""
            while not _ended(request):
                request += connection.recv(65536)
            connection.sendall(answer)
            connection.shutdown(socket.SHUT_WR)
            out, _ = browser.communicate()
    finally:
        stuck.cancel()
    assert same(out, answer * (1 + early))


def _ended(request: bytes) -> bool:
    """Whether this is all of a request."""
    head, behind, body = request.partition(b"\r\n\r\n")
    if not behind:
        return False
    if b"chunked" in head:
        return body.endswith(b"\r\n0\r\n\r\n")
    return len(body) >= int(head.lower().split(b"content-length:")[1].split()[0])


def smuggle(lab: Lab, air: Capture, session: bytes, send: Callable[[list[str]], None], port: int) -> None:
    """Upload twice by *send*: to learn where segments begin, and with *session* at each such place.

    *air* sees what reaches bob's *port*; *send* takes what the request needs to have the upload's body.
    """
    path = Path(lab.dir) / "upload.bin"
    words = ["--data-binary", f"@{path}"]

    def segments(since: int) -> list[bytes]:
        packets = air.packets[since:]
        return [one.payload for one in packets if not one.leaving and one.ports[1] == port and one.payload]

    path.write_bytes(RULER)
    mark = len(air.packets)
    send(words)
    eventually(lambda: sum(map(len, segments(mark))) >= SIZE)
    starts = {RULER.find(data[:8]) for data in segments(mark)} - {-1}
    assert starts, "no segment begins amid the upload"
    crafted = bytearray(RULER)
    for at in sorted(starts):
        crafted[at : at + len(session)] = session
    path.write_bytes(crafted[:SIZE])
    mark = len(air.packets)
    send(words)
    eventually(lambda: any(data.startswith(session[:8]) for data in segments(mark)))


@contextlib.contextmanager
def conversation(
    lab: Lab, listener: socket.socket, talk: Iterable[tuple[bytes, bytes]], first: bytes = b""
) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Let a program on alice say the first of each pair, a segment of its own, and hear the second.

    *first* is what the server says before. Yields both ends.
    """
    with socket_in(lab, "alice") as client:
        client.connect((ADDRESS["bob"], listener.getsockname()[1]))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(10.0)
            connection.sendall(first)
            assert exactly(client, len(first)) == first
            for piece, answer in talk:  # each has arrived before the next one leaves
                client.sendall(piece)
                assert same(exactly(connection, len(piece)), piece)
                connection.sendall(answer)
                assert same(exactly(client, len(answer)), answer)
            yield client, connection


def converse(
    lab: Lab, listener: socket.socket, talk: Iterable[tuple[bytes, bytes]], first: bytes = b""
) -> None:
    """The same, and no more than that."""
    with conversation(lab, listener, talk, first):
        pass
