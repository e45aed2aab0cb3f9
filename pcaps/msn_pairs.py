"""Make the captures of pcaps/msn/: `python -m pcaps.msn_pairs`; `--check` tells whether they are unchanged.

As pcaps/irc_pairs.py does it: the engine has no part in this.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pcaps import pairs
from pcaps.irc_pairs import Scene
from pcaps.scenes import ALICE, AMY
from tests.golden.msn import packets
from tests.tcp.captures import Frames, tcp_in

FOLDER = Path(__file__).parent / "msn"
PORTS = (1863, 1864)
NS, SB = (("203.0.113.9", port) for port in PORTS)
LAN = "10.0.0.0/24"
_GOLDEN = packets()

Change = tuple[int, bytes, bytes]
"""At an offset of a segment's payload, what must leave in place of what."""


@dataclass(frozen=True, slots=True)
class Case:
    """A pair of captures of router A.

    sha256   of a recorded input, which cannot be made again
    changes  of a recorded one, by frame
    scene    makes a synthetic one
    """

    name: str
    sha256: str = ""
    changes: tuple[tuple[int, tuple[Change, ...]], ...] = ()
    scene: Callable[[Scene], None] | None = None

    @property
    def before(self) -> Path:
        return FOLDER / f"{self.name}.in.pcap"

    @property
    def after(self) -> Path:
        return FOLDER / f"{self.name}.out.pcap"


def _announced(length: bytes, total: bytes, size: bool = True) -> tuple[Change, ...]:
    """What becomes of libpurple's answer: the lengths of MSG, P2P frame and text, and the address."""
    grown = bytes([total[0] + 3])
    changes: tuple[Change, ...] = ((8, length, b"%d" % (int(length) + 3)), (115, total, grown))
    if size:
        changes += ((123, total, grown),)
    return (*changes, (438, b"138", b"141"), (544, b"10.0.0.5", b"203.0.113.1"))


def goldens(scene: Scene) -> None:
    """The golden packets of clients, one after another, with all that is left alone between them."""
    alice = scene.connect(ALICE, 49101, SB)
    alice.say(b"USR 1 alice1@lab.test token\r\n")
    alice.hear(b"USR 1 OK alice1@lab.test alice\r\n")
    for name in (
        *(f"F{n}" for n in (1, 2, 3, 4, 7, 8, 12)),
        "A1",
        "P1",
        "P3",
        "P8",
        "P9",
        "P10",
        "P11",
        "P12",
    ):
        alice.say(_GOLDEN[name].before, _GOLDEN[name].after)
    for name in ("W1", "W4", "W5"):
        alice.say(_GOLDEN[name].before)
    alice.hear(_GOLDEN["P6"].before, _GOLDEN["P6"].after)
    alice.say(_GOLDEN["P1"].before, _GOLDEN["P1"].after, cuts=(100, 550))
    alice.close()
    session = scene.connect(ALICE, 49102, NS)
    session.say(b"VER 1 MSNP18 CVR0\r\n")
    session.hear(b"VER 1 MSNP18\r\n")
    session.say(b"USR 2 SSO S t=x\r\n")
    session.hear(b"USR 2 OK alice1@lab.test 1 0\r\n")
    session.say(_GOLDEN["N2"].before)
    session.hear(_GOLDEN["R1"].before)
    session.close()


def same_lan(scene: Scene) -> None:
    """Amy is told where Alice listens for a file, in both forms."""
    alice, amy = scene.connect(ALICE, 49103, SB), scene.connect(AMY, 49103, SB)
    alice.say(b"USR 1 alice1@lab.test token\r\n")
    alice.hear(b"USR 1 OK alice1@lab.test alice\r\n")
    amy.say(b"ANS 1 amy1@lab.test token 17\r\n")
    amy.hear(b"IRO 1 1 1 alice1@lab.test alice\r\nANS 1 OK\r\n")
    for name, back in (("F4", "F11"), ("P1", "P7")):
        alice.say(_GOLDEN[name].before, _GOLDEN[name].after)
        amy.hear(_GOLDEN[back].before, _GOLDEN[back].after)
    alice.close()
    amy.close()


def imitation(scene: Scene) -> None:
    """A session in a browser's request, answered like one; and in the texts of others."""
    text = b"USR 1 alice1@lab.test token\r\n" + _GOLDEN["F4"].before
    alice = scene.connect(ALICE, 49104, SB)
    alice.say(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\n")
    alice.say(text)
    alice.hear(b"USR 1 OK alice1@lab.test alice\r\n")
    alice.say(text)
    alice.close()
    alice = scene.connect(ALICE, 49105, SB)
    alice.say(b"USR 1 alice1@lab.test token\r\n")
    alice.hear(b"USR 1 OK alice1@lab.test alice\r\n")
    payload = b"MIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\n" + text
    alice.say(b"MSG 2 N %d\r\n" % len(payload) + payload, cuts=(30, 90))
    alice.hear(b"MSG bob1@lab.test bob %d\r\n" % len(payload) + payload, cuts=(30, 90))
    alice.close()


RECORDED = (
    Case(
        "libpurple-bob-alice.ra-lan",
        "dc4bfcb1e1f60379ecb11e0e1e151865641df0b0d5b5c2f5df2768265c42dd15",
        ((80, _announced(b"574", b"\xb4")),),
    ),
    Case("libpurple-alice-bob.ra-lan", "c989578df942bf3f4a0f21ea7d890227ef500b28b366c58be4c94d450a0784ef"),
    Case(
        "libpurple-unrepaired-bob-alice.ra-lan",
        "107ed8acae204c34fd24ce3a839d1711caa2844f36bff3f76939cab2d20eba22",
        ((90, _announced(b"574", b"\xb4", size=False)), (92, _announced(b"574", b"\xb4"))),
    ),
    Case(
        "libpurple-alice-sharp-bob.ra-lan",
        "d6d38cb0abfd56110efc4570c20001db7a8c4005dfda034d457a3cdbea9834e0",
    ),
    Case("sharp-alice-sharp-bob.ra-lan", "ee368d47ac2f3a94047fbe2a2a26cd8537d932597b20fa5bd608b04dc898e4e1"),
    Case(
        "home-bob-alice.ra-lan",
        "d554c4d21de728207441f25afc5dff2462d0ffe86e1098a8b7c9d950704bee2c",
        ((105, ((10, b"10.0.0.9", b"203.0.113.1"),)),),
    ),
)
SYNTHETIC = (
    Case("goldens", scene=goldens),
    Case("same-lan", scene=same_lan),
    Case("imitation", scene=imitation),
)
CASES = RECORDED + SYNTHETIC


def make(case: Case, before: Path, after: Path) -> None:
    """Write the pair of a case; a recorded input is copied from pcaps/msn/."""

    def edits(frames: Frames) -> pairs.Edits:
        found = []
        for number, changes in case.changes:
            segment = tcp_in(frames[number - 1][1])
            assert segment is not None
            payload, new = segment.payload, segment.payload
            for at, old, by in reversed(changes):
                assert payload[at : at + len(old)] == old, f"frame {number}, offset {at}"
                new = new[:at] + by + new[at + len(old) :]
            found.append((number, payload, new))
        return tuple(found)

    if case.scene is not None:
        pairs.play(case.scene, Scene, before, after)
    else:
        pairs.edit(case.before, case.sha256, edits, before, after)


def differences() -> list[str]:
    """What the folder holds otherwise than this file makes it, one line per capture."""
    return pairs.differences("pcaps.msn_pairs", CASES, make, FOLDER.glob("*.pcap"))


if __name__ == "__main__":
    sys.exit(pairs.command(FOLDER, CASES, make, differences))
