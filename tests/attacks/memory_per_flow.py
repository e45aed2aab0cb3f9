"""What a flow keeps in mind of proposals, for a table full of flows.

A server sends 32 proposals on each connection, with screen names of 255 bytes. All flows of a full table
together must stay within what the unit allows to all processes (MemoryMax, 768 MiB). No lab.
"""

from __future__ import annotations

import gc
import sys
import time
import tracemalloc
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.attacks.kit import CHECKOUT, say, verdict

# isort: split
from nfreaim.core.address import Endpoint
from tests.attacks import wire
from tests.oscar import icbm
from tests.oscar import rendezvous as rdv
from tests.oscar.flap import frames_of, number_of
from tests.oscar.snac import TO_CLIENT, snac_frame
from tests.oscar.tlv import tlv, user_info
from tests.oscar.values import ip4, u16
from tests.unit.oscar_fixtures import Router, Wire

FLOWS = 300
TABLE = 65536
ALLOWED = 768  # MiB
EACH = 32
ANYWHERE = ip4("198.51.100.7")


def frame(number: int, index: int) -> bytes:
    cookie = b"%07d\0" % index
    inner = tlv(rdv.SEQUENCE, u16(1)) + tlv(rdv.RDV_IP, ANYWHERE) + tlv(rdv.REQUESTER_IP, ANYWHERE)
    inner += tlv(rdv.PORT, u16(5000)) + tlv(rdv.VERIFIED_IP, ip4(f"198.51.100.{index + 1}"))
    block = tlv(icbm.ICBM_RDV, rdv.rdv_block(rdv.PROPOSE, cookie, rdv.SEND_FILE, inner + tlv(wire.SECURE)))
    name = f"{index:03}" + "x" * 252
    body = icbm.icbm_to_client(cookie, icbm.RENDEZVOUS, user_info(name), block)
    return snac_frame(TO_CLIENT, body, number=number, request=7)


def play(router: Router, one: Wire, frames: list[bytes]) -> None:
    """Straight into the engine: the kit's own judge would keep every byte."""
    for raw in frames:
        router.engine.process(one.raw(1, len(one.sent[1]), raw), 0, False, router.now)
        one.sent[1] += raw
    router.watcher.reports.clear()  # the fake journal's


def main() -> None:
    router = Router()
    plain = Wire(router, client=Endpoint("10.0.0.5", 1)).sign_on()
    number = number_of(frames_of(bytes(plain.sent[1]))[-1]) + 1
    wires = [
        Wire(router, client=Endpoint(f"10.0.0.{6 + port // 60}", 1024 + port)).sign_on()
        for port in range(FLOWS)
    ]
    frames = [frame(number + index, index) for index in range(EACH)]
    timed = Wire(router, client=Endpoint("10.0.0.200", 1)).sign_on()
    start = time.process_time()
    play(router, timed, frames)
    say(f"{(time.process_time() - start) / EACH * 1e3:.2f} ms of CPU for each of them")
    gc.collect()
    tracemalloc.start(1)
    for one in wires:
        play(router, one, frames)
    gc.collect()
    snapshot = tracemalloc.take_snapshot()
    ours = (f"{CHECKOUT}/nfreaim/", "/scapy/")
    sizes = {entry.traceback[0].filename: entry.size for entry in snapshot.statistics("filename")}
    kept = sum(size for name, size in sizes.items() if any(part in name for part in ours))
    for entry in snapshot.statistics("lineno")[:4]:
        say(str(entry))
    each = kept / FLOWS
    total = each * TABLE / (1 << 20)
    reading = sum(one.stored.reading.reads for one in wires)
    say(f"{each / 1024:.1f} KiB a flow; {reading} of {FLOWS} flows are still read")
    text = f"{each / 1024:.1f} KiB a flow, {total:.0f} MiB for a full table of {TABLE} flows"
    verdict(total > ALLOWED, text, control=reading == FLOWS)


if __name__ == "__main__":
    main()
