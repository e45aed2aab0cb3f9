"""What the attacks do in a lab: listen, serve, sign on, knock from outside, measure and flood."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from nfreaim.config import Config
from tests.attacks import wire
from tests.lab.namespace import socket_in
from tests.lab.net import ADDRESS, Lab
from tests.lab.scene import Scene
from tests.lab.sockets import exactly

ROUTER = "203.0.113.1"
"""The outside address of the router that is attacked."""
PORT = 8123
"""Where a service listens that no router is to let anybody in to."""
_PATIENCE = 30.0  # seconds for an answer
OWN_SERVICE = b"alice's own service\n"
_SERVICE = """
import select, socket, sys
listeners = []
for port in sys.argv[2:]:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("0.0.0.0", int(port)))
    listener.listen(64)
    listeners.append(listener)
while True:
    for listener in select.select(listeners, [], [])[0]:
        end, _ = listener.accept()
        end.settimeout(3)
        try:
            end.recv(4096)
            end.sendall(sys.argv[1].encode())
        except OSError:
            pass
        end.close()
"""


def service(lab: Lab, node: str, *ports: int) -> None:
    """Start a service that knows nothing of OSCAR on *node* (default: on PORT): it answers any line."""
    wanted = [str(port) for port in ports or (PORT,)]
    lab.spawn(node, sys.executable, "-c", _SERVICE, OWN_SERVICE.decode(), *wanted)
    time.sleep(0.4)


def reach(lab: Lab, node: str, port: int = PORT, seconds: float = 5.0) -> bytes:
    """What comes back from the router's outside *port* when *node* connects and says hello."""
    with socket_in(lab, node) as caller:
        caller.settimeout(seconds)
        try:
            caller.connect((ROUTER, port))
            caller.sendall(b"hello")
            return caller.recv(4096)
        except OSError as error:
            return f"({type(error).__name__})".encode()


def conntrack(lab: Lab, *words: str) -> str:
    """The entries for TCP of router A that *words* select."""
    return lab.run("A", "conntrack", "-L", "-p", "tcp", *words, check=False).stdout.strip()


def queues(lab: Lab) -> str:
    """The kernel's statistics of router A's queues."""
    return lab.run("A", "cat", "/proc/net/netfilter/nfnetlink_queue").stdout.strip()


def queued(lab: Lab) -> int:
    """Packets ever queued on router A, in all queues."""
    return sum(lab.queue_state("A").values())


def last_lines(made: Scene, *words: str) -> str:
    """The lines of the log with one of these *words*."""
    lines = made.daemon.log_text().splitlines()
    return " | ".join(line for line in lines if any(word in line for word in words))


def enter(lab: Lab, node: str) -> None:
    """Make *node* the network of this thread, for as long as the thread lives."""
    libc = ctypes.CDLL(None, use_errno=True)  # os.setns came with Python 3.12
    with open(f"/run/netns/{lab.ns(node)}") as handle:
        if libc.setns(handle.fileno(), 0x40000000) != 0:  # CLONE_NEWNET
            raise OSError(ctypes.get_errno(), "setns")


def listen(lab: Lab, node: str, port: int = 5190, address: str | None = None) -> socket.socket:
    """A listening socket on *node*, which waits as long as it takes."""
    listener = socket_in(lab, node)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address or ADDRESS[node], port))
    listener.listen(500)
    listener.settimeout(None)
    return listener


def serve(listener: socket.socket, speak: Callable[[socket.socket], None]) -> None:
    """Let *speak* have each connection, in a thread of its own."""

    def spoken(end: socket.socket) -> None:
        with contextlib.suppress(OSError, AssertionError), end:
            speak(end)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                end, _ = listener.accept()
                end.settimeout(120)
                threading.Thread(target=spoken, args=(end,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


def greet(end: socket.socket) -> None:
    """A server's part of a sign-on."""
    exactly(end, len(wire.SIGN_ON))
    end.sendall(wire.GREETING)


def sink(end: socket.socket) -> None:
    """A server that takes whatever a client says."""
    greet(end)
    while end.recv(1 << 16):
        pass


def echo(end: socket.socket) -> None:
    """A server that sends everything back."""
    greet(end)
    while data := end.recv(4096):
        end.sendall(data)


def sign_on(lab: Lab, node: str, to: str, source: str = "") -> socket.socket:
    """A client's end of a session with the server on node *to*; *source*: from this address."""
    end = socket_in(lab, node)
    end.settimeout(120)
    if source:
        end.bind((source, 0))
    end.connect((ADDRESS[to], 5190))
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    end.sendall(wire.SIGN_ON)
    exactly(end, len(wire.GREETING))
    return end


def trusting(setting: str) -> str:
    """A line of configuration that names a server at home; "" in a version that believes any server."""
    known = Config.__dataclass_fields__
    return setting if setting.split()[0] in known else ""


@contextlib.contextmanager
def vouching(lab: Lab, node: str) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A program on *node*, to which port 5190 leads from outside, and bob, an accomplice, who signed on to it
    as to a server: both ends."""
    with listen(lab, node, address="0.0.0.0") as listener, socket_in(lab, "bob") as accomplice:
        accomplice.connect((ROUTER, 5190))
        listener.settimeout(10)
        server, _ = listener.accept()
        with server:
            server.settimeout(10)
            server.sendall(wire.SIGN_ON)
            exactly(accomplice, len(wire.SIGN_ON))
            accomplice.sendall(wire.SIGN_ON)
            exactly(server, len(wire.SIGN_ON))
            server.sendall(wire.HOST_ONLINE)
            exactly(accomplice, len(wire.HOST_ONLINE))
            yield server, accomplice


@dataclass
class KeepAlives:
    """A session whose server sends everything back: how long that takes, in seconds.

    An answer that does not come counts with the time that was waited for it, and ends the measuring.
    """

    end: socket.socket
    times: list[float] = field(default_factory=list)
    before: float = 0.0
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(2))

    def __post_init__(self) -> None:
        self.before = max(self.trip() for _ in range(20))

    def trip(self) -> float:
        """There and back, once."""
        frame = wire.keepalive(next(self._numbers))
        start = time.monotonic()
        self.end.sendall(frame)
        exactly(self.end, len(frame))
        return time.monotonic() - start

    def measure(self, seconds: float) -> float:
        """Send one every 50 ms for that long; how long it took in the end."""
        self.end.settimeout(_PATIENCE)
        start = time.monotonic()
        while (began := time.monotonic()) - start < seconds:
            try:
                self.times.append(self.trip())
            except (OSError, AssertionError):
                self.times.append(time.monotonic() - began)
                break
            time.sleep(0.05)
        return time.monotonic() - start

    @property
    def longest(self) -> float:
        return max(self.times, default=0.0)

    def __str__(self) -> str:
        mean = sum(self.times) / max(1, len(self.times))
        middle = sorted(self.times)[len(self.times) // 2] if self.times else 0.0
        return (
            f"keep-alive of another host: {self.before * 1e3:.1f} ms before, {len(self.times)} meanwhile, "
            f"mean {mean * 1e3:.0f} ms, median {middle * 1e3:.1f} ms, longest {self.longest * 1e3:.0f} ms"
        )


class Flood:
    """Sends these packets over and over from *node* while its block runs, as fast as one process can."""

    def __init__(self, lab: Lab, node: str, packets: Sequence[bytes]) -> None:
        self._socket = socket_in(lab, node, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        self._packets, self._over = packets, False
        self._thread = threading.Thread(target=self._throw)
        self.sent = 0

    def __enter__(self) -> Flood:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        self._thread.join()
        self._socket.close()

    def _throw(self) -> None:
        target = socket.inet_ntoa(self._packets[0][16:20]), 0
        while not self._over:
            for packet in self._packets:
                self._socket.sendto(packet, target)
                self.sent += 1
                if self._over:
                    return

    def rate(self, seconds: float) -> str:
        """What it sent in that time."""
        each = self.sent / seconds
        return f"{each:.0f} packets/s ({each * 64 * 8 / 1e6:.0f} Mbit/s with 64 bytes each)"


def cpu_seconds(pid: int) -> float:
    """Processor time of a process so far, in seconds."""
    with open(f"/proc/{pid}/stat") as file:
        return sum(map(int, file.read().rsplit(")")[1].split()[11:13])) / 100


def ended(process: subprocess.Popen[bytes]) -> None:
    """End a process of the lab now."""
    process.terminate()
    process.wait(10)
