"""``python -m stress.beside [SECONDS]``: a session beside others' floods, with and without nfreaim.

For each flood a network is made twice, once with plain NAT; in both, alice's session with a server sends a
keep-alive after another, which the server sends back. Prints how long these take, and what the kernel
dropped. Fails if a session waits for more than what plain NAT shows and the bounds allow, if its own queue
lost a packet, or if the real peer of an offer, whose port is flooded, does not get in at the first attempt.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from tests.lab.home import forward
from tests.lab.impair import offloads_off
from tests.lab.namespace import socket_in
from tests.lab.net import ADDRESS, WAN, Lab
from tests.lab.scene import Scene, eventually
from tests.lab.sockets import exactly
from tests.lab.standin import Transfer
from tests.oscar.flap import FLAP_KEEPALIVE, flap
from tests.oscar.rendezvous import SEND_FILE
from tests.oscar.signon import CLIENT_SIGNON, HOST_ONLINE, SIGNON
from tests.oscar.snac import snac_frame
from tests.oscar.tlv import tlv

SESSIONS: Final = 5190  # the queue of known flows
MEDIAN_S, WORST_S = 0.05, 0.45  # more than with plain NAT; a lost packet costs TCP 0.2
_GAP_S: Final = 0.02  # between two keep-alives
_MANY: Final = 100_000_000  # packets: as many as go until the flood is ended
_PORT: Final = 5200  # alice's first, where strangers knock
_BLOCK: Final = tlv(5, b"\0\0cookie1\0" + SEND_FILE + tlv(0x7777) * 100)
_SOUP: Final = snac_frame((4, 6), b"cookie1\0\0\2\3bob" + _BLOCK * 18)
_GREETING: Final = SIGNON + HOST_ONLINE


class Waits(NamedTuple):
    """How long keep-alives took, in seconds."""

    median: float
    worst: float
    number: int

    def __str__(self) -> str:
        return f"median {self.median * 1e3:.1f} ms, worst {self.worst * 1e3:.0f} ms of {self.number}"


class Stage:
    """A network to flood, with *scene* if nfreaim runs in it."""

    def __init__(self, lab: Lab, scene: Scene | None) -> None:
        self.lab = lab
        self.scene = scene
        self.offer: Transfer | None = None


Flood = Callable[[Stage], contextlib.AbstractContextManager[None]]


@contextmanager
def _packets(lab: Lab, node: str, sources: str, target: str, flags: int) -> Iterator[None]:
    """Packets as fast as one process sends them, see stress.flood."""
    words = (sources, target, str(_MANY), str(flags))
    process = lab.spawn(node, sys.executable, "-m", "stress.flood", *words)
    try:
        yield
    finally:
        process.send_signal(signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)


def _junk(stage: Stage) -> contextlib.AbstractContextManager[None]:
    return _packets(stage.lab, "amy", "10.0.0.128/25", f"{ADDRESS['server']}:5190", 0x18)


def _junk_outside(stage: Stage) -> contextlib.AbstractContextManager[None]:
    return _packets(stage.lab, "server", "203.0.113.128/25", f"{WAN['A']}:5190", 0x18)


def _syns(stage: Stage) -> contextlib.AbstractContextManager[None]:
    return _packets(stage.lab, "amy", "10.0.0.128/25", f"{ADDRESS['server']}:5190", 2)


def _knocks(stage: Stage) -> contextlib.AbstractContextManager[None]:
    return _packets(stage.lab, "server", "203.0.113.128/25", f"{WAN['A']}:{_PORT}", 2)


_OWN: Final = """
import socket, sys
from tests.tcp.packets import packet
ends = ("10.0.0.6", int(sys.argv[1])), (sys.argv[2], 5190)
packets = [packet(*ends, number * 7919 & 0xFFFFFFFF, 77, 0x18, b"junk") for number in range(20000)]
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
while True:
    for one in packets:
        try:
            raw.sendto(one, (sys.argv[2], 0))
        except OSError:
            pass
"""


@contextmanager
def _own(stage: Stage) -> Iterator[None]:
    """Data with the ports of amy's own session, which the daemon knows, but not from its TCP."""
    with _sign_on(stage.lab, "amy", ADDRESS["server"], 5190) as own:
        port = str(own.getsockname()[1])
        process = stage.lab.spawn("amy", sys.executable, "-c", _OWN, port, ADDRESS["server"])
        try:
            yield
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait(10)


@contextmanager
def _soup(stage: Stage) -> Iterator[None]:
    """Four sessions of amy's with a server of her own send frames of many TLVs, as fast as TCP takes them."""
    yield from _said(stage, _SOUP, 4)


@contextmanager
def _crumbs(stage: Stage) -> Iterator[None]:
    """The same with frames that hold nothing, thousands in a segment."""
    yield from _said(stage, flap(FLAP_KEEPALIVE), 4)


def _said(stage: Stage, frame: bytes, count: int) -> Iterator[None]:
    ends = [_sign_on(stage.lab, "amy", ADDRESS["server"], 5190) for _ in range(count)]

    def talk(end: socket.socket) -> None:
        number = int.from_bytes(CLIENT_SIGNON[2:4], "big") + 1
        with contextlib.suppress(OSError):
            while True:
                many = max(1, 16384 // len(frame))
                data = b"".join(
                    frame[:2] + ((number + n) & 0xFFFF).to_bytes(2, "big") + frame[4:] for n in range(many)
                )
                end.sendall(data)
                number += many

    for end in ends:
        threading.Thread(target=talk, args=(end,), daemon=True).start()
    try:
        yield
    finally:
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


FLOODS: Final[dict[str, Flood]] = {
    "frames of 1,800 TLVs": _soup,
    "frames of nothing": _crumbs,
    "data of no connection, from inside": _junk,
    "data of a session, but not of its TCP": _own,
    "data of no connection, from outside to a server at home": _junk_outside,
    "SYNs from inside": _syns,
    "SYNs to an open port": _knocks,
}


@contextmanager
def _stage(with_us: bool) -> Iterator[Stage]:
    with Lab(home_server=True) as lab:
        forward(lab)
        scene = None
        if with_us:
            scene = Scene(lab)
            scene.restart("A")
        else:
            forward(lab, inside=ADDRESS["alice"], port=_PORT)
        offloads_off(lab)
        _serve(lab, "bob", 5190)
        yield Stage(lab, scene)


def _serve(lab: Lab, node: str, port: int) -> None:
    """A server on *node* that greets, and then sends back what it is sent."""
    listener = socket_in(lab, node)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((ADDRESS[node], port))
    listener.listen(64)
    listener.settimeout(None)

    def speak(end: socket.socket) -> None:
        with contextlib.suppress(OSError, AssertionError), end:
            exactly(end, len(CLIENT_SIGNON))
            end.sendall(_GREETING)
            number = int.from_bytes(HOST_ONLINE[2:4], "big")
            while data := end.recv(1 << 16):
                if len(data) < 100:
                    number += 1
                    end.sendall(flap(FLAP_KEEPALIVE, number & 0xFFFF))

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                end, _ = listener.accept()
                threading.Thread(target=speak, args=(end,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


def _sign_on(lab: Lab, node: str, address: str, port: int) -> socket.socket:
    end = socket_in(lab, node)
    end.settimeout(60)
    end.connect((address, port))
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    end.sendall(CLIENT_SIGNON)
    exactly(end, len(_GREETING))
    return end


def waits(end: socket.socket, seconds: float) -> Waits:
    """Keep-alives one after another for *seconds*."""
    took: list[float] = []
    until = time.monotonic() + seconds
    first = int.from_bytes(CLIENT_SIGNON[2:4], "big") + 1
    while time.monotonic() < until:
        frame = flap(FLAP_KEEPALIVE, (first + len(took)) & 0xFFFF)
        begin = time.monotonic()
        end.sendall(frame)
        exactly(end, len(frame))
        took.append(time.monotonic() - begin)
        time.sleep(_GAP_S)
    return Waits(statistics.median(took), max(took), len(took))


def lost(lab: Lab, number: int) -> int:
    """Packets that the kernel dropped at the door of a queue of router A."""
    text = lab.run("A", "cat", "/proc/net/netfilter/nfnetlink_queue").stdout
    rows = [line.split() for line in text.splitlines()]
    return sum(int(row[5]) + int(row[6]) for row in rows if int(row[0]) == number)


def beside(name: str, with_us: bool, seconds: float) -> Waits:
    """How a session fares beside the flood. AssertionError if its queue loses a packet."""
    with _stage(with_us) as stage:
        if stage.scene is not None and FLOODS[name] is _knocks:
            _open(stage, seconds)
        elif FLOODS[name] is _knocks:
            _serve(stage.lab, "alice", _PORT)
        else:
            _serve(stage.lab, "server", 5190)
        end = _sign_on(stage.lab, "alice", ADDRESS["bob"], 5190)
        with FLOODS[name](stage):
            time.sleep(0.5)
            found = waits(end, seconds)
            if stage.offer is not None:
                outcome = stage.offer.outcome(90 + seconds)
                assert outcome.first_attempt, outcome
                print(f"    bob took the file, {outcome.seconds:.1f} s after it was offered", flush=True)
        if stage.scene is not None:
            assert not lost(stage.lab, SESSIONS), "a packet of a session was lost"
        return found


def _open(stage: Stage, seconds: float) -> None:
    """Alice offers a file on the port that is flooded; bob calls there so many seconds later."""
    scene = stage.scene
    assert scene is not None
    alice, bob = scene.clients(scene.server(), ("alice", "alice", _PORT), ("bob", "bobby"))
    bob.call("policy", action="accept", delay=seconds)
    stage.offer = Transfer(alice, bob, "file", patience=60 + seconds)
    eventually(scene.pinholes)


def run(name: str, seconds: float) -> None:
    """One flood, with plain NAT and with nfreaim. AssertionError if a session waits too long."""
    plain, ours = beside(name, False, seconds), beside(name, True, seconds)
    print(f"BESIDE {name}: plain NAT {plain}; nfreaim {ours}", flush=True)
    assert ours.median <= plain.median + MEDIAN_S, (plain, ours)
    assert ours.worst <= plain.worst + WORST_S, (plain, ours)


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 12.0
    for name in FLOODS:
        run(name, seconds)


if __name__ == "__main__":
    main()
