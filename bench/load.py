"""``python -m bench.load WHAT ADDRESS PORT ...``: the near end of everything measured; prints a line of JSON.

bulk BYTES            one connection that is no OSCAR; {"seconds"}
fetch BYTES COUNT     a peer link, COUNT times one after the other: asks, and reads to the end; {"seconds"}
ftp BYTES LISTEN      active FTP: the server connects back to LISTEN here; {"seconds"}
talk CLIENTS SECONDS PID
                      signed-on sessions, each with one text message in flight; {"trips", "seconds", "p50",
                      "p99", "stuck", "cpu"}, stuck: sessions without an answer for a second at the end, cpu:
                      seconds of CPU that process PID (0: none) used meanwhile. Nothing is counted until the
                      sign-on is over, and what it left to be done: WARM seconds for each session
connect COUNT         {"p50"} seconds until connect() returns
offer SOURCE COUNT    from address SOURCE: offers a file COUNT times; {"p50", "p90"} seconds from the write of
                      the proposal to its arrival at the server, and {"edited"} times it came with other bytes
hold SOURCES EACH BASE  signs on from each SOURCE (first-last), EACH proposals per session, of ports from BASE
                      on, which have to be edited; "ready", and stays until its stdin ends
idle COUNT            COUNT signed-on sessions that say nothing; "ready", and stays
"""

from __future__ import annotations

import json
import math
import resource
import select
import socket
import statistics
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address

from bench import ends, gauge
from tests.oscar.flap import HEADER

FIRST_PORT = 30000
WARM = 0.001


def connected(address: str, port: int, source: str | None = None) -> socket.socket:
    """A connection without Nagle's delay."""
    link = socket.create_connection(
        (address, port), timeout=60, source_address=(source and (source, 0)) or None
    )
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return link


def exactly(link: socket.socket, size: int) -> bytes:
    """The next *size* bytes."""
    data = b""
    while len(data) < size:
        piece = link.recv(size - len(data))
        if not piece:
            raise SystemExit(f"the other end has gone after {len(data)} of {size} bytes")
        data += piece
    return data


def signed_on(address: str, port: int, source: str | None = None) -> socket.socket:
    """A session past sign-on."""
    link = connected(address, port, source)
    link.sendall(ends.CLIENT_HELLO)
    exactly(link, len(ends.SERVER_HELLO))
    return link


def bulk(address: str, port: int, size: int) -> dict[str, float]:
    with connected(address, port) as link:
        begin = time.perf_counter()
        piece = b"\1" * (1 << 18)
        left = size
        while left > 0:
            link.sendall(piece[:left] if left < len(piece) else piece)
            left -= len(piece)
        link.shutdown(socket.SHUT_WR)
        exactly(link, 1)
        return {"seconds": time.perf_counter() - begin}


def fetch(address: str, port: int, size: int, count: int) -> dict[str, float]:
    buffer = bytearray(1 << 18)
    begin = time.perf_counter()
    for _ in range(count):
        with connected(address, port) as link:
            link.sendall(ends.peer_request(size))
            drain(link, buffer, size)
    return {"seconds": time.perf_counter() - begin}


def drain(link: socket.socket, buffer: bytearray, size: int) -> None:
    """Read *size* bytes and throw them away."""
    while size > 0:
        got = link.recv_into(buffer)
        if not got:
            raise SystemExit(f"{size} bytes are missing")
        size -= got


def ftp(address: str, port: int, size: int, listen: int) -> dict[str, float]:
    with socket.create_server(("", listen)) as listener, connected(address, port) as control:
        own = control.getsockname()[0].replace(".", ",")
        # The kernel's helper reads commands behind the first line end only, each a segment's beginning.
        control.sendall(b"USER alice\r\n")
        time.sleep(0.05)
        begin = time.perf_counter()
        control.sendall(f"PORT {own},{listen >> 8},{listen & 255}\r\n".encode())
        control.sendall(f"SIZE {size}\r\n".encode())
        link, _ = listener.accept()
        with link:
            drain(link, bytearray(1 << 18), size)
        return {"seconds": time.perf_counter() - begin}


@dataclass(slots=True)
class Link:
    """A client's connection: number of the frame in flight, since when, and how many bytes are missing."""

    socket: socket.socket
    frame: int = 1
    since: float = 0.0
    missing: int = 0


def talk(address: str, port: int, clients: int, seconds: float, pid: int) -> dict[str, float]:
    links: dict[int, Link] = {}
    poll = select.epoll()
    for _ in range(clients):
        link = signed_on(address, port)
        link.setblocking(False)
        links[link.fileno()] = Link(link)
        poll.register(link, select.EPOLLIN)
    size, trips, clock = ends.MESSAGE, list[float](), time.perf_counter
    begin, end = clock() + 0.2 + WARM * clients, math.inf
    used = 0.0
    for state in links.values():
        state.since, state.missing = clock(), size
        state.socket.send(ends.message(1))
    now = 0.0
    while now < end:
        if now >= begin and end == math.inf:
            begin, end, used = now, now + seconds, gauge.cpu_of(pid) if pid else 0.0
            trips.clear()
        for number, _ in poll.poll(1.0):
            state = links[number]
            state.missing -= len(state.socket.recv(state.missing))
            now = clock()
            if state.missing == 0:
                trips.append(now - state.since)
                state.frame += 1
                state.since, state.missing = now, size
                state.socket.send(ends.message(state.frame))
        now = clock()
    used = gauge.cpu_of(pid) - used if pid else 0.0
    stuck = sum(now - state.since > 1.0 for state in links.values())
    for state in links.values():
        state.socket.close()
    trips.sort()
    p50, p99 = (trips[min(len(trips) - 1, len(trips) * part // 100)] for part in (50, 99))
    return {"trips": len(trips), "seconds": now - begin, "p50": p50, "p99": p99, "stuck": stuck, "cpu": used}


def connect(address: str, port: int, count: int) -> dict[str, float]:
    taken = []
    for _ in range(count):
        begin = time.perf_counter()
        link = socket.create_connection((address, port), timeout=5)
        taken.append(time.perf_counter() - begin)
        link.close()
    return {"p50": statistics.median(taken)}


def offer(address: str, port: int, source: str, count: int) -> dict[str, float]:
    taken, edited = [], 0
    with signed_on(address, port, source) as link:
        for number in range(count):
            cookie = struct.pack("!Q", number + 1)
            frame = ends.offer(2 * number + 1, cookie, source, FIRST_PORT + number)
            sent = time.monotonic()
            link.sendall(frame)
            arrived, checksum = arrival(link)
            taken.append(arrived - sent)
            edited += checksum != ends.checksum(frame)
            link.sendall(ends.cancel(2 * number + 2, cookie))
            arrival(link)
            time.sleep(0.002)  # what the withdrawal costs is nobody's delay
    taken.sort()
    return {"p50": statistics.median(taken), "p90": taken[len(taken) * 9 // 10], "edited": edited}


def arrival(link: socket.socket) -> tuple[float, int]:
    """What the server tells of a rendezvous message; see ends.ARRIVAL."""
    header = HEADER.size
    when, checksum = ends.ARRIVAL.unpack_from(exactly(link, header + ends.ARRIVAL.size), header)
    return when, checksum


def hold(address: str, port: int, sources: str, each: int, base: int) -> None:
    first, last = map(IPv4Address, sources.split("-"))
    links = []
    for host in range(int(last) - int(first) + 1):
        source = str(first + host)
        link = signed_on(address, port, source)
        links.append(link)
        for index in range(each):
            cookie = struct.pack("!Q", index + 1)
            frame = ends.offer(index + 1, cookie, source, base + host * each + index)
            link.sendall(frame)
            if arrival(link)[1] == ends.checksum(frame):
                raise SystemExit(f"a proposal of {source} was not edited: there is no pinhole to measure")
    stay()


def idle(address: str, port: int, count: int) -> None:
    links = [signed_on(address, port) for _ in range(count)]
    stay()
    del links


def stay() -> None:
    """Say that all is set up; return when whoever started this closes stdin."""
    print("ready", flush=True)
    sys.stdin.read()


WHAT: dict[str, tuple[Callable[..., dict[str, float] | None], tuple[type, ...]]] = {
    "bulk": (bulk, (int,)),
    "fetch": (fetch, (int, int)),
    "ftp": (ftp, (int, int)),
    "talk": (talk, (int, float, int)),
    "connect": (connect, (int,)),
    "offer": (offer, (str, int)),
    "hold": (hold, (str, int, int)),
    "idle": (idle, (int,)),
}

if __name__ == "__main__":
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    name, host, number, *words = sys.argv[1:]
    function, kinds = WHAT[name]
    answer = function(host, int(number), *(kind(word) for kind, word in zip(kinds, words, strict=True)))
    if answer is not None:
        print(json.dumps(answer))
