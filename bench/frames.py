"""What the most expensive messages cost to read, in ms of processor time: here, and in another checkout.

    python -m bench.frames [OTHER CHECKOUT]

The messages go through an engine with the tests' fakes: no network, no root. With another checkout each is
measured there as well, by turns, and the last line compares the worst of both.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.oscar.flap import FLAP_KEEPALIVE, flap
from tests.oscar.messages import BASIC, proposal
from tests.oscar.rendezvous import SEND_FILE
from tests.oscar.snac import snac_frame
from tests.oscar.tlv import tlv
from tests.unit.oscar_fixtures import Wire

_LONGEST: Final = 8192
_ROUNDS: Final = 5
_COOKIE: Final = b"cookie1\0"


def _block(count: int, kind: int = 0x7777, value: bytes = b"") -> bytes:
    return tlv(5, b"\0\0" + _COOKIE + SEND_FILE + tlv(kind, value) * count)


def _full(block: bytes, room: int = _LONGEST - 60) -> bytes:
    """As many blocks as fit, at most 100."""
    return block * min(100, room // len(block))


_BODIES: Final = {
    "one block of 100 TLVs": _block(100),
    "blocks of 100 TLVs up to 8 KiB": _full(_block(100)),
    "blocks of 18 TLVs up to 8 KiB": _full(_block(18)),
    "100 bare blocks": _block(0) * 100,
    "100 outer TLVs": tlv(9, b"") * 100,
    "100 addresses": _block(100, 2, b"\1\2\3\4"),
}


def frames() -> Iterator[tuple[str, int, bytes]]:
    """Name, direction and bytes of each case."""
    for way, subtype, whom in ((0, 6, b"\x03bob"), (1, 7, b"\x03bob\0\0\0\0")):
        for name, blocks in _BODIES.items():
            body = _COOKIE + b"\0\2" + whom + blocks
            yield f"{name}, from the {'server' if way else 'client'}", way, snac_frame((4, subtype), body)
    yield "proposal that is edited", 0, proposal(BASIC)
    yield "proposal that is edited, 90 TLVs more", 0, proposal(BASIC + tlv(0x7777, b"") * 90)
    yield "redirect of 100 TLVs", 1, snac_frame((1, 5), tlv(5, b"a") * 100)
    yield "60 redirects of one TLV", 1, snac_frame((1, 5), tlv(5, b"a")) * 60
    yield "1300 frames of no data", 0, flap(FLAP_KEEPALIVE, 1) * 1300


def cost(way: int, frame: bytes) -> float:
    """Processor time that a new session's engine needs for *frame*, in ms: the least of some rounds."""
    least = float("inf")
    for _ in range(_ROUNDS):
        wire = Wire().sign_on()
        base = len(wire.sent[way])
        raws = [(start, frame[start : start + 1460]) for start in range(0, len(frame), 1460)]
        packets = [wire.raw(way, base + start, piece) for start, piece in raws]
        begin = time.process_time()
        for packet in packets:
            wire.router.engine.process(packet, 0, way == 0, wire.router.now)
        least = min(least, (time.process_time() - begin) * 1e3)
    return least


def _measured() -> dict[str, tuple[int, float]]:
    return {name: (len(frame), cost(way, frame)) for name, way, frame in frames()}


def _elsewhere(checkout: Path) -> dict[str, tuple[int, float]]:
    """The same, by the code of *checkout* and these tests."""
    code = (
        f"import sys; sys.path[:0] = [{str(checkout)!r}]; sys.argv = ['frames', '--json'];"
        f" import runpy; runpy.run_path({str(Path(__file__).resolve())!r}, run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=checkout, capture_output=True, text=True, check=True
    )
    found: dict[str, tuple[int, float]] = json.loads(done.stdout)
    return found


def main(words: list[str]) -> None:
    """Measure and print."""
    if words == ["--json"]:
        print(json.dumps(_measured()))
        return
    here, other = _measured(), _elsewhere(Path(words[0]).resolve()) if words else {}
    for name, (size, now) in here.items():
        before = f"{other[name][1]:9.2f} ms before" if name in other else ""
        print(f"{name:52} {size:5} bytes {now:7.2f} ms {now / size * 1e3:6.2f} ms/KB {before}")
    worst = max(now for _, now in here.values())
    if other:
        then = max(before for _, before in other.values())
        print(f"the worst: {worst:.2f} ms; before {then:.2f} ms, {then / worst:.1f} times as much")


if __name__ == "__main__":
    main(sys.argv[1:])
