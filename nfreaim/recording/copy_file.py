"""Makes a copy without secrets of captures that exist already."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from nfreaim.capture import Capture
from nfreaim.capture.link_layer import network_offset
from nfreaim.core.helper import HelperSpec
from nfreaim.recording.copying import Packet, copies
from nfreaim.recording.recording_file import RecordingFile


def copy(
    captures: Sequence[Capture], names: Sequence[str], servers: dict[int, HelperSpec], out: RecordingFile
) -> None:
    """Write to *out* what may be copied of *captures*, which are called *names*, in order of time."""
    packets: list[Packet] = []
    for capture, name in zip(captures, names, strict=True):
        packets += _packets(capture, out.interface(name))
    packets.sort(key=lambda packet: packet.time)
    for packet in copies(packets, servers, os.urandom(32)):
        out.packet(packet)


def _packets(capture: Capture, interface: int) -> Iterator[Packet]:
    for frame in capture:
        at = network_offset(frame.link, frame.data)
        if at is not None:
            yield Packet(frame.time, interface, frame.data[at:])
