"""SharedPage: numbers in shared memory, which the main process writes and the workers read without a request.

An anonymous file (memfd) of one page. The main process maps it for writing, the workers for reading only.
Each number has eight bytes and is aligned, so that a read sees a whole number. ``Slot`` is the layout.
"""

from __future__ import annotations

import mmap
import os
from enum import IntEnum
from typing import Final

_SIZE: Final = mmap.PAGESIZE


class Slot(IntEnum):
    """Index of each number, in native 64-bit words."""

    PINHOLES = 0
    """Number of open pinholes."""
    STANDING = 1
    """1 if an open pinhole is a standing one, else 0."""
    PINHOLE_CHANGES = 2
    """Incremented when a pinhole is opened or closed."""
    FOLLOWED_CHANGES = 3
    """Incremented when a redirect names a server."""


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

    def close(self) -> None:
        """Unmap the page and close its descriptors."""
        self._words.release()
        self._map.close()
        for handle in {self._handle, self.view}:
            os.close(handle)
