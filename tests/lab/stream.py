"""One end of a TCP connection that carries messages both ways at once, some of which are edited on the way.

Run as ``python -m tests.lab.stream '{"connect": "203.0.113.1:5190", ...}'`` on a node; see :class:`Plan` for
the keys. It prints one JSON line when it listens or has connected, and one at the end.

A receiver puts each edited message back into the form that was sent, lengths included, before it hashes: if
both ends' hashes agree, every other byte arrived as it was, and each such message either as it was or edited
in whole.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import random
import socket
import sys
import termios
import threading
import time
from dataclasses import dataclass

from tests.lab.dialects import DIALECTS

PATIENCE = 60.0  # seconds without a byte, then the end counts as hanging


@dataclass(frozen=True)
class Plan:
    """What one end does.

    dialect             see tests.lab.dialects; what is edited are redirects there, or offers
    listen, connect     the end's own address, or the other's; one of them is empty
    frames, redirects   how many of each it sends, mixed by *seed*
    late                so many redirects more, behind all others
    named               what its redirects name
    expects             (named, becomes) of the redirects that it receives, or empty
    write               whole, oos (a system call for each field), coalesced (several frames at once), random
                        (cut anywhere), halves (the second half of a frame after *inner* seconds)
    pause, inner        seconds between frames, and between pieces of one (halves)
    nagle, buffer       Nagle's algorithm on; bytes of receive buffer (0: the system's choice)
    largest             bytes of body of the frames that are no redirects
    stays               it sends its FIN only after its data were acknowledged, and as many frames came
    """

    dialect: str = "oscar"
    listen: str = ""
    connect: str = ""
    frames: int = 200
    redirects: int = 0
    late: int = 0
    stays: bool = False
    named: str = ""
    expects: tuple[str, str] | tuple[()] = ()
    write: str = "whole"
    pause: float = 0.0
    inner: float = 0.0
    nagle: bool = False
    buffer: int = 0
    largest: int = 1400
    seed: int = 1


def frames_of(plan: Plan) -> list[bytes | None]:
    """Bodies of SNACs in order; None stands for a redirect."""
    chance = random.Random(plan.seed)
    bodies: list[bytes | None] = [
        chance.randbytes(chance.choice((0, 1, 30, 200, plan.largest))) for _ in range(plan.frames)
    ]
    for _ in range(plan.redirects):
        bodies.insert(chance.randint(0, len(bodies)), None)
    return bodies + [None] * plan.late


class Sender(threading.Thread):
    """Writes all frames, then closes this direction."""

    def __init__(self, connection: socket.socket, plan: Plan) -> None:
        super().__init__(daemon=True)
        self.connection, self.plan = connection, plan
        self.dialect = DIALECTS[plan.dialect]
        self.answered = threading.Event()
        self.received_all = threading.Event()
        self.hash = hashlib.sha256()
        self.size = 0
        self.error = ""
        self._chance = random.Random(plan.seed + 1)
        self._waiting = b""

    def run(self) -> None:
        try:
            for unit in self.dialect.opening(bool(self.plan.listen)):
                self._write(unit)
            if self.dialect.waits:
                self._flush()
                self.answered.wait(PATIENCE)
            for number, body in enumerate(frames_of(self.plan), 1):
                now = time.monotonic()
                if body is None:
                    self._write(self.dialect.announcement(number, now, self.plan.named))
                else:
                    self._write(self.dialect.unit(number, now, body))
                if self.plan.pause:
                    time.sleep(self.plan.pause)
            self._flush()
            if self.plan.stays:
                self.received_all.wait(PATIENCE)
                while self._unacknowledged():
                    time.sleep(0.01)
            self.connection.shutdown(socket.SHUT_WR)
        except OSError as error:
            self.error = type(error).__name__

    def _unacknowledged(self) -> int:
        """Bytes that were sent and not acknowledged; raises OSError once the connection is reset (tcp(7))."""
        if error := self.connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(error, "connection ended")
        count = fcntl.ioctl(self.connection, termios.TIOCOUTQ, bytes(4))
        return int.from_bytes(count, sys.byteorder)

    def _write(self, frame: bytes) -> None:
        self.hash.update(frame)
        self.size += len(frame)
        write = self.plan.write
        if write == "oos":
            for piece in self.dialect.pieces(frame):
                self._send(piece)
        elif write == "halves":
            middle = self._chance.randint(self.dialect.smallest, len(frame) - 1)
            self._send(frame[:middle])
            time.sleep(self.plan.inner)
            self._send(frame[middle:])
        elif write in ("coalesced", "random"):
            self._waiting += frame
            while len(self._waiting) > 4000:
                size = len(self._waiting) if write == "coalesced" else self._chance.randint(1, 3000)
                self._send(self._waiting[:size])
                self._waiting = self._waiting[size:]
        else:
            self._send(frame)

    def _flush(self) -> None:
        self._send(self._waiting)
        self._waiting = b""

    def _send(self, data: bytes) -> None:
        if data:
            self.connection.sendall(data)


class Receiver:
    """Reads to the end; see the module's text for what is hashed."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._dialect = DIALECTS[plan.dialect]
        self.hash = hashlib.sha256()
        self.rewritten = self.left = self.frames = self.units = 0
        self.delays: list[float] = []
        self._rest = b""

    def feed(self, data: bytes) -> None:
        now = time.monotonic()
        self._rest += data
        while found := self._dialect.split(self._rest):
            frame, self._rest = found
            unit = self._dialect.received(frame, *(self.plan.expects or ("", "")))
            self.hash.update(unit.sent)
            self.units += 1
            self.frames += unit.counts
            self.rewritten += unit.edited is True
            self.left += unit.edited is False
            if unit.stamp is not None:
                self.delays.append(now - unit.stamp)

    def finish(self) -> None:
        self.hash.update(self._rest)  # a cut frame is a difference


def open_connection(plan: Plan) -> socket.socket:
    """The one connection; says on stdout when it listens, or has connected."""
    address, port = (plan.listen or plan.connect).rsplit(":", 1)
    with socket.socket() as made:
        if plan.buffer:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, plan.buffer)
        if plan.listen:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((address, int(port)))
            made.listen(1)
            print(json.dumps({"event": "ready"}), flush=True)
            made.settimeout(PATIENCE)
            connection, _ = made.accept()
        else:
            made.settimeout(PATIENCE)
            made.connect((address, int(port)))
            print(json.dumps({"event": "ready", "port": made.getsockname()[1]}), flush=True)
            connection = made.dup()
    connection.settimeout(PATIENCE)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, not plan.nagle)
    return connection


def main() -> None:
    given = json.loads(sys.argv[1])
    given["expects"] = tuple(given.get("expects", ()))
    plan = Plan(**given)
    connection = open_connection(plan)
    began = time.monotonic()
    sender, receiver = Sender(connection, plan), Receiver(plan)
    error = ""
    if plan.listen:  # a server says nothing to a client that has not begun to speak
        dialect = DIALECTS[plan.dialect]
        while not dialect.opened(connection.recv(4096, socket.MSG_PEEK)):
            time.sleep(0.001)
    sender.start()
    try:
        while data := connection.recv(65536):
            receiver.feed(data)
            if receiver.units:
                sender.answered.set()
            if receiver.frames >= plan.frames + plan.redirects + plan.late:
                sender.received_all.set()
    except OSError as problem:
        error = type(problem).__name__
    receiver.finish()
    sender.join(PATIENCE)
    delays = sorted(receiver.delays) or [0.0]
    print(
        json.dumps(
            {
                "error": error or sender.error or ("stuck" if sender.is_alive() else ""),
                "sent": sender.hash.hexdigest(),
                "size": sender.size,
                "received": receiver.hash.hexdigest(),
                "frames": receiver.frames,
                "rewritten": receiver.rewritten,
                "left": receiver.left,
                "median_ms": round(delays[len(delays) // 2] * 1000, 2),
                "worst_ms": round(delays[-1] * 1000, 2),
                "seconds": round(time.monotonic() - began, 2),
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    main()
