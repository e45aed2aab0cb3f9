"""What the most expensive frames cost the daemon: processor time a KB, through the engine, no lab.

Rendezvous blocks full of TLVs, many of them in one frame of 8 KiB, and redirects. Any program of the LAN
with a server of its own can send these, so can a hostile server, and, as servers relay rendezvous blocks
unread, anybody with an account at a good one. 10 Mbit/s of such frames must not take a whole CPU.
"""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.attacks.kit import say, verdict

# isort: split
from collections.abc import Callable
from functools import partial

from tests.oscar import rendezvous as rdv
from tests.oscar.flap import frames_of, number_of
from tests.oscar.snac import SERVICE_REDIRECT, snac_frame
from tests.oscar.tlv import name8, tlv, user_info
from tests.unit.oscar_fixtures import Wire

LIMIT = 8192
ATTEMPTS = 3
BLOCK = rdv.rdv_block(rdv.PROPOSE, b"cookie1\0", rdv.SEND_FILE)
WAYS = {0: "from the client", 1: "from the server"}


def frame(number: int, way: int, blocks: list[bytes]) -> bytes:
    """A message with these outer TLVs."""
    party = user_info("bob") if way else name8("bob")
    body = b"cookie1\0\0\2" + party + b"".join(blocks)
    return snac_frame((4, 7 if way else 6), body, number=number, request=7)


def block(count: int, kind: int = 0x7777) -> bytes:
    """A rendezvous block with *count* empty TLVs."""
    return tlv(5, BLOCK + tlv(kind) * count)


def full(one: bytes, room: int = LIMIT - 60) -> list[bytes]:
    """As many of them as fit."""
    return [one] * min(100, room // len(one))


CASES: dict[str, Callable[[], list[bytes]]] = {
    "one block, 100 TLVs of no bytes": lambda: [block(100)],
    "blocks of 100 TLVs up to 8 KiB": lambda: full(block(100)),
    "blocks of 100 TLVs, one overruns at the end": lambda: [
        *full(block(100), LIMIT - 500),
        tlv(5, BLOCK + tlv(1) * 50 + b"\0\1\0\xff"),
    ],
    "blocks of 18 TLVs up to 8 KiB": lambda: full(block(18)),
    "100 TLVs 0x0005 of a bare block": lambda: [block(0)] * 100,
    "100 outer TLVs": lambda: [tlv(9)] * 100,
    "addresses: 100 x 0x0002": lambda: [tlv(5, BLOCK + tlv(2, b"\1\2\3\4") * 100)],
}


def due(sent: bytearray) -> int:
    """The number of the frame that comes next."""
    return number_of(frames_of(bytes(sent))[-1]) + 1


def redirects(first: int, count: int, each: int) -> bytes:
    body = tlv(5, b"a") * each
    frames = [snac_frame(SERVICE_REDIRECT, body, number=first + n, request=0) for n in range(count)]
    return b"".join(frames)


def cost(one: Wire, way: int, data: bytes) -> float:
    """Processor time for *data* in segments of 1,460 bytes, in ms."""
    cuts = range(1460, len(data), 1460)
    start = time.process_time()
    (one.server if way else one.client)(data, cuts)
    return (time.process_time() - start) * 1e3


def least(way: int, made: Callable[[int], bytes]) -> tuple[float, bytes]:
    """What *made* costs in a session of its own, which begins with the frame of that number; and the data.

    The least of some attempts: who sends them without end pays nothing for cold caches.
    """
    took, data = math.inf, b""
    for _ in range(ATTEMPTS):
        one = Wire().sign_on()
        data = made(due(one.sent[way]))
        took = min(took, cost(one, way, data))
        counters = one.router.engine.counters
        assert counters.failed_flows == counters.failed_packets == 0
    return took, data


def main() -> None:
    worst = 0.0
    for way, name in [(way, name) for way in WAYS for name in CASES]:
        took, data = least(way, partial(frame, way=way, blocks=CASES[name]()))
        worst = max(worst, took / len(data))
        each = took / len(data) * 1e3
        say(f"{WAYS[way]} {name:46} {len(data):5} bytes {took:8.1f} ms {each:6.1f} ms/KB")
    for count, each in ((60, 1), (3, 100), (1, 99)):
        took, data = least(1, partial(redirects, count=count, each=each))
        worst = max(worst, took / len(data))
        each_kb = took / len(data) * 1e3
        say(f"{count} redirects of {each} TLVs: {len(data)} bytes {took:.1f} ms {each_kb:.1f} ms/KB")
    rate = 1e3 / worst * 8 / 1e6
    verdict(rate < 10, f"{worst * 1e3:.1f} ms per KB: {rate:.2f} Mbit/s of such frames take a whole CPU")


if __name__ == "__main__":
    main()
