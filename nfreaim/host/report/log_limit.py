"""LogLimit: bounds what others can make this process log, and writes sums of what it leaves out.

journald drops lines of a service that writes more than 10,000 in 30 s, whatever they say. So lines that
somebody's packets cause must stay far below that. A line's kind is the place in the program that writes it.
Its source is the host that it is about: the first flow or endpoint among its values, unless the place names
one. Lines without a source are the daemon's own; each kind of them has the limit of one source.
"""

from __future__ import annotations

import logging
import math
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.host.events import SUM, noted

PERIOD_S: Final = 60.0
PER_SOURCE: Final = 10
"""Lines of one kind and source in any PERIOD_S."""

TOTAL: Final = 100
"""Lines that have a source, of all kinds together. The first two of a source and kind may exceed it."""

_FIRST: Final = 2
_TOTAL_WITH_FIRST: Final = 300
_TRACEBACKS: Final = 3  # of one kind in a period; then the line alone
_SOURCES: Final = 1024  # pairs of source and kind that are told apart; others share one limit for their kind
_FORGET_S: Final = 1.0  # between two looks for sources that may be forgotten
_SUMS: Final = 10  # of one kind that name their source; one more for all other sources

log = logging.getLogger("nfreaim")

Kind = tuple[str, int]


@dataclass(slots=True)
class _Lines:
    """Of one source and kind: when lines were written, and how many were left out, the last one of them."""

    written: deque[float] = field(default_factory=lambda: deque(maxlen=PER_SOURCE))
    left_out: int = 0
    last: logging.LogRecord | None = None

    def recent(self, now: float) -> int:
        """How many lines were written in the last period, at most PER_SOURCE."""
        while self.written and self.written[0] <= now - PERIOD_S:
            self.written.popleft()
        return len(self.written)


class LogLimit(logging.Filter):
    """A filter of a handler. ``tick`` and ``flush`` write the sums.

    clock  seconds that never go back
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self._clock = clock
        self._lines: dict[tuple[str, Kind], _Lines] = {}
        self._all: deque[float] = deque()
        self._traced: dict[Kind, deque[float]] = {}
        self._sums_at: float | None = None
        self._forget_at = -math.inf

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether *record* is written. Its traceback is left out where there were enough."""
        if getattr(record, "is_sum", False):
            return True
        now = self._clock()
        kind, source = (record.pathname, record.lineno), _source_of(record)
        lines = self._lines_of(source, kind, now)
        recent = lines.recent(now)
        if recent >= PER_SOURCE or (source and not self._room(recent, now)):
            record.exc_info = record.exc_text = None  # a traceback keeps what it shows in memory
            lines.left_out += 1
            lines.last = record
            self._sums_at = now + PERIOD_S if self._sums_at is None else self._sums_at
            return False
        lines.written.append(now)
        if source:
            self._all.append(now)
        if record.exc_info and not self._may_trace(kind, now):
            record.exc_info = record.exc_text = None
        return True

    def tick(self) -> None:
        """Write the sums if a period is over. Call it about every second."""
        if self._sums_at is not None and self._clock() >= self._sums_at:
            self.flush()

    def flush(self) -> None:
        """Write the sums now."""
        self._sums_at = None
        told: Counter[Kind] = Counter()
        others: dict[Kind, tuple[int, logging.LogRecord]] = {}
        due = [(key, lines) for key, lines in self._lines.items() if lines.last is not None]
        for (source, kind), lines in sorted(due, key=lambda each: -each[1].left_out):
            record, count = lines.last, lines.left_out
            assert record is not None
            lines.last, lines.left_out = None, 0
            told[kind] += 1
            if told[kind] > _SUMS:
                others[kind] = others.get(kind, (0, record))[0] + count, record
            else:
                _write_sum(record, count, f" for {source}" if source else "")
        for kind, (count, record) in others.items():
            _write_sum(record, count, f" for {told[kind] - _SUMS} other hosts")

    def _lines_of(self, source: str, kind: Kind, now: float) -> _Lines:
        lines = self._lines.get((source, kind))
        if lines is None:
            if len(self._lines) >= _SOURCES and now >= self._forget_at:
                # A flood has a new source in each line: to look at all of them each time would cost more than
                # to write the line.
                self._forget_at = now + _FORGET_S
                self._lines = {k: each for k, each in self._lines.items() if each.recent(now) or each.last}
            if source and len(self._lines) >= _SOURCES:
                source = "others"
            lines = self._lines.setdefault((source, kind), _Lines())
        return lines

    def _room(self, recent: int, now: float) -> bool:
        """Whether all sources together may write one more line; *recent* are this one's of its kind."""
        while self._all and self._all[0] <= now - PERIOD_S:
            self._all.popleft()
        return len(self._all) < (_TOTAL_WITH_FIRST if recent < _FIRST else TOTAL)

    def _may_trace(self, kind: Kind, now: float) -> bool:
        traced = self._traced.setdefault(kind, deque(maxlen=_TRACEBACKS))
        if len(traced) == _TRACEBACKS and traced[0] > now - PERIOD_S:
            return False
        traced.append(now)
        return True


def tick_all() -> None:
    """``tick`` of the limits of this process."""
    for handler in logging.getLogger().handlers:
        for each in handler.filters:
            if isinstance(each, LogLimit):
                each.tick()


def _source_of(record: logging.LogRecord) -> str:
    """The host that a line is about, or "" for a line of the daemon's own."""
    named = getattr(record, "source", None)
    if isinstance(named, str):
        return named
    for value in record.args if isinstance(record.args, tuple) else ():
        if isinstance(value, FlowId):
            return value.client.address
        if isinstance(value, Endpoint):
            return value.address
    return ""


def _write_sum(record: logging.LogRecord, count: int, whose: str) -> None:
    try:
        last = record.getMessage()
    except Exception:  # its values do not fit: logging itself would only say so, too
        last = str(record.msg)
    log.log(
        record.levelno,
        "%d more lines in the last minute%s like: %s",
        count,
        whose,
        last,
        extra={"is_sum": True, **noted(SUM)},
    )
