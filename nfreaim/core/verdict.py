"""Verdict: what the kernel shall do with one packet. Nothing else lives here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Verdict:
    """Accept a packet, as *payload* (the whole packet) if given, or drop it."""

    accept: bool
    payload: bytes | None = None


ACCEPT: Final = Verdict(True)
DROP: Final = Verdict(False)
Verdicts = list[tuple[Any, Verdict]]
