"""SharedPage: a few numbers that one process writes and others read without asking. Decides nothing.

An anonymous file (memfd) of one page, mapped by all: the owner of the pinholes writes, the readers map it for
reading only. Each number is eight bytes, aligned, so that it is read as a whole. Layout: see ``Slot``.
"""

from __future__ import annotations

import mmap
import os
from enum import IntEnum
from typing import Final

_SIZE: Final = mmap.PAGESIZE


class Slot(IntEnum):
    """What is at which place, in native 64-bit words."""

    PINHOLES = 0
    """How many are open."""
    SESSIONS = 1
    """1 if any of them is open for a whole session, else 0."""
    CHANGES = 2
    """Of what is open: another number says that the pinholes may lead elsewhere."""
    FOLLOWED = 3
    """Of the followed servers: another number says that there may be others."""


class SharedPage:
    """The mapping of *handle*, a file that has been made by ``make``, for reading or for writing, too.

    view  a descriptor to hand to readers: it allows no writing, where the page was made
    """

    def __init__(self, handle: int, write: bool = False) -> None:
        self._handle = handle
        self.view = os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_CLOEXEC) if write else handle
        self._map = mmap.mmap(handle, _SIZE, prot=mmap.PROT_READ | (mmap.PROT_WRITE if write else 0))
        self._words = memoryview(self._map).cast("Q")

    @classmethod
    def make(cls) -> SharedPage:
        """A new page full of zeroes. It is inherited by no process but those that are handed it."""
        handle = os.memfd_create("nfreaim", os.MFD_CLOEXEC)
        os.ftruncate(handle, _SIZE)
        return cls(handle, write=True)

    def __getitem__(self, number: Slot) -> int:
        return self._words[number]

    def __setitem__(self, number: Slot, value: int) -> None:
        self._words[number] = value

    def close(self) -> None:
        """Give the memory back."""
        self._words.release()
        self._map.close()
        for handle in {self._handle, self.view}:
            os.close(handle)
