"""Makes the pairs of captures that a module of this package describes, or tells which differ from it."""

from __future__ import annotations

import argparse
import hashlib
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from tests.tcp.captures import ETHERNET, Frames, read_frames, tcp_in, write_pcap
from tests.tcp.packets import SYN


class Pair(Protocol):
    """Two captures: what comes to a router, and what leaves it."""

    @property
    def before(self) -> Path: ...

    @property
    def after(self) -> Path: ...


P = TypeVar("P", bound=Pair)
Make = Callable[[P, Path, Path], None]
"""Writes the captures of a pair to two files."""


Edits = tuple[tuple[int, bytes, bytes], ...]
"""By frame, what must leave in place of what."""


class Stage(Protocol):
    """What a scene is played on."""

    frames: Frames


S = TypeVar("S", bound=Stage)


def play(scene: Callable[[S], None], stage: Callable[[bool], S], before: Path, after: Path) -> None:
    """Write the pair of a *scene*, played on a stage for what comes and on one for what must leave (True)."""
    stages = stage(False), stage(True)
    for one in stages:
        scene(one)
    come, leave = (one.frames for one in stages)
    write_pcap(before, come)
    write_pcap(after, fragmentable(come, leave))


def edit(recorded: Path, sha256: str, edits: Callable[[Frames], Edits], before: Path, after: Path) -> None:
    """Write the pair of a *recorded* input: *before* is a copy, and *edits* says what must leave of it."""
    raw = recorded.read_bytes()
    if hashlib.sha256(raw).hexdigest() != sha256:
        raise SystemExit(f"{recorded} is not the file that was recorded; take it from the history")
    before.write_bytes(raw)
    come = read_frames(before)
    write_pcap(after, fragmentable(come, renumbered(come, edits(come))))


def renumbered(frames: Frames, edits: Edits) -> Frames:
    """*frames* with *edits*, each of one segment; what is behind them and what acknowledges it follows."""
    texts = {number: (old, new) for number, old, new in edits}
    grown: dict[tuple[str, int, str, int], list[tuple[int, int]]] = {}  # by direction: behind what, how much
    result: Frames = []
    for number, (time, frame) in enumerate(frames, 1):
        segment = tcp_in(frame)
        if segment is None:
            result.append((time, frame))
            continue
        source = segment.direction
        back = (*source[2:], *source[:2])
        if segment.flags & SYN:
            grown[source] = []
        seq = segment.seq + sum(by for at, by in grown.get(source, ()) if _behind(segment.seq, at))
        ack = segment.ack + sum(by for at, by in grown.get(back, ()) if _behind(segment.ack, at))
        payload = segment.payload
        if number in texts:
            old, new = texts[number]
            assert payload.count(old) == 1, f"frame {number} does not hold {old!r}"
            payload = payload.replace(old, new)
            grown[source].append((segment.seq + len(segment.payload), len(new) - len(old)))
        if (seq, ack, payload) != (segment.seq, segment.ack, segment.payload):
            frame = frame[: len(ETHERNET)] + segment.changed(seq=seq, ack=ack, payload=payload).raw
        result.append((time, frame))
    return result


def _behind(number: int, at: int) -> bool:
    return (number - at) % 2**32 < 2**31


def fragmentable(before: Frames, after: Frames) -> Frames:
    """*after*, without the don't-fragment bit where a frame is longer than *before*."""
    result: Frames = []
    for (_, old), (time, new) in zip(before, after, strict=True):
        segment = tcp_in(new)
        if segment is not None and len(new) > len(old):
            new = new[: len(ETHERNET)] + segment.fragmentable().raw
        result.append((time, new))
    return result


def differences(module: str, cases: Sequence[P], make: Make[P], others: Iterable[Path]) -> list[str]:
    """One line for each capture that is not as *make* makes it, and for each of *others* of no case."""
    found = []
    for case in cases:
        with tempfile.TemporaryDirectory() as folder:
            before, after = Path(folder, "before"), Path(folder, "after")
            make(case, before, after)
            for committed, made in ((case.before, before), (case.after, after)):
                if not committed.is_file() or committed.read_bytes() != made.read_bytes():
                    found.append(f"{committed} is not what {module} makes")
    wanted = {path for case in cases for path in (case.before, case.after)}
    return found + [f"{path} belongs to no case" for path in sorted(set(others) - wanted)]


def command(folder: Path, cases: Sequence[P], make: Make[P], check: Callable[[], list[str]]) -> int:
    """The command line: make the pairs of *folder*, or with --check tell what *check* finds."""
    parser = argparse.ArgumentParser(description=f"make the captures of pcaps/{folder.name}/")
    parser.add_argument("--check", action="store_true", help="change nothing, tell what differs")
    if parser.parse_args().check:
        found = check()
        print("\n".join(found) or f"{len(cases)} pairs are as they should be")
        return 1 if found else 0
    for case in cases:
        make(case, case.before, case.after)
    return 0
