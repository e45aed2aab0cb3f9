"""``python -m stress.crowd WHAT ADDRESS PORT ...``: thousands of signed-on sessions in a few processes.

serve               a server that signs everybody on and says nothing more; "ready"
idle COUNT          so many sessions; "ready" when all are signed on
offer SOURCES EACH  a session from each address of SOURCES (first-last), each with EACH files offered; "ready"
Clients stay until their stdin ends.
"""

from __future__ import annotations

import resource
import selectors
import socket
import struct
import sys
from collections.abc import Callable
from ipaddress import IPv4Address

from tests.oscar import rendezvous as rdv
from tests.oscar.flap import numbered
from tests.oscar.profiles import PROFILES, Offer
from tests.oscar.signon import HOST_ONLINE, hello
from tests.oscar.snac import TO_HOST, snac_frame

_HELLO = hello()
_SERVER_HELLO = _HELLO + numbered(HOST_ONLINE, 1)
_FIRST_PORT = 20000


def serve(address: str, port: str) -> None:
    selector = selectors.DefaultSelector()
    listener = socket.create_server((address, int(port)), backlog=4096)
    listener.setblocking(False)
    selector.register(listener, selectors.EVENT_READ)
    print("ready", flush=True)
    while True:
        for key, _ in selector.select():
            link = key.fileobj
            assert isinstance(link, socket.socket)
            try:
                if link is listener:
                    accepted, _ = listener.accept()
                    accepted.setblocking(False)
                    selector.register(accepted, selectors.EVENT_READ, _SERVER_HELLO)
                elif not link.recv(1 << 16):
                    raise ConnectionError
                elif key.data:  # what comes before the client's first bytes would sign nobody on
                    link.sendall(key.data)
                    selector.modify(link, selectors.EVENT_READ)
            except BlockingIOError:
                continue
            except OSError:
                if link is not listener:
                    selector.unregister(link)
                    link.close()


def signed_on(address: str, port: int, source: str = "") -> socket.socket:
    """A session past sign-on."""
    link = socket.create_connection((address, port), 60, (source, 0) if source else None)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    link.sendall(_HELLO)
    left = len(_SERVER_HELLO)
    while left:
        left -= len(link.recv(left)) or sys.exit("the server has gone")
    return link


def idle(address: str, port: str, count: str) -> None:
    links = [signed_on(address, int(port)) for _ in range(int(count))]
    stay(f"ready {len(links)}")


def offer(address: str, port: str, sources: str, each: str) -> None:
    first, last = map(IPv4Address, sources.split("-"))
    links = []
    for host in range(int(last) - int(first) + 1):
        source = str(first + host)
        link = signed_on(address, int(port), source)
        links.append(link)
        for number in range(int(each)):
            listening = _FIRST_PORT + (int(first + host) & 0xFF) * int(each) + number
            body = PROFILES["libpurple"].proposal(
                "bob", Offer(struct.pack("!Q", number + 1), rdv.SEND_FILE, source, listening)
            )
            link.sendall(snac_frame(TO_HOST, body, number=number + 1, request=0))
    stay("ready")


def stay(word: str) -> None:
    """Say that all is set up; return when whoever started this closes stdin."""
    print(word, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    actions: dict[str, Callable[..., None]] = {"serve": serve, "idle": idle, "offer": offer}
    actions[sys.argv[1]](*sys.argv[2:])
