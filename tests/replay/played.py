"""A case of pcaps/, played through the engine: what every test of this folder begins with."""

from ipaddress import IPv4Network
from pathlib import Path

from nfreaim.capture import Capture
from nfreaim.replay.outcome import Replay
from nfreaim.replay.player import replay
from pcaps.generate import Case
from tests.tcp.captures import Frames, write_pcap

SHARED = Path(__file__).parents[2].parent / "shared" / "pcaps"


def play(
    source: Path,
    target: Path,
    inside: str,
    outside: str = "203.0.113.1",
    ports: tuple[int, ...] = (5190,),
    midstream: bool = False,
) -> Replay:
    """Replay the file `source` into the file `target`."""
    capture = Capture.load(source)
    result = replay(capture, IPv4Network(inside), outside, {"oscar": ports}, midstream)
    capture.save(target)
    return result


def play_frames(frames: Frames, folder: Path, case: Case) -> tuple[Replay, Path]:
    """Replay `frames` between the networks of `case`; the result and the file that came out."""
    source, target = folder / "in.pcap", folder / "out.pcap"
    write_pcap(source, frames)
    return play(source, target, case.inside, case.outside), target
