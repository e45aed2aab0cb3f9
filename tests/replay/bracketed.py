"""A protocol made to measure: what stands in brackets leaves changed, and mostly of another length.

``[]`` is taken out, other contents of an even length are said three times, and of those of an odd length the
first byte stays. It is read from the first byte on, in both directions, whichever end is inside.
"""

from __future__ import annotations

import re
from typing import Final

from nfreaim.core.address import Direction, End
from nfreaim.core.helper import HelperFactory, HelperSpec, Nat, Scan
from nfreaim.core.tcp.offsets import Edit

PORT: Final = 7000
_MESSAGE: Final = re.compile(rb"\[([^\[\]]*)\]")


def _changed(found: re.Match[bytes]) -> bytes:
    return found[1][:1] if len(found[1]) % 2 else found[1] * 3


def edited(stream: bytes) -> bytes:
    """*stream* as it shall leave: the oracle, which knows no offsets."""
    return _MESSAGE.sub(_changed, stream)


class BracketHelper:
    """Reads one flow; see core.helper.Helper."""

    def __init__(self, midstream: bool) -> None:
        self.established = True
        self._kept = [b"", b""]

    def scan(self, direction: Direction, data: bytes, start: int, nat: Nat) -> Scan | None:
        data, start = self._kept[direction] + data, start - len(self._kept[direction])
        found = list(_MESSAGE.finditer(data))
        edits = [Edit(start + one.start(), start + one.end(), _changed(one)) for one in found]
        begun = data.rfind(b"[")
        complete = begun < 0 or b"]" in data[begun:]
        self._kept[direction] = b"" if complete else data[begun:]
        return Scan(tuple(edits), None if complete else start + begun)

    def skips(self, direction: Direction, raw: bytes, start: int, nat: Nat) -> bool:
        return False


def _load() -> HelperFactory:
    return BracketHelper


BRACKETS: Final = HelperSpec("brackets", (PORT,), _load, resizes=frozenset(End))
