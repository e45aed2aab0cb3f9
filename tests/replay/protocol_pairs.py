"""What holds for every pair of a protocol's captures (pcaps/*_pairs.py), played through the engine."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from nfreaim.capture import Capture
from nfreaim.replay.outcome import Replay
from nfreaim.replay.player import replay
from pcaps.pairs import Pair
from tests.replay.played import SHARED
from tests.tcp.captures import read_frames, streams, write_pcap
from tests.tcp.recut import recut
from tests.tcp.tshark import tshark_problems

OUTSIDE = "203.0.113.1"
NOBODY = "172.16.0.0/12"
"""An inside that none of the captures has a host of."""


@dataclass(frozen=True, slots=True)
class ProtocolPairs:
    """The pairs of *protocol*, whose servers have *ports* and whose clients are in the network *lan*."""

    protocol: str
    ports: tuple[int, ...]
    lan: str

    def play(
        self,
        source: Path,
        target: Path,
        inside: str = "",
        ports: tuple[int, ...] = (),
        midstream: bool = False,
    ) -> Replay:
        """Replay the file *source* into the file *target*."""
        capture = Capture.load(source)
        served = {self.protocol: ports or self.ports}
        result = replay(capture, IPv4Network(inside or self.lan), OUTSIDE, served, midstream)
        capture.save(target)
        return result

    def as_it_is(self, case: Pair, folder: Path) -> None:
        """What comes becomes what must leave."""
        target = folder / "out.pcap"
        result = self.play(case.before, target)
        assert target.read_bytes() == case.after.read_bytes()
        assert result.malformed == 0

    def in_other_segments(self, case: Pair, how: str, seed: int, folder: Path) -> None:
        """The streams leave the same, cut anew in the ways that *how* names."""
        frames = read_frames(case.before)
        for step in how.split():
            frames = recut(frames, step, seed)
        source, target = folder / "in.pcap", folder / "out.pcap"
        write_pcap(source, frames)
        self.play(source, target)
        left = read_frames(target)
        assert len(left) == len(frames)
        assert streams(left, strict=True) == streams(read_frames(case.after))

    def of_nobody_inside(self, case: Pair, folder: Path) -> None:
        """Nothing changes where no client is inside."""
        target = folder / "out.pcap"
        result = self.play(case.before, target, inside=NOBODY)
        assert target.read_bytes() == case.before.read_bytes()
        assert (result.changed, result.messages, result.pinholes) == (0, [], [])

    def judged(self, case: Pair, folder: Path) -> None:
        """tshark finds nothing in what leaves that it does not find in what comes."""
        target = folder / "out.pcap"
        self.play(case.before, target)
        before, after = tshark_problems(case.before, ()), tshark_problems(target, ())
        assert after.checksums == []
        assert after == before

    def of_others(
        self, name: str, inside: str, ports: tuple[int, ...], midstream: bool, folder: Path
    ) -> Replay:
        """Nothing changes in the capture *name* of another protocol, read at *ports*."""
        source = SHARED / name
        result = self.play(source, folder / "out", inside, ports, midstream)
        assert (folder / "out").read_bytes() == source.read_bytes()
        assert (result.changed, result.pinholes) == (0, [])
        return result
