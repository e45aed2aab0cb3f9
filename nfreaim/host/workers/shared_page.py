"""SharedPage: numbers in shared memory, which the main process writes and the workers read without a request.

An anonymous file (memfd) of one page. The main process maps it for writing, the workers for reading only.
Each number has eight bytes and is aligned, so that a read sees a whole number. ``Slot`` is the layout.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping
from enum import IntEnum
from ipaddress import IPv4Address
from itertools import islice
from typing import Final

_SIZE: Final = mmap.PAGESIZE
_MOST_IN_FRONT: Final = 16


class Slot(IntEnum):
    """Index of each number, in native 64-bit words."""

    PINHOLES = 0
    """Number of open pinholes."""
    STANDING = 1
    """1 if an open pinhole is a standing one, else 0."""
    PINHOLE_CHANGES = 2
    """Incremented when a pinhole is opened or closed."""
    FOLLOWED_CHANGES = 3
    """Changes when a server is followed, or no longer."""
    OUTSIDE_ADDRESS = 4
    """The IPv4 address that is told for all flows (core.reach), as a number; 0 if there is none."""
    CONFIG_CHANGES = 5
    """Incremented when other settings come into force."""
    UNWATCHED = 6
    """Backend.unwatched, in nanoseconds."""
    IN_FRONT = 7
    """The first of sixteen: an outside address of ours in the upper half, and in the lower one the address
    of the router in front (core.reach), as numbers; 0 if there is none."""


class SharedPage:
    """A mapping of *handle*, the descriptor of a page that ``make`` made.

    view  the descriptor for readers; it allows no writing
    """

    def __init__(self, handle: int, write: bool = False) -> None:
        self._handle = handle
        self.view = os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_CLOEXEC) if write else handle
        self._map = mmap.mmap(handle, _SIZE, prot=mmap.PROT_READ | (mmap.PROT_WRITE if write else 0))
        self._words = memoryview(self._map).cast("Q")

    @classmethod
    def make(cls) -> SharedPage:
        """A new page, all zeroes. Only processes that get its descriptor inherit it."""
        handle = os.memfd_create("nfreaim", os.MFD_CLOEXEC)
        os.ftruncate(handle, _SIZE)
        return cls(handle, write=True)

    def __getitem__(self, number: Slot) -> int:
        return self._words[number]

    def __setitem__(self, number: Slot, value: int) -> None:
        self._words[number] = value

    def set_in_front(self, addresses: Mapping[str, str]) -> None:
        """Write Reach.in_front."""
        pairs = [int(IPv4Address(own)) << 32 | int(IPv4Address(at)) for own, at in addresses.items()]
        for index, pair in enumerate(islice([*pairs, *[0] * _MOST_IN_FRONT], _MOST_IN_FRONT), Slot.IN_FRONT):
            self._words[index] = pair

    def in_front(self) -> dict[str, str]:
        """Reach.in_front."""
        pairs = self._words[Slot.IN_FRONT : Slot.IN_FRONT + _MOST_IN_FRONT]
        return {str(IPv4Address(one >> 32)): str(IPv4Address(one & 0xFFFFFFFF)) for one in pairs if one}

    def set_unwatched(self, until: float) -> None:
        """Write Backend.unwatched, which is *until* from now on."""
        self._words[Slot.UNWATCHED] = int(until * 1e9)

    def unwatched(self) -> float:
        """Backend.unwatched."""
        return self._words[Slot.UNWATCHED] / 1e9

    def close(self) -> None:
        """Unmap the page and close its descriptors."""
        self._words.release()
        self._map.close()
        for handle in {self._handle, self.view}:
            os.close(handle)
