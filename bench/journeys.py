"""Which files of the package a packet runs through: ``python -m bench.journeys``, as root.

Each journey is run under a profile hook on a router of the lab, with the real sets, tables and connection
tracking; only the packet objects are stand-ins. A file counts if one of its functions is called.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from bench.callback import HARDWARE, Packet
from bench.contenders import end, start
from bench.paths import serve
from nfreaim.config import Config
from nfreaim.core.engine import Engine
from nfreaim.host.control import ControlPlane
from nfreaim.host.loop import clock
from nfreaim.host.reader import Reader
from nfreaim.host.reload import Reload
from nfreaim.host.report.journal import Journal
from nfreaim.host.report.metrics import Readers
from nfreaim.host.turns import Turns
from tests.golden import packets
from tests.lab.net import Lab
from tests.oscar.flap import numbered
from tests.oscar.signon import HOST_ONLINE, SIGNON, hello
from tests.tcp.packets import ACK, PSH, SYN, packet

CLIENT, SERVER = ("10.0.0.5", 41134), ("203.0.113.9", 5190)
PACKAGE = Path(__file__).resolve().parents[1] / "nfreaim"


class Life:
    """One life of the daemon's parts in one process, without its loop."""

    def __init__(self, state: Path, stack: ExitStack) -> None:
        config = Config(lan=("lan",), wan=("wan",), state_dir=state / "flows", status_socket=state / "status")
        journal = Journal()
        self.config = config
        self.control = ControlPlane(
            config, journal, lambda: Readers(self.engine.stats()), stack, Reload(config, lambda: config)
        )
        backend = self.control.backend.for_engine(self.control.home)
        self.engine = Engine(config.helpers(), self.control.pinholes, backend, journal, config.engine)
        turns = Turns(config.queue, self.engine, self.control.backend.store.is_skewed)
        self.queue = turns.sessions
        self.reader = Reader(self.engine, self.control.backend, turns)
        self.queue._until = float("inf")  # one turn: the exception at its end belongs to the loop

    def go_on(self, stack: ExitStack) -> None:
        """Take over the flows and pinholes of an earlier life."""
        self.reader.restore()
        self.control.begin(stack)
        self.reader.follow()


class Talk:
    """The packets of one signed-on connection."""

    def __init__(self) -> None:
        self._next = {"client": 1000, "server": 9000}

    def say(self, side: str, payload: bytes, flags: int = ACK | PSH) -> Packet:
        """The next packet of *side*."""
        other = "server" if side == "client" else "client"
        ends = (CLIENT, SERVER) if side == "client" else (SERVER, CLIENT)
        ack = self._next[other] if flags & ACK else 0
        raw = packet(*ends, self._next[side], ack, flags, payload)
        self._next[side] = (self._next[side] + len(payload) + bool(flags & SYN)) & 0xFFFFFFFF
        return Packet(raw, 0 if side == "client" else 4)

    def sign_on(self) -> Iterator[Packet]:
        """Everything up to the point where proposals are read."""
        yield self.say("client", b"", SYN)
        yield self.say("server", b"", SYN | ACK)
        yield self.say("client", b"", ACK)
        yield self.say("server", SIGNON)
        yield self.say("client", hello())
        yield self.say("server", HOST_ONLINE)


@contextmanager
def traced(files: set[str]) -> Iterator[None]:
    """Add the files of the package in which a function is called to *files*."""

    def see(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_name != "<module>":
            path = Path(code.co_filename)
            if path.is_relative_to(PACKAGE):
                files.add(str(path.relative_to(PACKAGE)))

    sys.setprofile(see)
    try:
        yield
    finally:
        sys.setprofile(None)


@contextmanager
def connected(lab: Lab) -> Iterator[None]:
    """Rules on router A, and what its kernel knows of the connection whose packets are stand-ins: an entry in
    connection tracking, because a connection of these ends exists, and the client's hardware address."""
    lab.run("A", "rules/nfreaim-rules", "install", "--lan", "lan", "--wan", "wan")
    with ExitStack() as stack:
        stack.callback(end, serve(lab, "server", *SERVER))
        talk = f"link = socket.create_connection({SERVER}, 10, {CLIENT}); link.send(b'?')"
        program = f"import socket, sys; {talk}; print('ready', flush=True); sys.stdin.read()"
        stack.callback(end, start(lab, "alice", sys.executable, "-c", program))
        lab.run("A", *f"ip neighbour replace {CLIENT[0]} lladdr {HARDWARE.hex(':')} dev lan".split())
        yield


def report(name: str, call: Callable[[], None]) -> None:
    """Run *call* and print its files."""
    files: set[str] = set()
    with traced(files):
        call()
    print(f"{name}: {len(files)} files")
    print("  " + "\n  ".join(sorted(files)))


def journeys() -> None:
    """Run in a router's namespace whose rules are installed."""
    golden, talk = packets(), Talk()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        with ExitStack() as first:
            life = Life(Path(folder), first)
            life.go_on(first)
            for step in talk.sign_on():
                life.queue._handle(step)
            # What is made once is made before: the rule for the host, and what scapy keeps of a message.
            life.queue._handle(talk.say("client", numbered(golden["send-file-proposal"], 1)))
            life.engine.tick(clock())
            text, proposal = (
                talk.say("client", numbered(golden[name], number))
                for number, name in ((2, "text-message"), (3, "direct-im-proposal"))
            )
            report("a text message", lambda: life.queue._handle(text))
            report("a proposal that opens a pinhole", lambda: life.queue._handle(proposal))
            assert len(life.control.pinholes) > 0, "nothing was opened: the trace shows another journey"
            life.engine.save()
        second = Life(Path(folder), stack)

        def restart() -> None:
            second.go_on(stack)
            second.queue._handle(talk.say("client", numbered(golden["text-message"], 4)))

        report("a restart and the first packet", restart)
        life.control.pinholes.close_all("done")


def main() -> None:
    """Run the journeys on router A of a lab."""
    if sys.argv[1:] == ["inside"]:
        journeys()
        return
    with Lab() as lab, connected(lab):
        done = lab.run("A", sys.executable, "-m", "bench.journeys", "inside")
        sys.stdout.write(done.stdout)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"{error}\n{error.stderr}")
