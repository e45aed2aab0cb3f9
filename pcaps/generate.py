"""Make the captures of pcaps/: `python -m pcaps.generate`, or with `--check` see whether they are unchanged.

The engine has no part in this: a recorded capture's output follows from a table of bytes, a synthetic one's
from the messages that its scene says must leave.
"""

import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from nfreaim.capture import Capture
from pcaps import icq, pairs, scenes
from pcaps.scenes import ROUTER_A, ROUTER_B, Scene
from tests.tcp.captures import write_pcap

FOLDER = Path(__file__).parent / "oscar"
LAN_A, LAN_B = "10.0.0.0/24", "192.168.7.0/24"


class Change(NamedTuple):
    """Bytes of a recorded frame: its number, offset from the first byte of the Ethernet header, old, new."""

    frame: int
    at: int
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Case:
    """A pair of captures and the router between them.

    sha256   of a recorded input, which cannot be made again
    changes  what must leave otherwise in a recorded capture
    scene    makes a synthetic one
    step     seconds between two frames of the scene
    ordered  its outcome depends on the order of arrival: not to be played in another one
    """

    name: str
    inside: str = LAN_A
    outside: str = ROUTER_A
    sha256: str = ""
    changes: tuple[Change, ...] = ()
    scene: Callable[[Scene], None] | None = None
    step: float = 0.002
    ordered: bool = False

    @property
    def before(self) -> Path:
        return FOLDER / f"{self.name}.in.pcap"

    @property
    def after(self) -> Path:
        return FOLDER / f"{self.name}.out.pcap"


def _recorded(name: str, sha256: str, *changes: Change, router: tuple[str, str] = (LAN_A, ROUTER_A)) -> Case:
    return Case(f"libpurple-{name}", *router, sha256=sha256, changes=changes)


def _moved(frame: int, at: int, inside: str, outside: str, sum_before: str, sum_after: str) -> list[Change]:
    """libpurple's proposal whose TLV 0x0002 begins at `at`: 0x0002 and 0x0003 change, 5190 (0x1446) stays."""
    return [
        Change(frame, 50, sum_before, sum_after),
        Change(frame, at, inside, outside),
        Change(frame, at + 8, inside, outside),
        Change(frame, at + 16, "1446", "1446"),
    ]


RECORDED = (
    _recorded(
        "send-alice-bob",
        "49fb7eb0c83c1374983201fb7a5da42ac8fecc151b095f6046f1c3ea8855e7c9",
        *_moved(342, 135, "0a000005", "cb007101", "3a3c", "3fd8"),
    ),
    _recorded(
        "send-bob-alice",
        "49a56309723ac6506c06830e0bb617b14d4a28492ba0f52b0bdd01affe6fc18c",
    ),
    _recorded(
        "dim-alice-bob",
        "f953dcf1bbd78965de7912b133ba9e2cc902bc07db76431afecdc3b8db048115",
        *_moved(345, 135, "0a000005", "cb007101", "b782", "bd1e"),
    ),
    _recorded(
        "send-alice-carol.ra-lan",
        "52d123aea7e82dfd0291f01b4034691b465f7dd1e28758e2db82b58b87d0dfa2",
        *_moved(356, 137, "0a000005", "cb007101", "3578", "3b14"),
    ),
    _recorded(
        "send-alice-carol.rb-lan",
        "deff0ccd2950678a2a05d6a77620432c8627158d74d5689dad4f655008c24049",
        *_moved(368, 137, "c0a80705", "cb007102", "42d6", "97ed"),
        router=(LAN_B, ROUTER_B),
    ),
)

SYNTHETIC = (
    Case("aim-order", scene=scenes.aim_order),
    Case("kopete-order", scene=scenes.kopete_order),
    Case("port-taken", scene=scenes.port_taken),
    Case("relay", scene=scenes.relay),
    Case("stage-3a", scene=scenes.stage_3a),
    Case("same-lan-oos", scene=scenes.same_lan_oos),
    Case("same-lan-aol", scene=scenes.same_lan_aol),
    Case("counter-proposals", LAN_B, ROUTER_B, scene=scenes.counter_proposals),
    Case("cancel", scene=scenes.cancel),
    Case("split-in-address", scene=scenes.split_in_address),
    Case("split-in-port", scene=scenes.split_in_port),
    Case("split-too-slow", scene=scenes.split_too_slow, step=1.2, ordered=True),
    Case("snac-extra", scene=scenes.snac_extra),
    Case("imitation", scene=scenes.imitation),
    Case("services", scene=scenes.services),
    Case("refused", scene=scenes.refused),
    Case("icq-direct", scene=icq.icq_direct),
    Case("icq-same-lan", scene=icq.icq_same_lan),
    Case("icq-messages", scene=icq.icq_messages),
)

CASES = RECORDED + SYNTHETIC


def make(case: Case, before: Path, after: Path) -> None:
    """Write the pair of a case; a recorded input is copied from pcaps/."""
    if case.scene is not None:
        for path, expected in ((before, False), (after, True)):
            scene = Scene(expected, case.step)
            case.scene(scene)
            write_pcap(path, scene.frames)
        return
    raw = case.before.read_bytes()
    if hashlib.sha256(raw).hexdigest() != case.sha256:
        raise SystemExit(f"{case.before} is not the file that was recorded; take it from the history")
    capture = Capture(raw, str(case.before))
    frames = {frame.number: frame.data for frame in capture}
    for number, at, old, new in case.changes:
        was, becomes = bytes.fromhex(old), bytes.fromhex(new)
        data = frames[number]
        assert data[at : at + len(was)] == was, f"{case.name}: frame {number}, byte {at} is not {old}"
        frames[number] = data[:at] + becomes + data[at + len(was) :]
        capture.replace(number, frames[number])
    before.write_bytes(raw)
    capture.save(after)


def differences() -> list[str]:
    """What the folder holds otherwise than this file makes it, one line per capture."""
    return pairs.differences("pcaps.generate", CASES, make, set(FOLDER.glob("*")))


if __name__ == "__main__":
    sys.exit(pairs.command(FOLDER, CASES, make, differences))
