"""Verdict: accept or drop a queued packet, and the bytes that it leaves with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Verdict:
    """Accept a packet, with the bytes *payload* (the whole packet) if given, or drop it.

    release  the packet's connection is verified, so the rules may stop queueing it
    """

    accept: bool
    payload: bytes | None = None
    release: bool = False


ACCEPT: Final = Verdict(True)
DROP: Final = Verdict(False)
Verdicts = list[tuple[Any, Verdict]]
