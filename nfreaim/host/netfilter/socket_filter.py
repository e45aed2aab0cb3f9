"""Filters of sockets: programs of the kernel that say which messages a netlink socket takes.

A message that no filter takes neither wakes its process nor fills its buffer. Layouts: linux/filter.h.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

LOAD_HALF: Final = 0x28
LOAD_WORD: Final = 0x20
_JUMP_EQUAL, _RETURN = 0x15, 0x06
ALL: Final = 0xFFFFFFFF
"""To take a message."""
NOTHING: Final = 0
KIND_AT: Final = 4
"""Where the type of a netlink message stands."""

_ATTACH: Final = 26  # SO_ATTACH_FILTER
_STEP: Final = struct.Struct("=HBBI")


class Step(NamedTuple):
    """A step: what it does, how many it leaves out if a comparison is true or not, and with which value."""

    code: int
    if_true: int = 0
    if_false: int = 0
    value: int = 0


def kind(number: int) -> int:
    """A type of netlink messages as a filter loads it: in network order, what is in the machine's."""
    return socket.htons(number)


def any_of(values: Sequence[int], then: int, otherwise: int) -> list[Step]:
    """The end of a filter: *then* if what was loaded is one of *values*. At most 255."""
    count = len(values)
    compared = [Step(_JUMP_EQUAL, count - number, 0, value) for number, value in enumerate(values)]
    return [*compared, Step(_RETURN, value=otherwise), Step(_RETURN, value=then)]


def only(value: int, otherwise: int) -> list[Step]:
    """Goes on if what was loaded is *value*, and ends with *otherwise* if not."""
    return [Step(_JUMP_EQUAL, 1, 0, value), Step(_RETURN, value=otherwise)]


def attach(to: socket.socket, steps: Sequence[Step]) -> None:
    """Give a socket a filter, in place of the one that it has. Raises OSError."""
    program = ctypes.create_string_buffer(b"".join(_STEP.pack(*step) for step in steps))
    to.setsockopt(socket.SOL_SOCKET, _ATTACH, struct.pack("@HL", len(steps), ctypes.addressof(program)))
