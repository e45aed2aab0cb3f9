"""Frames: the packets of one or more captures in order of time, as replay and the reading of connections need
them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from nfreaim.capture import Frame
from nfreaim.capture.link_layer import network_offset
from nfreaim.core.tcp.segment import Segment


class Frames:
    """The frames of all captures, numbered from 1 in order of time; of one capture, by their own numbers."""

    def __init__(self, captures: Iterable[Iterable[Frame]]) -> None:
        files = [list(capture) for capture in captures]
        # Two interfaces of one recording are stamped by the kernel, and read one after the other.
        self._frames = sorted(files[0], key=lambda frame: frame.time) if len(files) == 1 else _merged(files)
        self.times = {frame.number: frame.time for frame in self._frames}

    def __iter__(self) -> Iterator[Frame]:
        """The frames."""
        return iter(self._frames)

    def replace(self, number: int, data: bytes) -> None:
        """What replay would write is not kept: the story names addresses only."""

    @property
    def began(self) -> float:
        """The time of the first frame; 0 if there is none."""
        return min(self.times.values(), default=0.0)


def _merged(files: list[list[Frame]]) -> list[Frame]:
    frames = sorted((frame for file in files for frame in file), key=lambda frame: frame.time)
    return [replace(frame, number=number) for number, frame in enumerate(frames, 1)]


def segment_in(frame: Frame) -> Segment | None:
    """The TCP segment in *frame*, with zeros for what a snapshot length cut off; None if there is none."""
    at = network_offset(frame.link, frame.data)
    if at is None:
        return None
    length = int.from_bytes(frame.data[at + 2 : at + 4], "big")
    return Segment.parse(frame.data[at : at + length].ljust(length, b"\0"))
