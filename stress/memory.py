"""``python -m stress.memory [WORKERS]``: full tables of an engine, and how much memory they take in the end.

No network: packets go straight into an engine, with the tests' fakes below it. Each flow is a signed-on
session whose server has relayed offers of parties with long names, and has begun a frame that never ends.
Beside them the tables of SYNs without an answer and of SYN/ACKs without the client's ACK are full. With
WORKERS it is the share of one of them, which is counted as often, and once more for the first process.
"""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path
from typing import Final

from nfreaim.core.address import Endpoint
from nfreaim.core.settings import EngineSettings
from nfreaim.core.tcp.segment import ACK, SYN
from tests.oscar.rendezvous import SEND_FILE, rdv_block
from tests.oscar.signon import CLIENT_SIGNON, HOST_ONLINE, SIGNON
from tests.oscar.snac import snac_frame
from tests.oscar.tlv import tlv, user_info
from tests.tcp.packets import packed
from tests.unit.oscar_fixtures import Router, Wire

_UNIT: Final = Path(__file__).resolve().parents[1] / "rules/nfreaim.service"
FURTHER: Final = 64 << 20
"""By which MemoryMax has to be raised for each worker beyond the first, in bytes; see README."""
_OFFERS: Final = 9  # one more than is remembered


def most_memory() -> int:
    """MemoryMax of the daemon's unit, in bytes."""
    found = re.search(r"^MemoryMax=(\d+)M$", _UNIT.read_text(), re.MULTILINE)
    assert found
    return int(found[1]) << 20


def offer(number: int) -> bytes:
    """A server's proposal whose peer, and whose wish for TLS, are remembered, of a party with a long name."""
    cookie = b"%07d\0" % number
    inner = tlv(0x0A, b"\0\1") + tlv(2, packed("198.51.100.7")) + tlv(3, packed("198.51.100.7"))
    inner += tlv(5, b"\x13\x88") + tlv(4, bytes([198, 51, 100, number + 1])) + tlv(0x11)
    block = tlv(5, rdv_block(0, cookie, SEND_FILE, inner))
    return snac_frame((4, 7), cookie + b"\0\2" + user_info(b"%03d" % number + b"x" * 252) + block)


OFFERS: Final = [offer(number) for number in range(_OFFERS)]


def resident() -> int:
    """How much memory this process has had at most, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def fill(router: Router, number: int) -> None:
    """Add the flow with this number to the router's engine."""
    client = Endpoint(f"10.0.{number >> 12}.{1 + (number >> 5 & 127)}", 1024 + number % 32)
    wire = Wire(router, client=client)
    process, now = router.engine.process, router.now
    process(wire.raw(0, -1, flags=SYN), 0, True, now)
    process(wire.raw(1, -1, flags=SYN | ACK), 0, False, now)
    process(wire.raw(0, 0, flags=ACK), 0, True, now)
    for way, data in ((0, CLIENT_SIGNON), (1, SIGNON + HOST_ONLINE), *((1, one) for one in OFFERS)):
        process(wire.raw(way, len(wire.sent[way]), data), 0, way == 0, now)
        wire.sent[way] += data
    process(wire.raw(1, len(wire.sent[1]), OFFERS[0][:900]), 0, False, now)
    router.watcher.reports.clear()


def knock(router: Router, half_open: int) -> None:
    """Fill the tables of handshakes that are not complete."""
    process, now = router.engine.process, router.now
    for number in range(2 * half_open):
        client = Endpoint(f"10.{1 + (number >> 16)}.{number >> 8 & 255}.{number & 255}", 1024)
        wire = Wire(router, client=client)
        process(wire.raw(0, -1, flags=SYN), 0, True, now)
        if number < half_open // 2:
            process(wire.raw(1, -1, flags=SYN | ACK), 0, False, now)


def main() -> None:
    workers = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    settings = EngineSettings().share(workers)
    flows = settings.limits.flows
    router = Router(settings)
    router.kernel.networks.clear()
    begun = resident()
    for number in range(flows):
        fill(router, number)
        if number % 4096 == 0:
            router.engine.tick(router.now)
            router.now += 2.1
            router.engine.save()
            router.kernel.kept.clear()
            router.kernel.noted.clear()
    assert len(router.engine.flows) == flows
    of_flows = resident()
    knock(router, settings.limits.half_open)
    assert len(router.engine.flows) == flows
    used = resident()
    print(f"MEMORY {flows} flows of {workers} workers: {begun >> 20} MiB at the start, {of_flows >> 20} with")
    print(f"       them ({(of_flows - begun) // flows} bytes each), {used >> 20} with handshakes; ", end="")
    whole = used if workers == 1 else workers * used + begun
    allowed = most_memory() + (workers - 1) * FURTHER
    print(f"in all {whole >> 20} MiB of {allowed >> 20}")
    assert whole < allowed * 0.75


if __name__ == "__main__":
    main()
