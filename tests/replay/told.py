"""What `nfreaim explain` tells of a capture, for tests that compare stories."""

from __future__ import annotations

import os
import re
from ipaddress import IPv4Network
from pathlib import Path

from nfreaim import protocols
from nfreaim.capture import Capture
from nfreaim.explain.explanation import Explained, explained
from nfreaim.explain.ladder_text import drawn
from nfreaim.recording.copy_file import copy
from nfreaim.recording.recording_file import MEGABYTE, RecordingFile

PORTS = {spec.name: spec.ports for spec in protocols.known_protocols()}


def story(
    *paths: Path,
    outside: str | None = None,
    inside: str = "",
    names: bool = False,
    more: tuple[str, ...] = (),
) -> Explained:
    """The story of the captures at *paths*: all protocols on their usual ports, or as *more* has them."""
    networks = (IPv4Network(inside),) if inside else ()
    ports = {**PORTS, **protocols.chosen(more)}
    return explained([Capture.load(path) for path in paths], ports, networks, outside, names)


def lines(told: Explained, width: int = 100) -> list[str]:
    """It as text, as the command prints it."""
    found = list(told.notes)
    for ladder in told.ladders:
        found += ["", *drawn(ladder, width)]
    return found


def without_frames(told: Explained) -> list[str]:
    """The ladders without the numbers of frames, because a copy lacks the packets of others."""
    return [re.sub(r", frame \d+$", "", line) for line in lines(told)[len(told.notes) :]]


def copied(path: Path, target: Path) -> Path:
    """A copy without secrets of the capture at *path*."""
    with RecordingFile(target, 64 * MEGABYTE) as out:
        copy([Capture.load(path)], [path.name], protocols.by_port(PORTS), out)
    assert os.stat(target).st_mode & 0o777 == 0o600
    return target
