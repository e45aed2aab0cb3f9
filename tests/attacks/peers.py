"""Peers at gated pinholes: the real one, and strangers who say nothing."""

from __future__ import annotations

import itertools
import resource
import socket
import threading

from tests.attacks import network, wire
from tests.lab.namespace import socket_in
from tests.lab.net import ADDRESS
from tests.lab.scene import Scene, eventually
from tests.lab.sockets import exactly
from tests.lab.standin import Client
from tests.oscar import peer_headers

FILES = 20000
"""How many sockets this process may need."""
PORTS = {"alice": 6001, "amy": 6002}
COOKIES = {"alice": b"cookieA\0", "amy": b"cookieB\0"}


def offered(made: Scene, client: Client, node: str) -> socket.socket:
    """A listener on *node* whose port *client* offers to Bobby, and to which a gated pinhole leads."""
    listener = network.listen(made.lab, node, PORTS[node], "0.0.0.0")
    body = wire.body_to_server("Bobby", COOKIES[node], inner=wire.offer(ADDRESS[node], PORTS[node]))
    client.call("send_snac", family=4, subtype=6, body=body.hex())
    eventually(lambda: made.pinhole_of(f"{ADDRESS[node]}:{PORTS[node]}"))
    listener.settimeout(5)
    return listener


def peer(made: Scene, node: str, listener: socket.socket) -> str:
    """What keeps the real peer, bob, from a transfer with *node*; "" if nothing does."""
    header = peer_headers.oft_header(peer_headers.ACK, COOKIES[node], 1, 0, "f.bin")
    with socket_in(made.lab, "bob") as caller:
        caller.settimeout(8)
        try:
            caller.connect((network.ROUTER, PORTS[node]))
            with accepted(listener, caller) as host:
                caller.sendall(header)
                return "" if exactly(host, len(header)) == header else "other bytes"
        except (OSError, AssertionError) as error:
            return type(error).__name__


def accepted(listener: socket.socket, caller: socket.socket) -> socket.socket:
    """The listener's end of this connection; strangers' ends before it are left to themselves."""
    while True:
        host, whose = listener.accept()
        if whose == caller.getsockname():
            host.settimeout(5)
            return host
        host.detach()


def silent(made: Scene, port: int, count: int, sources: tuple[str, ...] = ("",)) -> list[socket.socket]:
    """The accomplice's connections, *count* from each of these addresses."""
    ends: list[socket.socket] = []

    def connect() -> None:
        network.enter(made.lab, "server")
        for source in itertools.chain.from_iterable([source] * count for source in sources):
            one = socket.socket()
            one.settimeout(5)
            try:
                one.bind((source, 0))
                one.connect((network.ROUTER, port))
            except OSError as error:
                print(f"  after {len(ends)}: {error!r}", flush=True)
                return
            ends.append(one)

    thread = threading.Thread(target=connect)  # the namespace is the thread's and ends with it
    thread.start()
    thread.join()
    return ends


def many_files() -> None:
    """Let this process have as many sockets as it takes."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, FILES), hard))
