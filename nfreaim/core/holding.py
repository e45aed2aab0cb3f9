"""Holding: which streams keep packets back, how much of it there may be, and when it has to end.

Decides nothing about a packet's bytes and gives no verdicts; the clock is an argument.
"""

from __future__ import annotations

from math import inf

from nfreaim.core.counters import Counters
from nfreaim.core.settings import EngineSettings
from nfreaim.core.stream import Held, Stream


class Holding:
    """Every stream that holds something. What is asked at each packet does not take longer for many."""

    def __init__(self, settings: EngineSettings, counters: Counters) -> None:
        self._counters = counters
        self._settings = settings
        self._streams: dict[int, Stream] = {}
        self._packets = 0
        self._wakeup = inf  # at or before the time when the first one is due

    def streams(self) -> list[Stream]:
        return list(self._streams.values())

    def may(self, stream: Stream, hold: int, fresh: int, size: int) -> bool:
        """Whether keeping back a packet of *size* bytes can still serve an edit, and there is room for it.

        hold, fresh  the first byte that an edit may concern, and the first that no earlier packet carried
        """
        if hold < stream.untouched(fresh):
            return False  # those bytes have left already
        small = stream.held_bytes + size <= self._settings.hold_bytes
        if small and self._packets < self._settings.hold_packets:
            return True
        self._counters.late_edit += 1
        return False

    def keep(self, stream: Stream, packet: Held) -> None:
        """Hold *packet* of *stream*."""
        stream.hold(packet)
        self._packets += 1
        self._streams[id(stream)] = stream
        self._wakeup = min(self._wakeup, packet.since + self._settings.hold)

    def let_go(self, stream: Stream, below: int | None = None) -> list[Held]:
        """What *stream* holds up to offset *below* (None: everything), no longer held."""
        freed = stream.let_go(below)
        self._packets -= len(freed)
        if not stream.held:
            self._streams.pop(id(stream), None)
        return freed

    def due(self, now: float) -> list[Stream]:
        """The streams that have held something for as long as they may."""
        if now < self._wakeup:
            return []
        until = {id(stream): stream.held[0].since + self._settings.hold for stream in self._streams.values()}
        self._wakeup = min((time for time in until.values() if time > now), default=inf)
        return [stream for stream in self.streams() if until[id(stream)] <= now]

    def overdue(self, stream: Stream) -> list[Held]:
        """What *stream* has held in vain and has to be dropped, no longer held; if nothing, all has to leave.

        It is dropped where a hole is known to follow: what fills that can only be sent again, and what is
        dropped comes again with it, or just ahead of it. But only once: then something has to leave first.
        """
        if stream.gap is None or stream.unsent is not None:
            self._counters.late_edit += 1
            return []
        stream.unsent = stream.held[0].fresh
        freed = self.let_go(stream)
        self._counters.gap_drops += len(freed)
        return freed

    def wakeup(self) -> float | None:
        """When to ask for the ones that are ``due``, at the latest; None: there is nothing to wait for."""
        return self._wakeup if self._streams else None
