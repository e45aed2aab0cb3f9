"""A queue of the real kernel while it is bound, on a router; started by test_kernel.py."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from typing import Any, cast

from nfreaim.core.engine import Engine
from nfreaim.core.verdict import ACCEPT, Verdicts
from nfreaim.host.netfilter.packet_queue import PacketQueue

_NUMBER, _PORT, _DATA = 5300, 5777, b"early"
_RULE = f"-t raw -A OUTPUT -p udp --dport {_PORT} -j NFQUEUE --queue-num {_NUMBER} --queue-bypass"


class _Counting:
    """In place of an engine: it accepts all packets, and counts them."""

    def __init__(self) -> None:
        self.seen = 0

    def passes(self, raw: bytes, from_inside: bool, now: float) -> bool:
        return False

    def process_slow(self, raw: bytes, token: Any, from_inside: bool, now: float, skewed: bool) -> Verdicts:
        self.seen += 1
        assert raw.endswith(_DATA)
        return [(token, ACCEPT)]


def send() -> None:
    """Send without end."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        while True:
            with contextlib.suppress(PermissionError):  # its queue was closed, and it was dropped
                sender.sendto(_DATA, ("127.0.0.1", _PORT))


def packets_that_come_while_it_is_bound_wait_for_its_first_turn() -> None:
    """A flow of an earlier daemon is not known yet, and would be reset."""
    subprocess.run(["iptables-legacy", *_RULE.split()], check=True, timeout=30)
    # Processes, because binding keeps the interpreter's lock.
    senders = [
        subprocess.Popen([sys.executable, "-m", "tests.lab.queue_on_router", "send"]) for _ in range(2)
    ]
    try:
        for _ in range(300):
            engine = _Counting()
            queue = PacketQueue(_NUMBER, cast(Engine, engine), time.monotonic)
            queue.open()
            try:
                assert engine.seen == 0
                deadline = time.monotonic() + 10.0
                while not engine.seen:
                    assert time.monotonic() < deadline
                    queue.serve(wait=True)
            finally:
                queue.close()
    finally:
        for sender in senders:
            sender.kill()
            sender.wait(30)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
