"""Verdict: what the kernel shall do with one packet. Nothing else lives here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Verdict:
    """Accept a packet, as *payload* (the whole packet) if given, or drop it.

    release  its connection was verified and needs no further look
    """

    accept: bool
    payload: bytes | None = None
    release: bool = False


ACCEPT: Final = Verdict(True)
DROP: Final = Verdict(False)
Verdicts = list[tuple[Any, Verdict]]
