"""Holding: which streams keep packets back, how much of it there may be, and when it has to end.

Decides nothing about a packet's bytes and gives no verdicts; the clock is an argument.
"""

from __future__ import annotations

from nfreaim.core.counters import Counters
from nfreaim.core.settings import EngineSettings
from nfreaim.core.stream import Held, Stream


class Holding:
    """Every stream that holds something, in the order in which they began."""

    def __init__(self, settings: EngineSettings, counters: Counters) -> None:
        self._counters = counters
        self._settings = settings
        self._streams: dict[int, Stream] = {}

    def streams(self) -> list[Stream]:
        return list(self._streams.values())

    def may(self, stream: Stream, hold: int, fresh: int, size: int) -> bool:
        """Whether keeping back a packet of *size* bytes can still serve an edit, and there is room for it.

        hold, fresh  the first byte that an edit may concern, and the first that no earlier packet carried
        """
        if hold < stream.untouched(fresh):
            return False  # those bytes have left already
        if stream.held_bytes + size <= self._settings.hold_bytes:
            packets = sum(len(other.held) for other in self._streams.values())
            if packets < self._settings.hold_packets:
                return True
        self._counters.late_edit += 1
        return False

    def keep(self, stream: Stream, packet: Held) -> None:
        """Hold *packet* of *stream*."""
        stream.hold(packet)
        self._streams[id(stream)] = stream

    def let_go(self, stream: Stream, below: int | None = None) -> list[Held]:
        """What *stream* holds up to offset *below* (None: everything), no longer held."""
        freed = stream.let_go(below)
        if not stream.held:
            self._streams.pop(id(stream), None)
        return freed

    def due(self, now: float) -> list[Stream]:
        """The streams that have held something for as long as they may."""
        return [stream for stream in self.streams() if stream.held[0].since + self._settings.hold <= now]

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
        """When the next one will be ``due``, or None."""
        if not self._streams:
            return None
        return min(stream.held[0].since for stream in self._streams.values()) + self._settings.hold
