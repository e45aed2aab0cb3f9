"""Seeds: every capture as a program, and small programs around each golden packet.

Addresses of a capture become those of the slots, complements included; a proposal thus stays a proposal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from nfreaim.capture import Capture
from nfreaim.capture.link_layer import network_offset
from nfreaim.core.address import reverse
from nfreaim.core.tcp.segment import FIN, RST, SYN, Segment
from tests.fuzz import damaged, msn, pager, peers, stanzas
from tests.fuzz.ends import ENDS
from tests.fuzz.numbers import AS_THEY_ARE, WRONG
from tests.fuzz.program import MAX_BYTES, Kind, Program, Step, moved, opened, send
from tests.golden import packets as golden_packets
from tests.oscar.fields import announcing
from tests.oscar.flap import CLIENT, SERVER
from tests.oscar.redirect import HOME, REDIRECTS, naming
from tests.oscar.signon import CLIENT_SIGNON, HOST_ONLINE, SIGNON
from tests.tcp.packets import packed
from tests.unit.fakes import OUTSIDE

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDERS: Final = (ROOT / "pcaps" / "oscar", ROOT.parent / "shared" / "pcaps")
GOLDEN: Final = golden_packets()
REGRESSIONS: Final = Path(__file__).parent / "regressions"
LONGEST: Final = 16384
"""Of what a fuzzer makes, in bytes: longer inputs only cost time."""
OWN: Final[dict[str, Any]] = {
    "gate": peers,
    "records": damaged,
    "msn": msn,
    "stanzas": stanzas,
    "pager": pager,
}
"""Targets with a format of their own."""
_CHUNK: Final = (160, 12000)  # steps and bytes of one part of a capture


def programs() -> Iterator[tuple[str, Program]]:
    """Every seed by name."""
    for folder in FOLDERS:
        if folder.is_dir():
            for path in sorted(folder.iterdir()):
                if path.suffix in (".pcap", ".pcapng") and not path.name.endswith(".out.pcap"):
                    yield from _of_capture(path)
    yield from scripts()


def signed_on(slot: int, piece: int = 0) -> list[Step]:
    """Everything up to the point where proposals are read."""
    return [
        opened(slot),
        send(slot, 1, SIGNON, piece),
        send(slot, 0, CLIENT_SIGNON, piece),
        send(slot, 1, HOST_ONLINE, piece),
    ]


def scripts() -> Iterator[tuple[str, Program]]:
    """Programs of golden packets: alone, cut, among accidents."""
    for name, data in GOLDEN.items():
        for slot in (0, 2):
            own = announcing(data, CLIENT, ENDS[slot][0].address)
            steps = [*signed_on(slot), send(slot, 0, own), send(slot, 1, data)]
            yield f"{name}-{slot}", Program(0, tuple(steps))
            if own != data or "proposal" in name:
                steps += [send(slot, 1, data, 7), send(slot, 0, own, 30), Step(Kind.TICK, 0, 0, False, (40,))]
                steps += [Step(Kind.AGAIN, slot, way, False, (300, 200, 0)) for way in (0, 1)]
                yield f"{name}-{slot}-cut", Program(0, tuple(steps))
    for offer, relayed in (
        ("send-file-proposal", "send-file-proposal-received"),
        ("icq-status", "icq-buddy-arrival"),
        ("icq-reverse-connect", "icq-reverse-connect-received"),
    ):
        if relayed in GOLDEN:
            out = announcing(GOLDEN[offer], CLIENT, ENDS[0][0].address)
            back = announcing(GOLDEN[relayed], SERVER, OUTSIDE)
            steps = [*signed_on(0), *signed_on(1), send(0, 0, out), send(1, 1, back), send(1, 1, back, 9)]
            yield f"neighbours-{offer}", Program(0, tuple(steps))
            yield f"neighbours-{offer}-announced", Program(2, tuple(steps))
    for name in REDIRECTS:
        data = naming(HOME, name)
        steps = [*signed_on(2), send(2, 1, data, 5), send(2, 0, GOLDEN["keepalive"])]
        steps += [Step(Kind.RESTART), Step(Kind.AGAIN, 2, 1, False, (90, 80, 0)), send(2, 1, data)]
        yield f"home-{name}", Program(0, tuple(steps))
    home = GOLDEN["send-file-proposal-received"]
    for tag in (b"\0\3\0\4", b"\0\4\0\4", b"\0\2\0\4"):
        at = home.rfind(tag) + 4
        home = home[:at] + packed("10.0.0.77") + home[at + 4 :] if at > 3 else home
    yield "home-relayed", Program(0, (*signed_on(2), send(2, 1, home, 9)))
    yield from _accidents()
    own = GOLDEN["send-file-proposal"]
    yield "claim", Program(0, (*signed_on(0), send(0, 0, own), Step(Kind.CLAIM, 0, 0, False, (0, 9))))
    yield (
        "neighbours",
        Program(4, (*signed_on(0), *signed_on(1), send(0, 0, own), send(1, 1, own), *moved(signed_on(3), 3))),
    )
    faults = [Step(Kind.FAULT, 0, 0, False, (bits,)) for bits in (2, 0, 4, 1, 0)]
    yield "faults", Program(0, (*signed_on(0), *(s for f in faults for s in (f, send(0, 0, own)))))
    yield "restart", Program(0, (*signed_on(0), send(0, 0, own), Step(Kind.RESTART), send(0, 1, own)))


def _accidents() -> Iterator[tuple[str, Program]]:
    """Restarts, narrow windows, lies, wrong numbers, a connection tracking that is flushed."""
    own, ack, alive = GOLDEN["send-file-proposal"], GOLDEN["host-ack"], GOLDEN["keepalive"]
    again = Step(Kind.AGAIN, 0, 0, False, (400, 400, 0))
    for died in (0, 1):
        steps = [*signed_on(0), _after(1), send(0, 0, GOLDEN["text-message"]), send(0, 1, ack)]
        steps.append(Step(Kind.RESTART, 0, died))
        if died:  # frames have to be found again
            for _ in range(4):
                steps += [_after(2), send(0, 0, alive), send(0, 1, ack)]
        yield f"resumed-{died}", Program(0, (*steps, send(0, 0, own), again))
    again_opened = [*signed_on(0), Step(Kind.OPEN, 0, 0, True, (7,)), *signed_on(0)[1:]]
    yield "opened-again", Program(0, (*again_opened, send(0, 0, own)))
    redirect = naming(HOME)
    for window in (1, len(redirect) - 3, len(redirect), len(redirect) + 3):
        steps = [Step(Kind.WINDOW, 2, 0, False, (window,)), *signed_on(2), send(2, 0, alive)]
        steps += [send(2, 1, redirect), Step(Kind.AGAIN, 2, 1, False, (90, 90, 0)), send(2, 1, ack)]
        yield f"window-{window}", Program(0, tuple(steps))
    for number in (1, 2):
        steps = [*signed_on(0), Step(Kind.LIE, 0, 0, False, (number,)), send(0, 0, own)]
        yield f"lie-{number}", Program(0, (*steps, Step(Kind.LIE, 0, 0, False, (0,)), again))
    for off in (1, 16, 17):
        skipped = ack[:2] + bytes([WRONG, off]) + ack[4:]
        yield f"off-{off}", Program(0, (*signed_on(0), send(0, 1, skipped), send(0, 0, own)))
    wrong = own[:2] + bytes([WRONG, 1]) + own[4:]
    yield "off-client", Program(0, (*signed_on(0), send(0, 0, wrong)))
    yield "as-they-are", Program(AS_THEY_ARE, (*signed_on(0), send(0, 0, own)))
    shared = GOLDEN["direct-im-proposal"]
    for way in (0, 1):
        steps = [*signed_on(0), send(0, 0, own), *signed_on(3), send(3, 0, shared)]
        yield f"shared-{way}", Program(0, (*steps, Step(Kind.LIFE, 3, way), _after(12), _after(12)))


def _after(seconds: int) -> Step:
    return Step(Kind.TICK, 0, 0, True, (seconds,))


def _of_capture(path: Path) -> Iterator[tuple[str, Program]]:
    """The connections of a capture, two at most at a time in slots 0 and 1; and once more in slot 2."""
    slots: dict[bytes, int] = {}
    seen: dict[tuple[int, int], int] = {}  # next sequence number by slot and way
    steps: list[Step] = []
    for frame in Capture.load(path):
        at = network_offset(frame.link, frame.data)
        segment = (
            Segment.parse(frame.data[at : at + int.from_bytes(frame.data[at + 2 : at + 4], "big")])
            if at is not None
            else None
        )
        if segment is None:
            continue
        key, back = segment.key, reverse(segment.key)
        payload = segment.raw[segment.start :]
        if segment.flags & SYN and not segment.flags & 0x10:
            slots.pop(back, None)
            number = len(slots) % 2
            slots[key] = number
            seen.pop((number, 0), None)
            seen.pop((number, 1), None)
            steps.append(opened(number, new=any(step.slot == number for step in steps)))
        if key not in slots and back not in slots:
            slots[key if int.from_bytes(key[8:10], "big") > int.from_bytes(key[10:12], "big") else back] = 0
            steps.append(opened(0))
        way, slot = (0, slots[key]) if key in slots else (1, slots[back])
        if payload:
            due = seen.get((slot, way), segment.seq)
            new = (due - segment.seq) & 0xFFFFFFFF
            if new and new <= len(payload):
                steps.append(Step(Kind.AGAIN, slot, way, False, (new, new, 0)))
            payload = payload[new:] if new < 1 << 31 else payload
            seen[slot, way] = (segment.seq + len(segment.raw) - segment.start) & 0xFFFFFFFF
            if payload:
                client = (key if way == 0 else back)[:4]
                steps.append(send(slot, way, translated(payload, client, slot)))
        if segment.flags & (FIN | RST):
            steps.append(Step(Kind.BARE, slot, way, False, (32768, segment.flags, 0)))
    for part, chunk in enumerate(_chunks(steps)):
        begun = {step.slot for step in chunk if step.kind is Kind.OPEN}
        before = [step for slot in sorted({step.slot for step in chunk} - begun) for step in signed_on(slot)]
        yield f"{path.stem}-{part}", Program(0, (*before, *chunk))
        home = moved([step for step in (*before, *chunk) if not step.slot], 2)
        yield f"{path.stem}-{part}-home", Program(0, tuple(home))


def _chunks(steps: list[Step]) -> Iterator[list[Step]]:
    chunk: list[Step] = []
    size = 0
    for step in steps:
        if len(chunk) >= _CHUNK[0] or size + len(step.data) > _CHUNK[1]:
            yield chunk
            chunk, size = [], 0
        chunk.append(step)
        size += len(step.data)
    yield chunk


def translated(data: bytes, client: bytes, slot: int) -> bytes:
    """*data* with the addresses of a capture replaced by those of a slot, in text, too."""
    new = packed(ENDS[slot][0].address)
    outside = [packed(each) for each in ("203.0.113.2", "203.0.113.1")]
    for old, other in ((client, new), *((each, packed(OUTSIDE)) for each in outside)):
        for flip in (0, 255):
            data = data.replace(bytes(b ^ flip for b in old), bytes(b ^ flip for b in other))
    return data


def packets() -> Iterator[bytes]:
    """Seeds of the segment target: packets of the captures, a few of each."""
    for folder in FOLDERS:
        if folder.is_dir():
            for path in sorted(folder.iterdir()):
                if path.suffix in (".pcap", ".pcapng"):
                    for frame in list(Capture.load(path))[:6]:
                        at = network_offset(frame.link, frame.data)
                        if at is not None:
                            size = int.from_bytes(frame.data[at + 2 : at + 4], "big")
                            yield bytes([0, 3, 5, 0, 0, 1, 9]) + frame.data[at : at + size]


def seeds(target: str) -> list[bytes]:
    """All seeds of a target, the shared format's or packets."""
    if target == "segment":
        return list(dict.fromkeys(packets()))
    if target in OWN:
        return list(dict.fromkeys(OWN[target].seeds()))
    return list(dict.fromkeys(program.encode()[:MAX_BYTES] for _, program in programs()))


def regressions(target: str) -> list[tuple[str, bytes]]:
    """Inputs that once made *target* fail: files named target-what-happened."""
    paths = sorted(REGRESSIONS.glob(f"{target}-*"))
    return [(path.name, path.read_bytes()) for path in paths]


def write(target: str, folder: Path) -> int:
    """Write the seeds of *target* as files; how many."""
    folder.mkdir(parents=True, exist_ok=True)
    found = seeds(target) + [data for _, data in regressions(target)]
    for data in found:
        (folder / hashlib.sha1(data, usedforsecurity=False).hexdigest()).write_bytes(data)
    return len(found)
