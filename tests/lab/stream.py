"""One end of a TCP connection that carries FLAP frames both ways at once, some of them redirects.

Run as ``python -m tests.lab.stream '{"connect": "203.0.113.1:5190", ...}'`` on a node; see :class:`Plan` for
the keys. It prints one JSON line when it listens or has connected, and one at the end.

Who receives puts each rewritten redirect back into the form that was sent, lengths included, before it
hashes: if both ends' hashes agree, every byte outside the redirects arrived as it was, and each redirect
either as it was or rewritten in whole.
"""

from __future__ import annotations

import hashlib
import json
import random
import socket
import struct
import sys
import threading
import time
from dataclasses import dataclass

from tests.lab import oscar_wire as wire

PATIENCE = 60.0  # seconds without a byte, then the end counts as hanging
_STAMP = struct.Struct("!d")


@dataclass(frozen=True)
class Plan:
    """What one end does.

    listen, connect     the end's own address, or the other's; one of them is empty
    frames, redirects   how many of each it sends, mixed by *seed*
    named, becomes      what its redirects name, and what that shall have become at the other end
    expects             (named, becomes) of the redirects that it receives, or empty
    write               whole, oos (1+1+2+2+n), coalesced (several frames at once), random (cut anywhere),
                        halves (the second half of a frame after *inner* seconds)
    pause, inner        seconds between frames, and between pieces of one (halves)
    nagle, buffer       Nagle's algorithm on; bytes of receive buffer (0: the system's choice)
    largest             bytes of body of the frames that are no redirects
    """

    listen: str = ""
    connect: str = ""
    frames: int = 200
    redirects: int = 0
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
    return bodies


def redirect(named: str, stamp: bytes) -> bytes:
    """Body of SNAC(01,05): family, host and port, a cookie."""
    return wire.tlvs([(0x000D, b"\0\x18"), (0x0005, named.encode()), (0x0006, stamp.ljust(24, b"c"))])


class Sender(threading.Thread):
    """Writes all frames, then closes this direction."""

    def __init__(self, connection: socket.socket, plan: Plan) -> None:
        super().__init__(daemon=True)
        self.connection, self.plan = connection, plan
        self.hash = hashlib.sha256()
        self.size = 0
        self.error = ""
        self._chance = random.Random(plan.seed + 1)
        self._waiting = b""

    def run(self) -> None:
        try:
            self._write(wire.flap(wire.FLAP_SIGNON, 0, b"\0\0\0\1"))
            for number, body in enumerate(frames_of(self.plan), 1):
                stamp = _STAMP.pack(time.monotonic())
                if body is None:
                    snac = wire.Snac(1, 5, redirect(self.plan.named, stamp), number)
                else:
                    snac = wire.Snac(0x10, 5, stamp + body, number)
                self._write(wire.flap(wire.FLAP_SNAC, number & 0xFFFF, snac.encode()))
                if self.plan.pause:
                    time.sleep(self.plan.pause)
            self._send(self._waiting)
            self.connection.shutdown(socket.SHUT_WR)
        except OSError as error:
            self.error = type(error).__name__

    def _write(self, frame: bytes) -> None:
        self.hash.update(frame)
        self.size += len(frame)
        write = self.plan.write
        if write == "oos":
            for low, high in ((0, 1), (1, 2), (2, 4), (4, 6), (6, len(frame))):
                self._send(frame[low:high])
        elif write == "halves":
            middle = self._chance.randint(5, len(frame) - 1)
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

    def _send(self, data: bytes) -> None:
        if data:
            self.connection.sendall(data)


class Receiver:
    """Reads to the end; see the module's text for what is hashed."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.hash = hashlib.sha256()
        self.rewritten = self.left = self.frames = 0
        self.delays: list[float] = []
        self._rest = b""

    def feed(self, data: bytes) -> None:
        now = time.monotonic()
        self._rest += data
        while len(self._rest) >= 6:
            end = 6 + int.from_bytes(self._rest[4:6], "big")
            if len(self._rest) < end:
                break
            frame, self._rest = self._rest[:end], self._rest[end:]
            self.hash.update(self._as_sent(frame, now))

    def finish(self) -> None:
        self.hash.update(self._rest)  # a cut frame is a difference

    def _as_sent(self, frame: bytes, now: float) -> bytes:
        if frame[1] != wire.FLAP_SNAC or len(frame) < 24:
            return frame
        self.frames += 1
        snac = wire.Snac.decode(frame[6:])
        if snac.kind != (1, 5) or not self.plan.expects:
            self.delays.append(now - _STAMP.unpack_from(snac.body)[0])
            return frame
        named, becomes = self.plan.expects
        items = wire.parse_tlvs(snac.body)[0]
        value, cookie = wire.first(items, 0x0005), wire.first(items, 0x0006)
        if value is None or cookie is None:
            return frame
        self.delays.append(now - _STAMP.unpack_from(cookie)[0])
        self.rewritten += value == becomes.encode()
        self.left += value == named.encode()
        if value != becomes.encode():
            return frame
        restored = wire.Snac(1, 5, redirect(named, cookie[: _STAMP.size]), snac.request)
        return wire.flap(wire.FLAP_SNAC, int.from_bytes(frame[2:4], "big"), restored.encode())


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
    if plan.listen:  # a server redirects nobody who has not begun to speak
        connection.recv(1, socket.MSG_PEEK)
    sender.start()
    try:
        while data := connection.recv(65536):
            receiver.feed(data)
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
