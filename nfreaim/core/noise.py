"""Noise: packets of a known flow that bring nothing new, and who sends too many of them.

A host can send packets with the ports of its own session as fast as it likes, without TCP. They would fill
the sessions' queue. A flow that has too many of them waits with the newcomers for a while, where the kernel
bounds what is queued.
"""

from __future__ import annotations

from typing import Any, Final

from nfreaim.core.engine import Engine
from nfreaim.core.verdict import Verdicts

_PERIOD_S: Final = 1.0
_MOST_OF_FLOW: Final = 6000  # in that time; a lost packet of a fast transfer makes some thousand
_MOST_OF_CLIENT: Final = 12000
_MOST_COUNTED: Final = 4096


class SessionReader:
    """An engine, as the queue of sessions needs it."""

    def __init__(self, engine: Engine) -> None:
        self.passes = engine.passes
        self._engine = engine
        self._streams = engine.flows.streams
        self._counts: dict[bytes, int] = {}
        self._ends = 0.0

    def process_slow(self, raw: bytes, token: Any, from_inside: bool, now: float, skewed: bool) -> Verdicts:
        """See Engine.process_slow."""
        stream = self._streams.get(raw[12:24])
        before = 0 if stream is None else stream.next
        verdicts = self._engine.process_slow(raw, token, from_inside, now, skewed)
        if stream is not None and stream.next == before:
            self._count(stream.flow.key, now)
        return verdicts

    def _count(self, key: bytes, now: float) -> None:
        counts = self._counts
        if now >= self._ends:
            self._ends = now + _PERIOD_S
            counts.clear()
        if len(counts) >= _MOST_COUNTED:
            return
        client = key[:4]
        own = counts[key] = counts.get(key, 0) + 1
        all_ = counts[client] = counts.get(client, 0) + 1
        if own >= _MOST_OF_FLOW or all_ >= _MOST_OF_CLIENT:
            counts[key] = 0
            self._engine.demote(key, now)
