"""Rewriting: the edits by which other texts come to stand in a message, with every length that follows.

In an SLP text Content-Length follows; in a P2P frame of version 1 its two sizes; in a command its length.
Frames of version 2 are numbered by bytes, so all later ones would have to be translated, and what clients do
about an error there is not known: they keep their lengths.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, NamedTuple

from nfreaim.core.address import Direction
from nfreaim.core.helper import Nat
from nfreaim.core.tcp.offsets import Edit
from nfreaim.helpers.msn.framing import Command
from nfreaim.layers.msn_p2p import ACKED_AT, SIZE_AT, TOTAL_AT, Frame, acked_sizes
from nfreaim.layers.msn_slp import Text
from nfreaim.layers.msn_text import Place, Span

LONGEST_SENT: Final = 1664
"""Bytes of a MSG's payload beyond which the Escargot server ends the switchboard (msnp_sb.py, 1f5a190)."""

_SIZE: Final = struct.Struct("<I")
_LONG: Final = struct.Struct("<Q")

Changes = list[tuple[Span, bytes]]
"""What has to stand where: in an SLP text if there is one, else in the payload. Ascending."""


class Message(NamedTuple):
    """A message with an address.

    service, name  what it is about, and the name of its agreement
    peer           the other party, where that is known
    """

    direction: Direction
    command: Command
    service: str
    name: bytes
    peer: bytes
    frame: Frame | None = None
    text: Text | None = None


class Left(Exception):
    """Why a message that names *place* is left as it came."""

    def __init__(self, place: Place, reason: str) -> None:
        super().__init__(reason)
        self.place = place


def is_sent(message: Message) -> bool:
    """Whether a client sends it to a switchboard."""
    return message.command.words[0] == b"MSG" and message.direction is Direction.ORIGINAL


def rewritten(message: Message, changes: Changes, before: Place, nat: Nat) -> tuple[list[Edit], int]:
    """The edits that make *changes*, and by how many bytes the payload grows. Raises Left."""
    command, frame = message.command, message.frame
    edits = changes
    if message.text is not None:
        edits, start = _with_length(message.text, changes), 0 if frame is None else frame.start
        edits = [((low + start, high + start), new) for (low, high), new in edits]
    grown = _grown(edits)
    if grown and frame is not None:
        if frame.version == 2:
            nat.count("numbered_left")
            raise Left(before, "frames of version 2 keep their lengths")
        edits = sorted([*edits, *_sizes(frame, grown)])
    if is_sent(message) and grown and len(command.payload) + grown > LONGEST_SENT:
        raise Left(before, "the server would refuse a longer message")
    made = [
        Edit(command.payload_at + low, command.payload_at + high, new)
        for (low, high), new in edits
        if command.payload[low:high] != new
    ]
    if grown:
        length, at = b"%d" % (len(command.payload) + grown), command.length_at
        made.insert(0, Edit(at, at + len(command.words[-1]), length))
    return made, grown


def acknowledged(command: Command, frame: Frame, before: Callable[[int], int | None]) -> list[Edit]:
    """The edits of an acknowledgement; *before*: the size that a frame had, by that after its edit."""
    edits: list[Edit] = []
    for at, size in zip((TOTAL_AT, ACKED_AT), acked_sizes(command.payload, frame.at), strict=True):
        sent, start = before(size), command.payload_at + frame.at + at
        if sent is not None:
            edits.append(Edit(start, start + _LONG.size, _LONG.pack(sent)))
    return edits


def _with_length(text: Text, changes: Changes) -> Changes:
    """*changes* of a text, and that of its Content-Length, if that is right."""
    span, grown = text.length_span(), _grown(changes)
    if span is None or not grown:
        return changes
    return sorted([*changes, (span, b"%d" % (int(text.data[slice(*span)]) + grown))])


def _grown(changes: Changes) -> int:
    return sum(len(new) - (high - low) for (low, high), new in changes)


def _sizes(frame: Frame, grown: int) -> Changes:
    """What becomes of the sizes in a header of version 1; a size of 0 stays."""
    start, end = frame.at + TOTAL_AT, frame.at + SIZE_AT
    new = _LONG.pack(frame.total + grown)
    if frame.size:
        new, end = new + _SIZE.pack(frame.size + grown), end + _SIZE.size
    return [((start, end), new)]
